// cvt to and from f16, bf16, tf32 and the formats of 8, 6 and 4 bits. Those below 16 bits need a
// device newer than sm_80.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_convert_narrow_test {

/// A long double as a double rounded to odd.
double cut(long double x) {
  double r = double(x);
  if (std::isinf(r) || is_nan(r) || r == x) return r;
  if (std::fabs((long double)r) > std::fabs(x)) r = from_bits<double>(bits_of(r) - 1);
  return from_bits<double>(bits_of(r) | 1);
}
/// A value to a small format, with the words of an instruction.
u32 converted(small_format f, char const* words, double x) {
  auto const has = [&](char const* word) { return std::strstr(words, word) != nullptr; };
  if (has("ftz") && std::fabs(x) < 0x1p-126) x = std::copysign(0.0, x);
  if (has("relu") && !(x > 0) && x == x) x = 0;
  if (has("sat.") && !has("satfinite")) x = saturated(x);
  mode const m = has("rna")  ? mode::rna
                 : has("rz") ? mode::rz
                 : has("rm") ? mode::rm
                 : has("rp") ? mode::rp
                             : mode::rn;
  return rounded(f, x, m, has("satfinite"));
}

#define TO_SMALL(name, words, T, format, S, X)                            \
  INSTRUCTION1(T##_##S##_##name, "cvt." words #T "." #S " %0, %1;", T, S, \
               ([](S a) { return T(converted(format, words, X)); }))
#define ROUNDINGS(T, format, S, X)     \
  TO_SMALL(rn, "rn.", T, format, S, X) \
  TO_SMALL(rz, "rz.", T, format, S, X) \
  TO_SMALL(rm, "rm.", T, format, S, X) \
  TO_SMALL(rp, "rp.", T, format, S, X)
#define FINITE(T, format)                                 \
  TO_SMALL(rn_relu, "rn.relu.", T, format, f32, a)        \
  TO_SMALL(rz_relu, "rz.relu.", T, format, f32, a)        \
  TO_SMALL(rn_finite, "rn.satfinite.", T, format, f32, a) \
  TO_SMALL(rz_finite, "rz.satfinite.", T, format, f32, a) \
  TO_SMALL(rn_relu_finite, "rn.relu.satfinite.", T, format, f32, a)
ROUNDINGS(f16, half_format, f32, a)
ROUNDINGS(f16, half_format, f64, a)
ROUNDINGS(bf16, brain_format, f32, a)
ROUNDINGS(bf16, brain_format, f64, a)
FINITE(f16, half_format)
FINITE(bf16, brain_format)
TO_SMALL(rn_sat, "rn.sat.", f16, half_format, f32, a)
TO_SMALL(rp_ftz, "rp.ftz.", f16, half_format, f32, a)
TO_SMALL(rm_ftz_sat, "rm.ftz.sat.", f16, half_format, f32, a)
TO_SMALL(rn_sat, "rn.sat.", f16, half_format, f64, a)
ROUNDINGS(bf16, brain_format, f16, value(half_format, u32(a)))
ROUNDINGS(f16, half_format, bf16, value(brain_format, u32(a)))
ROUNDINGS(f16, half_format, u64, cut(a))
ROUNDINGS(f16, half_format, s64, cut(a))
ROUNDINGS(f16, half_format, s32, a)
ROUNDINGS(f16, half_format, u16, a)
ROUNDINGS(bf16, brain_format, u64, cut(a))
ROUNDINGS(bf16, brain_format, s64, cut(a))
ROUNDINGS(bf16, brain_format, u32, a)
ROUNDINGS(bf16, brain_format, s16, a)

INSTRUCTION1(f32_f16, "cvt.f32.f16 %0, %1;", f32, f16,
             ([](f16 a) { return f32(value(half_format, u32(a))); }))
INSTRUCTION1(f32_f16_sat, "cvt.sat.f32.f16 %0, %1;", f32, f16,
             ([](f16 a) { return saturated(f32(value(half_format, u32(a)))); }))
INSTRUCTION1(f64_f16, "cvt.f64.f16 %0, %1;", f64, f16,
             ([](f16 a) { return value(half_format, u32(a)); }))
INSTRUCTION1(f32_bf16, "cvt.f32.bf16 %0, %1;", f32, bf16,
             ([](bf16 a) { return f32(value(brain_format, u32(a))); }))
INSTRUCTION1(f64_bf16, "cvt.f64.bf16 %0, %1;", f64, bf16,
             ([](bf16 a) { return value(brain_format, u32(a)); }))

