#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/macros.hpp"
#include "shunt/core/random.hpp"

/// Double arithmetic of our own for the few places that need it (rotary tables, schedules, first
/// weights): the C library's differ in the last bit from machine to machine. Hosts and devices share
/// it, so that a multiply-add is an explicit one and no product feeds a plain addition.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// a · b, rounded, for a product that feeds an addition: see math::product.
SHUNT_HD inline double product(double a, double b) noexcept { return __builtin_fma(a, b, 0.0); }

struct sine_cosine {
  double sine, cosine;
};

/// Of any |x| below 1e9 or so, to about 1e-16 · |x|.
SHUNT_HD inline sine_cosine sine_cosine_of(double x) noexcept {
  constexpr double two_over_pi = 0x1.45f306dc9c883p-1;
  constexpr double half_pi_high = 0x1.921fb54400000p+0;  // 33 bits: a multiple of it is exact
  constexpr double half_pi_low = 0x1.0b4611a626331p-34;
  double const magic = 0x1.8p52;
  double const quarters = __builtin_fma(x, two_over_pi, magic) - magic;
  double r = __builtin_fma(quarters, -half_pi_high, x);
  r = __builtin_fma(quarters, -half_pi_low, r);
  double const square = r * r;
  double s = 0, c = 0;  // Taylor: the terms beyond x^19 are below 1e-19 for |r| <= π/4
  for (int n = 18; n >= 2; n -= 2) {
    s = -__builtin_fma(s, square, 1.0) / (static_cast<double>(n) * static_cast<double>(n + 1));
    c = -__builtin_fma(c, square, 1.0) / (static_cast<double>(n - 1) * static_cast<double>(n));
  }
  double const sine = __builtin_fma(r * square, s, r), cosine = __builtin_fma(square, c, 1.0);
  switch (static_cast<std::int64_t>(quarters) & 3) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

SHUNT_HD inline double exponential_of(double x) noexcept {
  constexpr double ln2_high = 0x1.62e42fefa0000p-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
  if (x < -700.0) return 0.0;
  if (x > 700.0) x = 700.0;
  double const magic = 0x1.8p52;
  double const k = __builtin_fma(x, 0x1.71547652b82fep+0, magic) - magic;
  double r = __builtin_fma(k, -ln2_high, x);
  r = __builtin_fma(k, -ln2_low, r);
  double p = 1.0;
  for (int n = 17; n >= 1; --n) p = __builtin_fma(p, r / static_cast<double>(n), 1.0);
  std::uint64_t const bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(k) + 1023) << 52;
  return product(p, __builtin_bit_cast(double, bits));
}

/// Of x > 0: y with e^y = x, by Newton's steps.
SHUNT_HD inline double logarithm_of(double x) noexcept {
  std::uint64_t const bits = __builtin_bit_cast(std::uint64_t, x);
  double y =
      product(__builtin_fma(static_cast<double>(bits), 0x1p-52, -1023.0), 0.6931471805599453);
  for (int i = 0; i < 6; ++i) y += __builtin_fma(x, exponential_of(-y), -1.0);
  return y;
}

/// deviation · a normal value that depends on seed and position only (Box and Muller).
SHUNT_HD inline float normal_at(std::uint64_t seed, std::uint64_t position,
                                double deviation) noexcept {
  random_words const r = random_at(seed, position);
  double const u = (static_cast<double>(r.word[0]) + 0.5) * 0x1p-32;
  double const turn = static_cast<double>(r.word[1]) * (0x1p-32 * 6.283185307179586);
  double const radius = __builtin_sqrt(-2.0 * logarithm_of(u));
  return static_cast<float>(deviation * (radius * sine_cosine_of(turn).cosine));
}

/// base^n by squaring.
SHUNT_HD inline double power_of(double base, std::int64_t n) noexcept {
  double result = 1.0;
  for (; n > 0; n >>= 1, base *= base) {
    if ((n & 1) != 0) result = product(result, base);
  }
  return result;
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
