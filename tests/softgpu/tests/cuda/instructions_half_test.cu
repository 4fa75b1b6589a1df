// f16 and bf16, alone and in pairs: arithmetic, signs, minima and maxima, comparisons.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_half_test {

enum : int { ftz = 1, sat = 2, relu = 4, nan_wins = 8, xorsigned = 16 };

/// One half of one format, by its bits; M: the modifiers.
template <bool Brain> struct halves_of {
  static constexpr small_format format = Brain ? brain_format : half_format;
  static u32 flush(u32 x, int m) {
    return (m & ftz) != 0 && (x & format.infinity()) == 0 ? x & format.sign() : x;
  }
  static double in(u32 x, int m) { return value(format, flush(x, m)); }
  static u32 out(double cut, int m) {
    u32 r = flush(rounded(format, cut), m);
    double const v = value(format, r);
    if ((m & sat) != 0) r = !(v > 0) ? 0 : v > 1 ? rounded(format, 1) : r;
    if ((m & relu) != 0 && v < 0) r = 0;
    if ((m & relu) != 0 && v == 0) r = 0;
    return r;
  }
  static u32 add(u32 a, u32 b, int m) { return out(fma_cut(in(a, m), 1, in(b, m)), m); }
  static u32 sub(u32 a, u32 b, int m) { return out(fma_cut(in(b, m), -1, in(a, m)), m); }
  static u32 mul(u32 a, u32 b, int m) { return out(in(a, m) * in(b, m), m); }
  static u32 fma(u32 a, u32 b, u32 c, int m) {
    return out(fma_cut(in(a, m), in(b, m), in(c, m)), m);
  }
  static u32 extreme_of(bool max, u32 a, u32 b, int m) {
    double x = in(a, m), y = in(b, m);
    bool const negative = ((a ^ b) & format.sign()) != 0;
    if ((m & xorsigned) != 0) x = std::fabs(x), y = std::fabs(y);
    double r = extreme(max, (m & nan_wins) != 0, x, y);
    if (r != r) return format.nan();
    if ((m & xorsigned) != 0) r = negative ? -r : r;
    return rounded(format, r);
  }
};

template <class F> u16 of_one(u16 a, u16 b, F f) { return u16(f(a, b)); }
template <class F> u32 of_pair(u32 a, u32 b, F f) {
  return f(a & 0xffff, b & 0xffff) | f(a >> 16, b >> 16) << 16;
}

#define HALVES2(name, op, modifiers, m, what)                                                  \
  INSTRUCTION2(name##_f16, op modifiers ".f16 %0, %1, %2;", f16, f16, f16, ([](f16 a, f16 b) { \
                 using h = halves_of<false>;                                                   \
                 return f16(h::what(u32(a), u32(b), m));                                       \
               }))                                                                             \
  INSTRUCTION2(name##_f16x2, op modifiers ".f16x2 %0, %1, %2;", f16x2, f16x2, f16x2,           \
               ([](f16x2 a, f16x2 b) {                                                         \
                 return f16x2(of_pair(u32(a), u32(b), [](u32 x, u32 y) {                       \
                   return halves_of<false>::what(x, y, m);                                     \
                 }));                                                                          \
               }))
#define BRAINS2(name, op, modifiers, m, what)                                                   \
  INSTRUCTION2(name##_bf16, op modifiers ".bf16 %0, %1, %2;", bf16, bf16, bf16,                 \
               ([](bf16 a, bf16 b) { return bf16(halves_of<true>::what(u32(a), u32(b), m)); })) \
  INSTRUCTION2(name##_bf16x2, op modifiers ".bf16x2 %0, %1, %2;", bf16x2, bf16x2, bf16x2,       \
               ([](bf16x2 a, bf16x2 b) {                                                        \
                 return bf16x2(of_pair(u32(a), u32(b), [](u32 x, u32 y) {                       \
                   return halves_of<true>::what(x, y, m);                                       \
                 }));                                                                           \
               }))
