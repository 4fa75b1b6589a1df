#pragma once
// Floating point as the PTX manual defines it, in plain C++: the host's rounding modes for f32 and
// f64, and small formats by searching for the neighbors of a value.

#include <cfenv>
#include <cmath>
#include <limits>

#include "instruction_check.hpp"

namespace instruction_check {

enum class mode { rn, rz, rm, rp, rna };  // rna: to nearest, ties away from zero

/// f() with the host rounding so. Operands and results pass through memory: nothing moves.
template <class F> auto in_mode(mode m, F f) {
  constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  std::fesetround(modes[int(m)]);
  auto volatile r = f();
  std::fesetround(FE_TONEAREST);
  return r;
}

template <class T> bool is_nan(T x) { return x != x; }
/// Subnormals of f32 become zeros of their sign.
inline f32 flushed(f32 x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline f64 flushed(f64 x) { return x; }
/// .sat: to [0, 1]; NaN becomes +0.
template <class T> T saturated(T x) { return !(x > 0) ? T(0) : x > 1 ? T(1) : x; }

template <class T> T nothing_if(bool ftz, T x) { return ftz ? flushed(x) : x; }

template <char Op, class T> T arithmetic(mode m, bool ftz, bool sat, T a, T b = 0, T c = 0) {
  T volatile x = nothing_if(ftz, a), y = nothing_if(ftz, b), z = nothing_if(ftz, c);
  T r = in_mode(m, [&]() -> T {
    if (Op == '+') return x + y;
    if (Op == '-') return x - y;
    if (Op == '*') return x * y;
    if (Op == '/') return x / y;
    if (Op == 'r') return T(1) / x;
    if (Op == 's') return std::sqrt(x);
    return std::fma(x, y, z);
  });
  r = nothing_if(ftz, r);
  return sat ? saturated(r) : r;
}

/// min and max: the number where one is NaN; −0 is less than +0; with .NaN a NaN is handed on.
template <class T> T extreme(bool max, bool nan, T a, T b) {
  if (is_nan(a) || is_nan(b)) {
    if (nan || (is_nan(a) && is_nan(b))) return std::numeric_limits<T>::quiet_NaN();
    return is_nan(a) ? b : a;
  }
  if (a == b) return std::signbit(a) == max ? b : a;
  return (a < b) == max ? b : a;
}

/// A small format. `special`: what the highest exponent holds besides numbers.
struct small_format {
  int exponent_bits, mantissa_bits;
  enum { ieee, only_nan, finite } special = ieee;  // only_nan: with all ones in the mantissa
  u32 sign() const { return 1u << (exponent_bits + mantissa_bits); }
  u32 infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  u32 nan() const { return sign() - 1; }
  u32 largest() const {
    return special == ieee ? infinity() - 1 : special == only_nan ? sign() - 2 : sign() - 1;
  }
};
inline constexpr small_format half_format{5, 10}, brain_format{8, 7}, tf32_format{8, 10},
    e5m2_format{5, 2}, e4m3_format{4, 3, small_format::only_nan},
    e2m3_format{2, 3, small_format::finite}, e3m2_format{3, 2, small_format::finite},
    e2m1_format{2, 1, small_format::finite};

inline double value(small_format f, u32 bits) {
  u32 const magnitude = bits & (f.sign() - 1), unit = 1u << f.mantissa_bits;
  double const sign = (bits & f.sign()) != 0 ? -1 : 1;
  if (magnitude > f.largest()) {
    bool const is_infinite = f.special == small_format::ieee && magnitude == f.infinity();
    return is_infinite ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  }
  int const exponent = int(magnitude >> f.mantissa_bits), bias = (1 << (f.exponent_bits - 1)) - 1;
  double const fraction = double(magnitude % unit) / unit;
  return sign * (exponent == 0 ? fraction * std::pow(2.0, 1 - bias)
                               : (1 + fraction) * std::pow(2.0, exponent - bias));
}

/// The format's bits for a value: x must have been rounded to odd if it is not exact.
/// `finite`: what overflows, and infinity, becomes the largest number (.satfinite).
inline u32 rounded(small_format f, double x, mode m = mode::rn, bool finite = false) {
  if (is_nan(x)) return f.special == small_format::finite ? f.largest() : f.nan();
  u32 const sign = std::signbit(x) ? f.sign() : 0;
  double const a = std::fabs(x);
  u32 low = 0, high = f.largest();  // the greatest number not above a
  while (low < high) {
    u32 const middle = (low + high + 1) / 2;
    (value(f, middle) <= a ? low : high) = value(f, middle) <= a ? middle : middle - 1;
  }
  double const below = value(f, low);
  // One step past the largest number, the next power of two would come.
  double const above = low < f.largest() ? value(f, low + 1) : below + (below - value(f, low - 1));
  bool up = false;
  if (m == mode::rn) up = a - below > above - a || (a - below == above - a && (low & 1) != 0);
  if (m == mode::rna) up = a - below >= above - a;
  if (m == mode::rm) up = sign != 0 && a > below;
  if (m == mode::rp) up = sign == 0 && a > below;
  // In e4m3 the number after the largest is the NaN: ties at 464 go down to 448.
  if (f.special != small_format::ieee && low == f.largest() && a - below == above - a) up = false;
  if (up) ++low;
  bool const overflows = low > f.largest() || std::isinf(x);
  if (!overflows) return sign | low;
  bool const to_largest = finite || (!std::isinf(x) && (m == mode::rz || (m == mode::rm && !sign) ||
                                                        (m == mode::rp && sign != 0)));
  if (to_largest || f.special == small_format::finite) return sign | f.largest();
  return sign | (f.special == small_format::ieee ? f.infinity() : f.nan());
}

/// a·b + c, rounded to odd: cut off, and the last bit set where something was cut.
inline double fma_cut(double a, double b, double c) {
  double volatile x = a, y = b, z = c;
  std::fesetround(FE_TOWARDZERO);
  std::feclearexcept(FE_ALL_EXCEPT);
  double volatile r = std::fma(x, y, z);
  bool const inexact = std::fetestexcept(FE_INEXACT) != 0;
  std::fesetround(FE_TONEAREST);
  double const cut = r;
  return inexact && std::isfinite(cut) ? from_bits<double>(bits_of(cut) | 1) : cut;
}

}  // namespace instruction_check
