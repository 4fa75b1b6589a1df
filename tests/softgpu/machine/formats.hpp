#pragma once
// The small floating-point formats: f16, bf16, tf32 and those of 8, 6 and 4 bits. Each value is exact in
// double; arithmetic is done there, rounded to odd where it is not exact, and rounded once to the
// format, which gives the correctly rounded result.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace softgpu {

enum class rounding : std::uint8_t { nearest, zero, down, up, away };  // away: ties away from zero

/// What the highest exponent holds besides numbers: infinities and NaNs, one NaN, or nothing.
enum class specials : std::uint8_t { all, one_nan, none };

template <int ExponentBits, int MantissaBits, specials Specials> struct format {
  static constexpr int exponent_bits = ExponentBits, mantissa_bits = MantissaBits;
  static constexpr int bias = (1 << (ExponentBits - 1)) - 1;
  static constexpr std::uint32_t sign = 1u << (ExponentBits + MantissaBits);
  static constexpr std::uint32_t magnitude = sign - 1;
  static constexpr std::uint32_t infinity = ((1u << ExponentBits) - 1) << MantissaBits;
  static constexpr std::uint32_t nan = magnitude;  // the largest value where there is none
  /// The largest finite value's bits.
  static constexpr std::uint32_t largest = Specials == specials::all       ? infinity - 1
                                           : Specials == specials::one_nan ? magnitude - 1
                                                                           : magnitude;
  static constexpr bool has_infinity = Specials == specials::all;
  static constexpr bool has_nan = Specials != specials::none;
};
using f16_format = format<5, 10, specials::all>;
using bf16_format = format<8, 7, specials::all>;
using tf32_format = format<8, 10, specials::all>;
using e5m2_format = format<5, 2, specials::all>;
using e4m3_format = format<4, 3, specials::one_nan>;
using e2m3_format = format<2, 3, specials::none>;
using e3m2_format = format<3, 2, specials::none>;
using e2m1_format = format<2, 1, specials::none>;

template <class F> double decode(std::uint32_t bits) {
  std::uint32_t const m = bits & F::magnitude;
  int const e = static_cast<int>(m >> F::mantissa_bits);
  std::uint32_t const fraction = m & ((1u << F::mantissa_bits) - 1);
  double const s = (bits & F::sign) != 0 ? -1.0 : 1.0;
  if (F::has_infinity && m >= F::infinity)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : s * HUGE_VAL;
  if (F::has_nan && m == F::nan) return std::numeric_limits<double>::quiet_NaN();
  if (e == 0) return s * std::ldexp(double(fraction), 1 - F::bias - F::mantissa_bits);
  return s *
         std::ldexp(double(fraction + (1u << F::mantissa_bits)), e - F::bias - F::mantissa_bits);
}

/// Rounds to the format. `finite`: what overflows becomes the largest finite value.
template <class F>
std::uint32_t encode(double x, rounding how = rounding::nearest, bool finite = false) {
  std::uint32_t const s = std::signbit(x) ? F::sign : 0;
  if (x != x) return F::nan;
  double const a = std::fabs(x);
  std::uint32_t const overflow = finite ? F::largest : F::has_infinity ? F::infinity : F::nan;
  if (std::isinf(a)) return s | overflow;
  if (a == 0) return s;
  int e = 0;
  std::frexp(a, &e);                                                 // a in [2^(e-1), 2^e)
  int const unit = std::max(e - 1, 1 - F::bias) - F::mantissa_bits;  // exponent of the last place
  double const scaled = std::ldexp(a, -unit), whole = std::floor(scaled), rest = scaled - whole;
  auto n = static_cast<std::uint64_t>(whole);
  bool up = false;
  switch (how) {
    case rounding::nearest: up = rest > 0.5 || (rest == 0.5 && (n & 1) != 0); break;
    case rounding::away: up = rest >= 0.5; break;
    case rounding::zero: break;
    case rounding::down: up = s != 0 && rest > 0; break;
    case rounding::up: up = s == 0 && rest > 0; break;
  }
  n += up;
  // n counts units: adding it to the exponent field carries a full mantissa over by itself.
  std::uint64_t const field =
      e - 1 < 1 - F::bias ? n
                          : n + (static_cast<std::uint64_t>(e - 2 + F::bias) << F::mantissa_bits);
  if (field > F::largest) {
    bool const to_largest = how == rounding::zero || (how == rounding::down && s == 0) ||
                            (how == rounding::up && s != 0);
    return s | (to_largest ? F::largest : overflow);
  }
  return s | static_cast<std::uint32_t>(field);
}

/// a·b + c in double, rounded to odd: rounding that again to a narrow format is correct.
inline double fma_to_odd(double a, double b, double c) {
  double const p = a * b;  // exact: both factors are narrow
  double const sum = p + c;
  if (!std::isfinite(sum)) return sum;
  double const back = sum - p;
  double const error = (p - (sum - back)) + (c - back);
  if (error == 0) return sum;
  auto bits = std::bit_cast<std::int64_t>(sum);
  if ((bits & 1) != 0) return sum;
  bits += (error > 0) == (sum > 0) ? 1 : -1;
  return std::bit_cast<double>(bits);
}

}  // namespace softgpu
