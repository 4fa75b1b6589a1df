#pragma once
#include <concepts>
#include <cstdint>

#include "shunt/experts/formats.hpp"

namespace shunt {

/// What a matrix is stored as, where the element type has been put aside so that one piece of code
/// serves all of them. The last three: weights only.
enum class stored : std::uint8_t { f32, bf16, fp16, int8_channel, fp8_block, mxfp4 };
template <weight_format T>
inline constexpr stored stored_as = std::same_as<T, float>          ? stored::f32
                                    : std::same_as<T, bf16>         ? stored::bf16
                                    : std::same_as<T, fp16>         ? stored::fp16
                                    : std::same_as<T, int8_channel> ? stored::int8_channel
                                    : std::same_as<T, fp8_block>    ? stored::fp8_block
                                                                    : stored::mxfp4;

}  // namespace shunt
