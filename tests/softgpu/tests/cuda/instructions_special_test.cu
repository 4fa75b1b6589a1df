// Approximations, each against the error that the PTX manual allows.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_special_test {

using wide = long double;

/// Whether an f32 is within `ulps` of an exact value; infinities, zeros and NaNs must match it.
bool within(f32 got, wide exact, double ulps, bool ftz = false) {
  if (exact != exact) return got != got;
  if (got != got) return false;
  if (ftz && std::fabs(exact) < 0x1p-126L) return got == 0 || std::fabs(got) == 0x1p-126f;
  f32 const nearest = f32(exact);
  if (std::isinf(nearest) || std::isinf(got))
    return got == nearest || std::fabs(exact) > 0x1.fffffp127L;
  int e = 0;
  std::frexp(std::fmax(std::fabs(nearest), 0x1p-126f), &e);
  return std::fabs(wide(got) - exact) <= ulps * std::ldexp(1.0L, e - 24);
}
bool relative(f32 got, wide exact, double error, bool ftz = false) {
  if (exact != exact) return got != got;
  if (got != got) return false;
  if (ftz && std::fabs(exact) < 0x1p-126L) return got == 0 || std::fabs(got) == 0x1p-126f;
  if (std::isinf(f32(exact)) || exact == 0) return got == f32(exact);
  return std::fabs(wide(got) - exact) <= error * std::fabs(exact) + 0x1p-150L;
}

