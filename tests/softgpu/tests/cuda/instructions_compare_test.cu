// setp, set, selp and slct: every comparison on every type, combined and doubled.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_compare_test {

/// By the manual's names; those that end in u are true where an operand is NaN.
template <class T> bool holds(char const* op, T a, T b) {
  std::string const o = op;
  bool const unordered = a != a || b != b;
  if (o == "num") return !unordered;
  if (o == "nan") return unordered;
  if (unordered) return o.size() == 3;
  std::string const plain = o.substr(0, 2);
  if (plain == "eq") return a == b;
  if (plain == "ne") return a != b;
  if (plain == "lt" || plain == "lo") return a < b;
  if (plain == "le" || plain == "ls") return a <= b;
  if (plain == "gt" || plain == "hi") return a > b;
  return a >= b;
}
#define SETP(op, t, T)                                                                            \
  INSTRUCTION2(setp_##op##_##t,                                                                   \
               "{.reg .pred p; setp." #op "." #t " p, %1, %2; selp.u32 %0, 1, 0, p;}", u32, T, T, \
               ([](T a, T b) { return u32(holds(#op, a, b)); }))
#define ORDERED(t, T) \
  SETP(eq, t, T) SETP(ne, t, T) SETP(lt, t, T) SETP(le, t, T) SETP(gt, t, T) SETP(ge, t, T)
ORDERED(u16, u16)
ORDERED(u32, u32)
ORDERED(u64, u64)
ORDERED(s16, s16)
ORDERED(s32, s32)
ORDERED(s64, s64)
ORDERED(f32, f32)
ORDERED(f64, f64)
#define UNSIGNED(t, T) SETP(lo, t, T) SETP(ls, t, T) SETP(hi, t, T) SETP(hs, t, T)
UNSIGNED(u16, u16)
UNSIGNED(u32, u32)
UNSIGNED(u64, u64)
#define BITS(t, T) SETP(eq, t, T) SETP(ne, t, T)
BITS(b16, u16)
BITS(b32, u32)
BITS(b64, u64)
#define UNORDERED(t, T) \
  SETP(equ, t, T)       \
  SETP(neu, t, T)       \
  SETP(ltu, t, T) SETP(leu, t, T) SETP(gtu, t, T) SETP(geu, t, T) SETP(num, t, T) SETP(nan, t, T)
UNORDERED(f32, f32)
UNORDERED(f64, f64)

// With a second predicate: q is the combination of the opposite.
#define COMBINED(name, bool_op, op, t, T, what)                                                   \
  INSTRUCTION3(setp_##name##_##op##_##t,                                                          \
               "{.reg .pred p, q, r; .reg .u32 x, y; setp.lt.s32 r, %3, 4; setp." #op "." bool_op \
               "." #t                                                                             \
               " p|q, %1, %2, !r; selp.u32 x, 1, 0, p; selp.u32 y, 2, 0, q;"                      \
               " add.u32 %0, x, y;}",                                                             \
               u32, T, T, s32, ([](T a, T b, s32 n) {                                             \
                 bool const c = !(n < 4);                                                         \
                 auto const f = [&](bool x) { return u32(what); };                                \
                 bool const r = holds(#op, a, b);                                                 \
                 return f(r) | f(!r) << 1;                                                        \
               }))
#define COMBINATIONS(op, t, T)             \
  COMBINED(both, "and", op, t, T, x&& c)   \
  COMBINED(either, "or", op, t, T, x || c) \
  COMBINED(one, "xor", op, t, T, x != c)
COMBINATIONS(lt, s32, s32)
COMBINATIONS(eq, u16, u16)
COMBINATIONS(gtu, f32, f32)
COMBINATIONS(ge, f64, f64)
COMBINATIONS(hi, u64, u64)
INSTRUCTION2(setp_ftz, "{.reg .pred p; setp.eq.ftz.f32 p, %1, %2; selp.u32 %0, 1, 0, p;}", u32, f32,
             f32, ([](f32 a, f32 b) { return u32(flushed(a) == flushed(b)); }))
INSTRUCTION2(setp_ltu_ftz, "{.reg .pred p; setp.ltu.ftz.f32 p, %1, %2; selp.u32 %0, 1, 0, p;}", u32,
             f32, f32, ([](f32 a, f32 b) { return u32(!(flushed(a) >= flushed(b))); }))
INSTRUCTION1(setp_constant, "{.reg .pred p; setp.gt.s64 p, %1, -2; selp.u32 %0, 1, 0, p;}", u32,
             s64, ([](s64 a) { return u32(a > -2); }))
INSTRUCTION1(setp_sink, "{.reg .pred p; setp.gt.s32 _|p, %1, 7; selp.u32 %0, 1, 0, p;}", u32, s32,
             ([](s32 a) { return u32(a <= 7); }))

#define SET(op, d, D, t, T, yes)                                                       \
  INSTRUCTION2(set_##op##_##d##_##t, "set." #op "." #d "." #t " %0, %1, %2;", D, T, T, \
               ([](T a, T b) { return holds(#op, a, b) ? D(yes) : D(0); }))
SET(lt, u32, u32, s32, s32, ~0u)
SET(ge, s32, s32, u64, u64, -1)
SET(ne, f32, f32, u16, u16, 1)
SET(leu, f32, f32, f64, f64, 1)
SET(eq, u32, u32, f32, f32, ~0u)
SET(num, s32, s32, f32, f32, -1)
INSTRUCTION3(set_and, "{.reg .pred p; setp.ne.s32 p, %3, 0; set.gt.and.u32.f32 %0, %1, %2, p;}",
             u32, f32, f32, s32, ([](f32 a, f32 b, s32 c) { return a > b && c != 0 ? ~0u : 0u; }))

#define SELP(t, T)                                                                                 \
  INSTRUCTION3(selp_##t, "{.reg .pred p; setp.lt.s32 p, %3, 3; selp." #t " %0, %1, %2, p;}", T, T, \
               T, s32, ([](T a, T b, s32 c) { return c < 3 ? a : b; }))                            \
  INSTRUCTION3(slct_##t##_s32, "slct." #t ".s32 %0, %1, %2, %3;", T, T, T, s32,                    \
               ([](T a, T b, s32 c) { return c >= 0 ? a : b; }))                                   \
  INSTRUCTION3(slct_##t##_f32, "slct." #t ".f32 %0, %1, %2, %3;", T, T, T, f32,                    \
               ([](T a, T b, f32 c) { return c >= 0 ? a : b; }))                                   \
  INSTRUCTION3(slct_ftz_##t##_f32, "slct.ftz." #t ".f32 %0, %1, %2, %3;", T, T, T, f32,            \
               ([](T a, T b, f32 c) { return flushed(c) >= 0 ? a : b; }))
SELP(b16, u16)
SELP(u32, u32)
SELP(s64, s64)
SELP(f32, f32)
SELP(f64, f64)

}  // namespace instructions_compare_test
}  // namespace instruction_check