double integral(char how, double x) {
  return how == 'n'   ? std::rint(x)
         : how == 'z' ? std::trunc(x)
         : how == 'm' ? std::floor(x)
                      : std::ceil(x);
}
template <class D> D to_integer(char how, double a) {
  if (is_nan(a)) return sizeof(D) == 8 ? D(u64(1) << 63) : D(0);
  long double const r = integral(how, a);
  long double const high = std::numeric_limits<D>::max(), low = std::numeric_limits<D>::min();
  return r >= high  ? std::numeric_limits<D>::max()
         : r <= low ? std::numeric_limits<D>::min()
                    : D(r);
}
#define FROM_SMALL(how, T, format)                                                                 \
  INSTRUCTION1(T##_r##how##i, "cvt.r" #how "i." #T "." #T " %0, %1;", T, T,                        \
               ([](T a) { return T(rounded(format, integral(#how[0], value(format, u32(a))))); })) \
  INSTRUCTION1(s32_##T##_r##how##i, "cvt.r" #how "i.s32." #T " %0, %1;", s32, T,                   \
               ([](T a) { return to_integer<s32>(#how[0], value(format, u32(a))); }))              \
  INSTRUCTION1(u16_##T##_r##how##i, "cvt.r" #how "i.u16." #T " %0, %1;", u16, T,                   \
               ([](T a) { return to_integer<u16>(#how[0], value(format, u32(a))); }))              \
  INSTRUCTION1(s64_##T##_r##how##i, "cvt.r" #how "i.s64." #T " %0, %1;", s64, T,                   \
               ([](T a) { return to_integer<s64>(#how[0], value(format, u32(a))); }))              \
  INSTRUCTION1(u64_##T##_r##how##i, "cvt.r" #how "i.u64." #T " %0, %1;", u64, T,                   \
               ([](T a) { return to_integer<u64>(#how[0], value(format, u32(a))); }))
FROM_SMALL(n, f16, half_format)
FROM_SMALL(z, f16, half_format)
FROM_SMALL(m, f16, half_format)
FROM_SMALL(p, f16, half_format)
INSTRUCTION1(s8_f16, "cvt.rzi.s8.f16 %0, %1;", s32, f16,
             ([](f16 a) { return s32(to_integer<s8>('z', value(half_format, u32(a)))); }))
FROM_SMALL(n, bf16, brain_format)
FROM_SMALL(z, bf16, brain_format)

// Two f32 to a pair: the first is the upper half.
#define PAIR(name, words, T, format)                                                            \
  INSTRUCTION2(name##_##T, "cvt." words #T ".f32 %0, %1, %2;", T, f32, f32, ([](f32 a, f32 b) { \
                 return T(converted(format, words, a) << 16 | converted(format, words, b));     \
               }))
#define PAIRS(T, format)                                \
  PAIR(rn, "rn.", T, format)                            \
  PAIR(rz, "rz.", T, format)                            \
  PAIR(rn_relu, "rn.relu.", T, format)                  \
  PAIR(rz_relu_finite, "rz.relu.satfinite.", T, format) \
  PAIR(rn_finite, "rn.satfinite.", T, format)
PAIRS(f16x2, half_format)
PAIRS(bf16x2, brain_format)

#define TF32(name, words)                                                                    \
  INSTRUCTION1(tf32_##name, "cvt." words "tf32.f32 %0, %1;", u32, f32, ([](u32 got, f32 a) { \
                 if (is_nan(a)) return is_nan(from_bits<f32>(got));                          \
                 return got == converted(tf32_format, words, a) << 13;                       \
               }))
TF32(rna, "rna.")
TF32(rn, "rn.")
TF32(rz, "rz.")
TF32(rn_relu, "rn.relu.")
TF32(rna_finite, "rna.satfinite.")
TF32(rz_relu_finite, "rz.satfinite.relu.")

// Pairs below 16 bits, in a 16-bit register (e2m1: in 8 bits of one).
#define TINY(name, words, T, format)                                                         \
  INSTRUCTION2(name##_##T, "cvt." words #T "x2.f32 %0, %1, %2;", u16, f32, f32,              \
               ([](f32 a, f32 b) {                                                           \
                 return u16(converted(format, words, a) << 8 | converted(format, words, b)); \
               }))                                                                           \
  INSTRUCTION1(name##_f16x2_##T, "cvt.rn.f16x2." #T "x2 %0, %1;", f16x2, u16, ([](u16 a) {   \
                 u32 const mask = 2 * format.sign() - 1;                                     \
                 return f16x2(rounded(half_format, value(format, a & mask)) |                \
                              rounded(half_format, value(format, a >> 8 & mask)) << 16);     \
               }))
TINY(finite, "rn.satfinite.", e4m3, e4m3_format)
TINY(finite, "rn.satfinite.", e5m2, e5m2_format)
TINY(finite, "rn.satfinite.", e2m3, e2m3_format)
TINY(finite, "rn.satfinite.", e3m2, e3m2_format)
TINY(relu, "rn.satfinite.relu.", e4m3, e4m3_format)
TINY(relu, "rn.satfinite.relu.", e5m2, e5m2_format)
#define TINY_OF_HALVES(name, words, T, format)                                                    \
  INSTRUCTION1(name##_##T##_f16x2, "cvt." words #T "x2.f16x2 %0, %1;", u16, f16x2, ([](f16x2 a) { \
                 auto const one = [](u32 x) {                                                     \
                   return converted(format, words, value(half_format, x));                        \
                 };                                                                               \
                 return u16(one(u32(a) & 0xffff) | one(u32(a) >> 16) << 8);                       \
               }))
TINY_OF_HALVES(finite, "rn.satfinite.", e4m3, e4m3_format)
TINY_OF_HALVES(finite, "rn.satfinite.", e5m2, e5m2_format)
TINY_OF_HALVES(relu, "rn.satfinite.relu.", e5m2, e5m2_format)
INSTRUCTION1(f16x2_e4m3_relu, "cvt.rn.relu.f16x2.e4m3x2 %0, %1;", f16x2, u16, ([](u16 a) {
               auto const one = [](u32 x) {
                 double const v = value(e4m3_format, x);
                 return rounded(half_format, v <= 0 ? 0 : v);
               };
               return f16x2(one(a & 0xff) | one(u32(a) >> 8) << 16);
             }))
INSTRUCTION2(e2m1,
             "{.reg .b8 t, z; .reg .b16 u; cvt.rn.satfinite.e2m1x2.f32 t, %1, %2; mov.b16 u, 0;"
             " mov.b16 {z, _}, u; mov.b16 %0, {t, z};}",
             u16, f32, f32, ([](f32 a, f32 b) {
               return u16(converted(e2m1_format, "rn.satfinite.", a) << 4 |
                          converted(e2m1_format, "rn.satfinite.", b));
             }))
INSTRUCTION1(f16x2_e2m1, "{.reg .b8 t; mov.b16 {t, _}, %1; cvt.rn.f16x2.e2m1x2 %0, t;}", f16x2, u16,
             ([](u16 a) {
               return f16x2(rounded(half_format, value(e2m1_format, a & 15)) |
                            rounded(half_format, value(e2m1_format, a >> 4 & 15)) << 16);
             }))

// ue8m0: the exponent alone, of the power of two below or above.
u32 power(double x, bool up, bool finite) {
  if (is_nan(x)) return 255;
  x = std::fabs(x);
  u32 n = 0;  // 2^(n - 127) is the greatest power not above x
  while (n < 255 && std::ldexp(1.0, int(n) - 126) <= x) ++n;
  if (up && std::ldexp(1.0, int(n) - 127) < x) ++n;
  if (n >= 255) return finite ? 254 : 255;
  return n;
}
#define POWER(name, words, up, finite)                                     \
  INSTRUCTION2(                                                            \
      ue8m0_##name, "cvt." words "ue8m0x2.f32 %0, %1, %2;", u16, f32, f32, \
      ([](f32 a, f32 b) { return u16(power(a, up, finite) << 8 | power(b, up, finite)); }))
POWER(rz, "rz.", false, false)
POWER(rp, "rp.", true, false)
POWER(rz_finite, "rz.satfinite.", false, true)
POWER(rp_finite, "rp.satfinite.", true, true)
INSTRUCTION1(bf16x2_ue8m0, "cvt.rn.bf16x2.ue8m0x2 %0, %1;", bf16x2, u16, ([](u16 a) {
               auto const one = [](u32 x) {
                 return x == 255 ? 0x7fffu : rounded(brain_format, std::ldexp(1.0, int(x) - 127));
               };
               return bf16x2(one(a & 255) | one(u32(a) >> 8) << 16);
             }))

}  // namespace instructions_convert_narrow_test
}  // namespace instruction_check
