// f32 and f64, each instruction by itself: every rounding with .ftz and .sat, division, square
// roots, signs, minima and maxima, classes.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_real_test {

#define REAL1(op, sign, suffix, T, ...)                                          \
  INSTRUCTION1(op##_##suffix##_##T, #op "." __VA_ARGS__ "." #T " %0, %1;", T, T, \
               ([](T a) { return of<sign>(__VA_ARGS__, a); }))
/// Reads the modifiers and applies the operation.
template <char Op, class T> T of(char const* modifiers, T a, T b = 0, T c = 0) {
  auto const has = [&](char const* word) { return std::strstr(modifiers, word) != nullptr; };
  mode const m = has("rz") ? mode::rz : has("rm") ? mode::rm : has("rp") ? mode::rp : mode::rn;
  return arithmetic<Op, T>(m, has("ftz"), has("sat"), a, b, c);
}
#define REAL2(op, sign, suffix, T, ...)                                                 \
  INSTRUCTION2(op##_##suffix##_##T, #op "." __VA_ARGS__ "." #T " %0, %1, %2;", T, T, T, \
               ([](T a, T b) { return of<sign>(__VA_ARGS__, a, b); }))
#define REAL3(op, sign, suffix, T, ...)                                                        \
  INSTRUCTION3(op##_##suffix##_##T, #op "." __VA_ARGS__ "." #T " %0, %1, %2, %3;", T, T, T, T, \
               ([](T a, T b, T c) { return of<sign>(__VA_ARGS__, a, b, c); }))

#define FOUR(REAL, op, sign, T) \
  REAL(op, sign, rn, T, "rn")   \
  REAL(op, sign, rz, T, "rz")   \
  REAL(op, sign, rm, T, "rm")   \
  REAL(op, sign, rp, T, "rp")
#define EIGHT(REAL, op, sign, T)      \
  FOUR(REAL, op, sign, T)             \
  REAL(op, sign, rn_ftz, T, "rn.ftz") \
  REAL(op, sign, rz_ftz, T, "rz.ftz") \
  REAL(op, sign, rm_ftz, T, "rm.ftz") \
  REAL(op, sign, rp_ftz, T, "rp.ftz")
#define SIXTEEN(REAL, op, sign, T)            \
  EIGHT(REAL, op, sign, T)                    \
  REAL(op, sign, rn_sat, T, "rn.sat")         \
  REAL(op, sign, rz_sat, T, "rz.sat")         \
  REAL(op, sign, rm_sat, T, "rm.sat")         \
  REAL(op, sign, rp_sat, T, "rp.sat")         \
  REAL(op, sign, rn_ftz_sat, T, "rn.ftz.sat") \
  REAL(op, sign, rz_ftz_sat, T, "rz.ftz.sat") \
  REAL(op, sign, rm_ftz_sat, T, "rm.ftz.sat") \
  REAL(op, sign, rp_ftz_sat, T, "rp.ftz.sat")

SIXTEEN(REAL2, add, '+', f32)
SIXTEEN(REAL2, sub, '-', f32)
SIXTEEN(REAL2, mul, '*', f32)
SIXTEEN(REAL3, fma, 'f', f32)
EIGHT(REAL2, div, '/', f32)
EIGHT(REAL1, rcp, 'r', f32)
EIGHT(REAL1, sqrt, 's', f32)
FOUR(REAL2, add, '+', f64)
FOUR(REAL2, sub, '-', f64)
FOUR(REAL2, mul, '*', f64)
FOUR(REAL3, fma, 'f', f64)
FOUR(REAL2, div, '/', f64)
FOUR(REAL1, rcp, 'r', f64)
FOUR(REAL1, sqrt, 's', f64)

