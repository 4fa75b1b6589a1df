#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstdint>

#include "shunt/core/macros.hpp"

namespace shunt {

/// Storage types: bits with a meaning. Arithmetic is always done in float. Conversion from float
/// rounds to nearest, ties to even; a NaN stays a NaN, quiet.
struct bf16 {
  std::uint16_t bits;  ///< sign, 8 bits of exponent, 7 of mantissa
  friend constexpr bool operator==(bf16, bf16) = default;  ///< of bits
};
/// IEEE binary16; beyond its largest number, 65504, rounding gives infinity.
struct fp16 {
  std::uint16_t bits;  ///< sign, 5 bits of exponent, 10 of mantissa
  friend constexpr bool operator==(fp16, fp16) = default;
};
/// No infinity: largest 448, S.1111.111 is NaN (OCP FP8). Out of range saturates to ±448.
struct fp8_e4m3 {
  std::uint8_t bits;  ///< sign, 4 bits of exponent, 3 of mantissa
  friend constexpr bool operator==(fp8_e4m3, fp8_e4m3) = default;
};
/// IEEE-like: largest finite 57344. Out of range saturates to ±57344; ±Inf stays ±Inf.
struct fp8_e5m2 {
  std::uint8_t bits;  ///< sign, 5 bits of exponent, 2 of mantissa
  friend constexpr bool operator==(fp8_e5m2, fp8_e5m2) = default;
};

/// What tokens, rows and weights may be stored as.
template <class T>
concept storage = std::same_as<T, float> || std::same_as<T, bf16> || std::same_as<T, fp16>;

namespace detail {

/// std::bit_cast, but callable on a device.
template <class To, class From> SHUNT_HD constexpr To bit_copy(From from) noexcept {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

/// Rounds float bits to a small format of `Exponent` and `Mantissa` bits, sign stripped; the result
/// may carry into the exponent, as it should, and may exceed the format's largest value.
template <int Exponent, int Mantissa>
SHUNT_HD constexpr std::uint32_t narrow(std::uint32_t magnitude) noexcept {
  constexpr int bias = (1 << (Exponent - 1)) - 1;
  constexpr std::uint32_t least_normal = static_cast<std::uint32_t>(127 - bias + 1) << 23;
  if (magnitude >= least_normal) {
    constexpr int drop = 23 - Mantissa;
    std::uint32_t const rebased = magnitude - (static_cast<std::uint32_t>(127 - bias) << 23);
    return (rebased + ((1u << (drop - 1)) - 1) + ((rebased >> drop) & 1u)) >> drop;
  }
  // Subnormal in the target: shift the full mantissa right, keep what falls off for rounding.
  int const shift = 127 - bias + 1 - static_cast<int>(magnitude >> 23) + 23 - Mantissa;
  if (shift > 25) return 0;
  std::uint32_t const full = (magnitude & 0x7fffffu) | (magnitude >> 23 != 0 ? 0x800000u : 0u);
  std::uint32_t const kept = full >> shift;
  std::uint32_t const rest = full & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1u) != 0) ? 1u : 0u);
}

/// The float of a small format's finite magnitude: exact.
template <int Exponent, int Mantissa>
SHUNT_HD constexpr float widen(std::uint32_t magnitude) noexcept {
  constexpr int bias = (1 << (Exponent - 1)) - 1;
  std::uint32_t const exponent = magnitude >> Mantissa;
  std::uint32_t const mantissa = magnitude & ((1u << Mantissa) - 1);
  if (exponent != 0) {
    return detail::bit_copy<float>((magnitude << (23 - Mantissa)) +
                                   (static_cast<std::uint32_t>(127 - bias) << 23));
  }
  constexpr float unit =
      detail::bit_copy<float>(static_cast<std::uint32_t>(127 - bias + 1 - Mantissa) << 23);
  return static_cast<float>(mantissa) * unit;
}

}  // namespace detail

/// The float of a stored number: exact. A NaN stays a NaN, quiet.
SHUNT_HD constexpr float to_float(float x) noexcept { return x; }

/// The same.
SHUNT_HD constexpr float to_float(bf16 x) noexcept {
  return detail::bit_copy<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

/// The same.
SHUNT_HD constexpr float to_float(fp16 x) noexcept {
  std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  std::uint32_t const magnitude = x.bits & 0x7fffu;
  std::uint32_t const wide =
      magnitude >= 0x7c00u
          ? 0x7f800000u | ((magnitude & 0x3ffu) << 13) | (magnitude > 0x7c00u ? 0x400000u : 0u)
          : detail::bit_copy<std::uint32_t>(detail::widen<5, 10>(magnitude));
  return detail::bit_copy<float>(sign | wide);
}

/// The same.
SHUNT_HD constexpr float to_float(fp8_e4m3 x) noexcept {
  std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x80u) << 24;
  std::uint32_t const magnitude = x.bits & 0x7fu;
  std::uint32_t const wide = magnitude == 0x7fu
                                 ? 0x7fc00000u
                                 : detail::bit_copy<std::uint32_t>(detail::widen<4, 3>(magnitude));
  return detail::bit_copy<float>(sign | wide);
}

/// The same.
SHUNT_HD constexpr float to_float(fp8_e5m2 x) noexcept {
  std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x80u) << 24;
  std::uint32_t const magnitude = x.bits & 0x7fu;
  std::uint32_t const wide = magnitude >= 0x7cu
                                 ? (magnitude == 0x7cu ? 0x7f800000u : 0x7fc00000u)
                                 : detail::bit_copy<std::uint32_t>(detail::widen<5, 2>(magnitude));
  return detail::bit_copy<float>(sign | wide);
}

/// `from_float<T>(x)`: the nearest T.
template <class T> SHUNT_HD constexpr T from_float(float x) noexcept {
  std::uint32_t const bits = detail::bit_copy<std::uint32_t>(x);
  std::uint32_t const magnitude = bits & 0x7fffffffu;
  bool const nan = magnitude > 0x7f800000u;
  if constexpr (std::same_as<T, float>) {
    return x;
  } else if constexpr (std::same_as<T, bf16>) {
    if (nan) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  } else if constexpr (std::same_as<T, fp16>) {
    std::uint32_t const sign = (bits >> 16) & 0x8000u;
    if (nan) { return {static_cast<std::uint16_t>(sign | 0x7e00u | ((bits >> 13) & 0x1ffu))}; }
    std::uint32_t const small =
        magnitude >= 0x47800000u ? 0x7c00u : detail::narrow<5, 10>(magnitude);
    return {static_cast<std::uint16_t>(sign | small)};
  } else if constexpr (std::same_as<T, fp8_e4m3>) {
    std::uint32_t const sign = (bits >> 24) & 0x80u;
    std::uint32_t small = 0x7fu;
    if (!nan) {
      small = magnitude >= 0x43e80000u ? 0x7eu : detail::narrow<4, 3>(magnitude);
      if (small > 0x7eu) small = 0x7eu;
    }
    return {static_cast<std::uint8_t>(sign | small)};
  } else {
    static_assert(std::same_as<T, fp8_e5m2>, "shunt::from_float: not a storage type of shunt");
    std::uint32_t const sign = (bits >> 24) & 0x80u;
    std::uint32_t small = 0x7fu;
    if (!nan) {
      small = magnitude == 0x7f800000u   ? 0x7cu
              : magnitude >= 0x47700000u ? 0x7bu
                                         : detail::narrow<5, 2>(magnitude);
      if (small > 0x7bu && magnitude != 0x7f800000u) small = 0x7bu;
    }
    return {static_cast<std::uint8_t>(sign | small)};
  }
}

}  // namespace shunt
