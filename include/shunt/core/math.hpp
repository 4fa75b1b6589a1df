#pragma once
#include <cmath>
#include <cstdint>

#include "shunt/core/macros.hpp"
#include "shunt/core/numeric.hpp"

/// Shunt's own elementary functions for one float: bit for bit those that the vector code and the
/// device compute. Do not mix them with the C library's where results must agree.
namespace shunt::math {

using vf = float;          ///< a number
using vu = std::uint32_t;  ///< its bits

/// x.
SHUNT_HD inline vf fill(float x) noexcept { return x; }
/// a · b + c, rounded once.
SHUNT_HD inline vf fma(vf a, vf b, vf c) noexcept {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}
/// a · b, rounded, for a product that feeds an addition: no compiler fuses the two into one
/// multiply-add, as it may do with a * b + c. A zero is +0. (With -0.0f as the addend clang makes
/// a * b of it again.)
SHUNT_HD inline vf product(vf a, vf b) noexcept { return math::fma(a, b, 0.0f); }
/// The square root, rounded to nearest.
SHUNT_HD inline vf sqrt(vf x) noexcept {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}
/// `yes` where `which` holds, else `no`.
SHUNT_HD inline vf select(bool which, vf yes, vf no) noexcept { return which ? yes : no; }
/// The bits of a float.
SHUNT_HD inline vu as_bits(vf x) noexcept { return shunt::detail::bit_copy<vu>(x); }
/// The float of these bits.
SHUNT_HD inline vf as_float(vu x) noexcept { return shunt::detail::bit_copy<vf>(x); }
/// The number as a float, rounded to nearest.
SHUNT_HD inline vf to_float_lanes(vu x) noexcept { return static_cast<vf>(x); }

#define SHUNT_MATH SHUNT_HD inline
#include "shunt/core/math_functions.inl"
#undef SHUNT_MATH

}  // namespace shunt::math