INSTRUCTION2(add_f32, "add.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 a, f32 b) { return of<'+'>("rn", a, b); }))
INSTRUCTION2(mul_ftz_f32, "mul.ftz.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 a, f32 b) { return of<'*'>("rn.ftz", a, b); }))
INSTRUCTION3(mad_rn_f32, "mad.rn.f32 %0, %1, %2, %3;", f32, f32, f32, f32,
             ([](f32 a, f32 b, f32 c) { return of<'f'>("rn", a, b, c); }))
INSTRUCTION1(add_constant, "add.f32 %0, %1, 0f3DCCCCCD;", f32, f32,
             ([](f32 a) { return a + 0.1f; }))
INSTRUCTION1(mul_constant_f64, "mul.f64 %0, %1, 0d3FB999999999999A;", f64, f64,
             ([](f64 a) { return a * 0.1; }))

// A NaN that f32 arithmetic makes is 0x7fffffff, whatever went in.
#define CANONICAL(name, ptx)                                                        \
  INSTRUCTION2(                                                                     \
      canonical_nan_##name, "{.reg .f32 t; " ptx " mov.b32 %0, t;}", u32, f32, f32, \
      ([](u32 got, f32, f32) { return (got & 0x7fffffff) <= 0x7f800000 || got == 0x7fffffff; }))
CANONICAL(add, "add.f32 t, %1, %2;")
CANONICAL(sub, "sub.rz.f32 t, %1, %2;")
CANONICAL(mul, "mul.ftz.f32 t, %1, %2;")
CANONICAL(fma, "fma.rn.f32 t, %1, %2, %1;")
CANONICAL(div, "div.rn.f32 t, %1, %2;")
CANONICAL(min, "min.NaN.f32 t, %1, %2;")
CANONICAL(max, "max.f32 t, %1, %2;")

// neg and abs of a NaN are unspecified NaNs.
#define SIGNS(T, bits)                                                                  \
  INSTRUCTION1(neg_##T, "neg." #T " %0, %1;", T, T, ([](T a) { return -a; }))           \
  INSTRUCTION1(abs_##T, "abs." #T " %0, %1;", T, T, ([](T a) { return std::fabs(a); })) \
  INSTRUCTION2(copysign_##T, "copysign." #T " %0, %1, %2;", T, T, T,                    \
               ([](T a, T b) { return std::copysign(b, a); }))
SIGNS(f32, 32)
SIGNS(f64, 64)
INSTRUCTION1(neg_ftz, "neg.ftz.f32 %0, %1;", f32, f32, ([](f32 a) { return -flushed(a); }))
INSTRUCTION1(abs_ftz, "abs.ftz.f32 %0, %1;", f32, f32,
             ([](f32 a) { return std::fabs(flushed(a)); }))

#define EXTREMES(op, max)                                                                      \
  INSTRUCTION2(op##_f32, #op ".f32 %0, %1, %2;", f32, f32, f32,                                \
               ([](f32 a, f32 b) { return extreme(max, false, a, b); }))                       \
  INSTRUCTION2(op##_f64, #op ".f64 %0, %1, %2;", f64, f64, f64,                                \
               ([](f64 a, f64 b) { return extreme(max, false, a, b); }))                       \
  INSTRUCTION2(op##_ftz, #op ".ftz.f32 %0, %1, %2;", f32, f32, f32,                            \
               ([](f32 a, f32 b) { return extreme(max, false, flushed(a), flushed(b)); }))     \
  INSTRUCTION2(op##_nan, #op ".NaN.f32 %0, %1, %2;", f32, f32, f32,                            \
               ([](f32 a, f32 b) { return extreme(max, true, a, b); }))                        \
  INSTRUCTION2(op##_ftz_nan, #op ".ftz.NaN.f32 %0, %1, %2;", f32, f32, f32,                    \
               ([](f32 a, f32 b) { return extreme(max, true, flushed(a), flushed(b)); }))      \
  INSTRUCTION2(op##_xorsign, #op ".xorsign.abs.f32 %0, %1, %2;", f32, f32, f32,                \
               ([](f32 a, f32 b) { return xorsign(max, false, a, b); }))                       \
  INSTRUCTION2(op##_nan_xorsign, #op ".NaN.xorsign.abs.f32 %0, %1, %2;", f32, f32, f32,        \
               ([](f32 a, f32 b) { return xorsign(max, true, a, b); }))                        \
  INSTRUCTION3(                                                                                \
      op##_of_three, #op ".f32 %0, %1, %2, %3;", f32, f32, f32, f32,                           \
      ([](f32 a, f32 b, f32 c) { return extreme(max, false, extreme(max, false, a, b), c); })) \
  INSTRUCTION3(                                                                                \
      op##_nan_of_three, #op ".NaN.f32 %0, %1, %2, %3;", f32, f32, f32, f32,                   \
      ([](f32 a, f32 b, f32 c) { return extreme(max, true, extreme(max, true, a, b), c); }))
f32 xorsign(bool max, bool nan, f32 a, f32 b) {
  f32 const r = extreme(max, nan, std::fabs(a), std::fabs(b));
  return std::copysign(r, std::signbit(a) != std::signbit(b) ? -1.0f : 1.0f);
}
EXTREMES(min, false)
EXTREMES(max, true)

#define CLASS(word, T, ...)                                                                   \
  INSTRUCTION1(testp_##word##_##T,                                                            \
               "{.reg .pred p; testp." #word "." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T, \
               ([](T a) { return u32(__VA_ARGS__); }))
#define CLASSES(T)                                                                              \
  CLASS(finite, T, std::fabs(a) < HUGE_VAL)                                                     \
  CLASS(infinite, T, std::fabs(a) == T(HUGE_VAL))                                               \
  CLASS(number, T, a == a)                                                                      \
  CLASS(notanumber, T, a != a)                                                                  \
  CLASS(normal, T, std::fabs(a) >= std::numeric_limits<T>::min() && std::fabs(a) < T(HUGE_VAL)) \
  CLASS(subnormal, T, a != 0 && std::fabs(a) < std::numeric_limits<T>::min())
CLASSES(f32)
CLASSES(f64)

}  // namespace instructions_real_test
}  // namespace instruction_check