#define ARITHMETIC(op)                                    \
  HALVES2(op##_rn, #op, ".rn", 0, op)                     \
  HALVES2(op##_ftz, #op, ".rn.ftz", ftz, op)              \
  HALVES2(op##_sat, #op, ".sat", sat, op)                 \
  HALVES2(op##_ftz_sat, #op, ".ftz.sat", (ftz | sat), op) \
  BRAINS2(op##_rn, #op, ".rn", 0, op)
ARITHMETIC(add)
ARITHMETIC(sub)
ARITHMETIC(mul)

#define FMA(name, modifiers, m, T, B)                                                      \
  INSTRUCTION3(fma_##name##_##T, "fma.rn" modifiers "." #T " %0, %1, %2, %3;", T, T, T, T, \
               ([](T a, T b, T c) { return T(halves_of<B>::fma(u32(a), u32(b), u32(c), m)); }))
FMA(rn, "", 0, f16, false)
FMA(ftz, ".ftz", ftz, f16, false)
FMA(sat, ".sat", sat, f16, false)
FMA(ftz_sat, ".ftz.sat", (ftz | sat), f16, false)
FMA(relu, ".relu", relu, f16, false)
FMA(ftz_relu, ".ftz.relu", (ftz | relu), f16, false)
FMA(rn, "", 0, bf16, true)
FMA(relu, ".relu", relu, bf16, true)
#define FMA2(name, modifiers, m, T, B)                                                     \
  INSTRUCTION3(fma_##name##_##T, "fma.rn" modifiers "." #T " %0, %1, %2, %3;", T, T, T, T, \
               ([](T a, T b, T c) {                                                        \
                 using h = halves_of<B>;                                                   \
                 u32 const x = u32(a), y = u32(b), z = u32(c);                             \
                 return T(h::fma(x & 0xffff, y & 0xffff, z & 0xffff, m) |                  \
                          h::fma(x >> 16, y >> 16, z >> 16, m) << 16);                     \
               }))
FMA2(rn, "", 0, f16x2, false)
FMA2(relu, ".relu", relu, f16x2, false)
FMA2(rn, "", 0, bf16x2, true)
FMA2(relu, ".relu", relu, bf16x2, true)

#define EXTREMES(op, max)                                                                  \
  HALVES2(op, #op, "", 0, op##_of)                                                         \
  HALVES2(op##_ftz, #op, ".ftz", ftz, op##_of)                                             \
  HALVES2(op##_nan, #op, ".NaN", nan_wins, op##_of)                                        \
  HALVES2(op##_xorsign, #op, ".xorsign.abs", xorsigned, op##_of)                           \
  HALVES2(op##_ftz_nan_xorsign, #op, ".ftz.NaN.xorsign.abs", (ftz | nan_wins | xorsigned), \
          op##_of)                                                                         \
  BRAINS2(op, #op, "", 0, op##_of)                                                         \
  BRAINS2(op##_nan, #op, ".NaN", nan_wins, op##_of)                                        \
  BRAINS2(op##_nan_xorsign, #op, ".NaN.xorsign.abs", (nan_wins | xorsigned), op##_of)
#define min_of(x, y, m) extreme_of(false, x, y, m)
#define max_of(x, y, m) extreme_of(true, x, y, m)
EXTREMES(min, false)
EXTREMES(max, true)

#define SIGN(name, ptx, T, B, ...) \
  INSTRUCTION1(name##_##T, ptx "." #T " %0, %1;", T, T, ([](T a) { return T(__VA_ARGS__); }))
SIGN(neg, "neg", f16, false, u32(a) ^ 0x8000)
SIGN(neg_ftz, "neg.ftz", f16, false, halves_of<false>::flush(u32(a), ftz) ^ 0x8000)
SIGN(neg, "neg", bf16, true, u32(a) ^ 0x8000)
SIGN(neg, "neg", f16x2, false, u32(a) ^ 0x80008000)
SIGN(neg, "neg", bf16x2, true, u32(a) ^ 0x80008000)
SIGN(abs, "abs", f16, false, u32(a) & 0x7fff)
SIGN(abs, "abs", bf16, true, u32(a) & 0x7fff)
SIGN(abs, "abs", f16x2, false, u32(a) & 0x7fff7fff)
SIGN(abs, "abs", bf16x2, true, u32(a) & 0x7fff7fff)

// Comparisons: with u the result for NaNs is true.
bool holds(char const* op, double a, double b) {
  std::string const o = op;
  bool const unordered = a != a || b != b;
  if (o == "num") return !unordered;
  if (o == "nan") return unordered;
  if (unordered) return o.size() == 3;
  std::string const plain = o.substr(0, 2);
  return plain == "eq"   ? a == b
         : plain == "ne" ? a != b
         : plain == "lt" ? a < b
         : plain == "le" ? a <= b
         : plain == "gt" ? a > b
                         : a >= b;
}
template <bool Brain> bool holds(char const* op, u32 a, u32 b, int m = 0) {
  return holds(op, halves_of<Brain>::in(a, m), halves_of<Brain>::in(b, m));
}
#define COMPARE(op)                                                                                \
  INSTRUCTION2(setp_##op##_f16,                                                                    \
               "{.reg .pred p; setp." #op ".f16 p, %1, %2; selp.u32 %0, 1, 0, p;}", u32, f16, f16, \
               ([](f16 a, f16 b) { return u32(holds<false>(#op, u32(a), u32(b))); }))              \
  INSTRUCTION2(setp_##op##_bf16,                                                                   \
               "{.reg .pred p; setp." #op ".bf16 p, %1, %2; selp.u32 %0, 1, 0, p;}", u32, bf16,    \
               bf16, ([](bf16 a, bf16 b) { return u32(holds<true>(#op, u32(a), u32(b))); }))       \
  INSTRUCTION2(setp_##op##_f16x2,                                                                  \
               "{.reg .pred p, q; .reg .u32 x, y; setp." #op                                       \
               ".f16x2 p|q, %1, %2; selp.u32 x, 1, 0, p; selp.u32 y, 2, 0, q; add.u32 %0, x, y;}", \
               u32, f16x2, f16x2, ([](f16x2 a, f16x2 b) {                                          \
                 u32 const x = u32(a), y = u32(b);                                                 \
                 return u32(holds<false>(#op, x & 0xffff, y & 0xffff)) |                           \
                        u32(holds<false>(#op, x >> 16, y >> 16)) << 1;                             \
               }))                                                                                 \
  INSTRUCTION2(set_##op##_f16x2, "set." #op ".f16x2.f16x2 %0, %1, %2;", f16x2, f16x2, f16x2,       \
               ([](f16x2 a, f16x2 b) {                                                             \
                 return f16x2(of_pair(u32(a), u32(b), [](u32 x, u32 y) {                           \
                   return holds<false>(#op, x, y) ? 0x3c00u : 0u;                                  \
                 }));                                                                              \
               }))                                                                                 \
  INSTRUCTION2(set_##op##_bf16x2_mask, "set." #op ".u32.bf16x2 %0, %1, %2;", u32, bf16x2, bf16x2,  \
               ([](bf16x2 a, bf16x2 b) {                                                           \
                 return of_pair(u32(a), u32(b), [](u32 x, u32 y) {                                 \
                   return holds<true>(#op, x, y) ? 0xffffu : 0u;                                   \
                 });                                                                               \
               }))
COMPARE(eq)
COMPARE(ne)
COMPARE(lt)
COMPARE(le)
COMPARE(gt)
COMPARE(ge)
COMPARE(equ)
COMPARE(neu)
COMPARE(ltu)
COMPARE(leu)
COMPARE(gtu)
COMPARE(geu)
COMPARE(num)
COMPARE(nan)
INSTRUCTION2(set_f16, "set.lt.f16.f16 %0, %1, %2;", f16, f16, f16,
             ([](f16 a, f16 b) { return f16(holds<false>("lt", u32(a), u32(b)) ? 0x3c00 : 0); }))
INSTRUCTION2(set_bf16, "set.geu.bf16.bf16 %0, %1, %2;", bf16, bf16, bf16,
             ([](bf16 a, bf16 b) { return bf16(holds<true>("geu", u32(a), u32(b)) ? 0x3f80 : 0); }))
INSTRUCTION2(set_ftz_u16, "set.gt.ftz.u16.f16 %0, %1, %2;", u16, f16, f16, ([](f16 a, f16 b) {
               return u16(holds<false>("gt", u32(a), u32(b), ftz) ? 0xffff : 0);
             }))
INSTRUCTION2(set_s32, "set.ne.s32.f16 %0, %1, %2;", s32, f16, f16,
             ([](f16 a, f16 b) { return holds<false>("ne", u32(a), u32(b)) ? -1 : 0; }))
INSTRUCTION3(setp_and,
             "{.reg .pred p, q; setp.lt.u16 q, %3, 9; setp.le.and.ftz.f16 p, %1, %2, !q;"
             " selp.u32 %0, 1, 0, p;}",
             u32, f16, f16, u16, ([](f16 a, f16 b, u16 c) {
               return u32(holds<false>("le", u32(a), u32(b), ftz) && !(c < 9));
             }))

}  // namespace instructions_half_test
}  // namespace instruction_check
