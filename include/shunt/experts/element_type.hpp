#pragma once
#include <concepts>
#include <cstdint>

#include "shunt/experts/formats.hpp"

namespace shunt {

/// What a matrix is stored as, where the element type has been put aside so that one piece of code
/// serves all of them: f32, bf16, fp16; of weights only, int8_channel, fp8_block, mxfp4, nvfp4,
/// int4_group (int4_32, int4_128) and int8_group (int8_32, int8_128).
enum class element_type : std::uint8_t {
  f32,
  bf16,
  fp16,
  int8_channel,
  fp8_block,
  mxfp4,
  nvfp4,
  int4_32,
  int4_128,
  int8_32,
  int8_128
};
/// The enumerator of a type.
template <weight_format T>
inline constexpr element_type element_type_of =
    std::same_as<T, float>             ? element_type::f32
    : std::same_as<T, bf16>            ? element_type::bf16
    : std::same_as<T, fp16>            ? element_type::fp16
    : std::same_as<T, int8_channel>    ? element_type::int8_channel
    : std::same_as<T, fp8_block>       ? element_type::fp8_block
    : std::same_as<T, mxfp4>           ? element_type::mxfp4
    : std::same_as<T, nvfp4>           ? element_type::nvfp4
    : std::same_as<T, int4_group<32>>  ? element_type::int4_32
    : std::same_as<T, int4_group<128>> ? element_type::int4_128
    : std::same_as<T, int8_group<32>>  ? element_type::int8_32
                                       : element_type::int8_128;

}  // namespace shunt
