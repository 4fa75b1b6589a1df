#pragma once
#include <cstdint>

#include "shunt/experts/formats.hpp"

/// How a number of each format is rounded.
namespace shunt::detail {

/// The backend of a policy: a specialization for each.
template <class P> struct quantize_backend;

/// To -127 .. 127, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction.
[[nodiscard]] constexpr std::uint8_t int8_nearest(float x) noexcept {
  constexpr float no_fraction = 0x1.8p23f;
  float const inside = x < -127.0f ? -127.0f : x > 127.0f ? 127.0f : x;
  return static_cast<std::uint8_t>(static_cast<std::int8_t>((inside + no_fraction) - no_fraction));
}

/// To -8 .. 7, and 8 more: the four bits about a zero point of 8.
[[nodiscard]] constexpr std::uint8_t int4_nearest(float x) noexcept {
  constexpr float room = 0x1.8p23f;
  float const inside = x < -8.0f ? -8.0f : x > 7.0f ? 7.0f : x;
  return static_cast<std::uint8_t>(static_cast<int>((inside + room) - room) + 8);
}

/// The scale of an int4 group whose largest magnitude is `most`: most / 7.5, but no larger than what 8
/// times is finite.
[[nodiscard]] constexpr float int4_scale(float most) noexcept {
  constexpr float largest = 0x1.fffffep124f;
  float const scale = most / 7.5f;
  return scale > largest ? largest : scale;
}

/// The scale of an int8 row whose largest magnitude is `most`: most / 127, but no larger than what
/// 127 times is finite. For the largest float the rounded quotient is.
[[nodiscard]] constexpr float int8_row_scale(float most) noexcept {
  constexpr float largest = 0x1.020406p121f;
  float const scale = most / 127.0f;
  return scale > largest ? largest : scale;
}

/// The float of an nvfp4 tensor whose largest magnitude is `most`: with it a group's scale is at most
/// 448. Of the largest float 6 times 448 times it is still finite.
[[nodiscard]] constexpr float nvfp4_tensor_scale(float most) noexcept { return most / 2688.0f; }

/// Ties to the even code, at most 6.
[[nodiscard]] constexpr std::uint8_t e2m1_nearest(float x) noexcept {
  std::uint32_t const bits = bit_copy<std::uint32_t>(x);
  float const m = bit_copy<float>(bits & 0x7fffffffu);
  int const code = (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) +
                   (m >= 3.5f) + (m > 5.0f);
  return static_cast<std::uint8_t>((bits >> 28 & 8u) | static_cast<std::uint32_t>(code));
}

/// The e8m0 of a block whose largest magnitude is `most`: floor(log2 most) - 2, 2 being the exponent
/// of e2m1's largest number (OCP MX).
[[nodiscard]] constexpr std::uint8_t shared_exponent(float most) noexcept {
  std::uint32_t const exponent = bit_copy<std::uint32_t>(most) >> 23;
  return static_cast<std::uint8_t>(exponent < 2 ? 0 : exponent - 2);
}

}  // namespace shunt::detail
