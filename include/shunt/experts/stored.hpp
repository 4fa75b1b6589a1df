#pragma once
#include <concepts>
#include <cstdint>

#include "shunt/core/numeric.hpp"

namespace shunt {

/// What a matrix is stored as, where the element type has been put aside so that one piece of code
/// serves all of them.
enum class stored : std::uint8_t { f32, bf16, fp16 };
template <storage T>
inline constexpr stored stored_as = std::same_as<T, float>  ? stored::f32
                                    : std::same_as<T, bf16> ? stored::bf16
                                                            : stored::fp16;

}  // namespace shunt