INSTRUCTION1(rcp, "rcp.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return within(got, 1 / wide(a), 1); }))
INSTRUCTION1(rcp_ftz, "rcp.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return within(got, 1 / wide(flushed(a)), 1, true); }))
INSTRUCTION1(sqrt, "sqrt.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return relative(got, sqrtl(a), 0x1p-23); }))
INSTRUCTION1(sqrt_ftz, "sqrt.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return relative(got, sqrtl(flushed(a)), 0x1p-23); }))
INSTRUCTION1(rsqrt, "rsqrt.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return relative(got, 1 / sqrtl(a), 0x1.2p-23); }))
INSTRUCTION1(rsqrt_ftz, "rsqrt.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return relative(got, 1 / sqrtl(flushed(a)), 0x1.2p-23); }))

bool close_in_turns(f32 got, f32 a, wide exact) {
  if (exact != exact) return got != got;
  if (std::fabs(a) > 314) return std::fabs(got) <= 1;  // no bound that far out
  return std::fabs(wide(got) - exact) <= (std::fabs(a) <= 6.2831855f ? 0x1.6ap-21L : 0x1.4p-15L);
}
INSTRUCTION1(sin, "sin.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return close_in_turns(got, a, sinl(a)); }))
INSTRUCTION1(cos, "cos.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return close_in_turns(got, a, cosl(flushed(a))); }))
bool near_log(f32 got, f32 a) {
  if (a > 0.5f && a < 2) return std::fabs(wide(got) - log2l(a)) <= 0x1p-22L;
  return relative(got, log2l(a), 0x1p-22);
}
INSTRUCTION1(lg2, "lg2.approx.f32 %0, %1;", f32, f32, near_log)
INSTRUCTION1(lg2_ftz, "lg2.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return near_log(got, flushed(a)); }))
INSTRUCTION1(ex2, "ex2.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return within(got, exp2l(a), 2); }))
INSTRUCTION1(ex2_ftz, "ex2.approx.ftz.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return within(got, exp2l(flushed(a)), 2, true); }))
INSTRUCTION1(tanh, "tanh.approx.f32 %0, %1;", f32, f32,
             ([](f32 got, f32 a) { return relative(got, tanhl(a), 0x1p-11); }))

INSTRUCTION2(div_full, "div.full.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 got, f32 a, f32 b) { return within(got, wide(a) / wide(b), 2); }))
INSTRUCTION2(div_full_ftz, "div.full.ftz.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 got, f32 a, f32 b) {
               return within(got, wide(flushed(a)) / wide(flushed(b)), 2, true);
             }))
// div.approx: a divisor past 2^126 gives zero, or NaN for an infinite dividend.
bool near_quotient(f32 got, f32 a, f32 b, bool ftz) {
  if (std::fabs(b) > 0x1p126f && std::fabs(b) < HUGE_VALF)
    return a != a || std::isinf(a) ? got != got : got == 0;
  return within(got, wide(a) / wide(b), 2, ftz);
}
INSTRUCTION2(div_approx, "div.approx.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 got, f32 a, f32 b) { return near_quotient(got, a, b, false); }))
INSTRUCTION2(div_approx_ftz, "div.approx.ftz.f32 %0, %1, %2;", f32, f32, f32,
             ([](f32 got, f32 a, f32 b) {
               return near_quotient(got, flushed(a), flushed(b), true);
             }))

// The f64 ones give the upper word of a result: 20 bits of mantissa.
f64 zero_if_subnormal(f64 a) { return std::fabs(a) < 0x1p-1022 ? std::copysign(0.0, a) : a; }
bool near_f64(f64 got, f64 exact) {
  if (exact != exact) return got != got;
  if (std::isinf(exact) || zero_if_subnormal(exact) == 0) return got == zero_if_subnormal(exact);
  return std::fabs(got - exact) <= 0x1p-20 * std::fabs(exact) && u32(bits_of(got)) == 0;
}
INSTRUCTION1(rcp_f64, "rcp.approx.ftz.f64 %0, %1;", f64, f64,
             ([](f64 got, f64 a) { return near_f64(got, 1 / zero_if_subnormal(a)); }))
INSTRUCTION1(rsqrt_f64, "rsqrt.approx.ftz.f64 %0, %1;", f64, f64,
             ([](f64 got, f64 a) { return near_f64(got, 1 / std::sqrt(zero_if_subnormal(a))); }))

// Halves: relative error 2^-9.9 and absolute 2^-10.987 in f16, 2^-7 and 2^-8 in bf16; and the last
// place of the format, which no result can beat.
bool near_half(small_format f, u32 got, wide exact, double relative_error, double absolute_error) {
  double const x = value(f, got);
  if (exact != exact) return x != x;
  if (std::isinf(x)) return std::fabs(exact) >= value(f, f.largest());
  double const last_place = value(f, 1);
  return std::fabs(x - exact) <= relative_error * std::fabs(exact) + absolute_error + last_place;
}
INSTRUCTION1(ex2_f16, "ex2.approx.f16 %0, %1;", f16, f16, ([](f16 got, f16 a) {
               return near_half(half_format, u32(got), exp2l(value(half_format, u32(a))),
                                0x1.12p-10, 0);
             }))
INSTRUCTION1(tanh_f16, "tanh.approx.f16 %0, %1;", f16, f16, ([](f16 got, f16 a) {
               return near_half(half_format, u32(got), tanhl(value(half_format, u32(a))), 0,
                                0x1.03p-11);
             }))
INSTRUCTION1(ex2_bf16, "ex2.approx.ftz.bf16 %0, %1;", bf16, bf16, ([](bf16 got, bf16 a) {
               return near_half(brain_format, u32(got), exp2l(value(brain_format, u32(a))), 0x1p-7,
                                0x1p-126);
             }))
INSTRUCTION1(tanh_bf16, "tanh.approx.bf16 %0, %1;", bf16, bf16, ([](bf16 got, bf16 a) {
               return near_half(brain_format, u32(got), tanhl(value(brain_format, u32(a))), 0,
                                0x1p-8);
             }))
template <class F> bool both(u32 got, u32 a, F f) {
  return f(got & 0xffff, a & 0xffff) && f(got >> 16, a >> 16);
}
INSTRUCTION1(ex2_f16x2, "ex2.approx.f16x2 %0, %1;", f16x2, f16x2, ([](f16x2 got, f16x2 a) {
               return both(u32(got), u32(a), [](u32 r, u32 x) {
                 return near_half(half_format, r, exp2l(value(half_format, x)), 0x1.12p-10, 0);
               });
             }))
INSTRUCTION1(tanh_bf16x2, "tanh.approx.bf16x2 %0, %1;", bf16x2, bf16x2, ([](bf16x2 got, bf16x2 a) {
               return both(u32(got), u32(a), [](u32 r, u32 x) {
                 return near_half(brain_format, r, tanhl(value(brain_format, x)), 0, 0x1p-8);
               });
             }))

}  // namespace instructions_special_test
}  // namespace instruction_check
