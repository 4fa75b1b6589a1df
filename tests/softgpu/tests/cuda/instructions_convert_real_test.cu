// cvt from f32 and f64 to integers and back, in every rounding.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_convert_real_test {

#define EACH_INTEGER(M, ...)    \
  M(__VA_ARGS__, u8, u32, u8)   \
  M(__VA_ARGS__, u16, u16, u16) \
  M(__VA_ARGS__, u32, u32, u32) \
  M(__VA_ARGS__, u64, u64, u64) \
  M(__VA_ARGS__, s8, s32, s8)   \
  M(__VA_ARGS__, s16, s16, s16) \
  M(__VA_ARGS__, s32, s32, s32) \
  M(__VA_ARGS__, s64, s64, s64)

/// Rounded, then clamped. NaN gives 0, or the highest bit where either side has 64 bits.
template <class D, class S> D to_integer(char how, S a) {
  if (is_nan(a)) {
    bool const wide = sizeof(S) == 8 || sizeof(D) == 8;
    return wide ? D(u64(1) << (8 * sizeof(D) - 1)) : D(0);
  }
  long double const x = a;
  long double const r = how == 'n'   ? rintl(x)
                        : how == 'z' ? truncl(x)
                        : how == 'm' ? floorl(x)
                                     : ceill(x);
  long double const high = std::numeric_limits<D>::max(), low = std::numeric_limits<D>::min();
  return r >= high  ? std::numeric_limits<D>::max()
         : r <= low ? std::numeric_limits<D>::min()
                    : D(r);
}
#define TO_INTEGER(how, d, DR, DT)                                                      \
  INSTRUCTION1(r##how##i_##d##_f32, "cvt.r" #how "i." #d ".f32 %0, %1;", DR, f32,       \
               ([](f32 a) { return DR(to_integer<DT>(#how[0], a)); }))                  \
  INSTRUCTION1(r##how##i_##d##_f64, "cvt.r" #how "i." #d ".f64 %0, %1;", DR, f64,       \
               ([](f64 a) { return DR(to_integer<DT>(#how[0], a)); }))                  \
  INSTRUCTION1(r##how##i_ftz_##d, "cvt.r" #how "i.ftz.sat." #d ".f32 %0, %1;", DR, f32, \
               ([](f32 a) { return DR(to_integer<DT>(#how[0], flushed(a))); }))
EACH_INTEGER(TO_INTEGER, n)
EACH_INTEGER(TO_INTEGER, z)
EACH_INTEGER(TO_INTEGER, m)
EACH_INTEGER(TO_INTEGER, p)

template <class D, class S> D from_integer(mode m, S a) {
  long double volatile x = a;  // exact
  return in_mode(m, [&] { return D(x); });
}
#define FROM_INTEGER(m, s, SR, ST)                                           \
  INSTRUCTION1(m##_f32_##s, "cvt." #m ".f32." #s " %0, %1;", f32, SR,        \
               ([](SR a) { return from_integer<f32, ST>(mode::m, ST(a)); })) \
  INSTRUCTION1(m##_f64_##s, "cvt." #m ".f64." #s " %0, %1;", f64, SR,        \
               ([](SR a) { return from_integer<f64, ST>(mode::m, ST(a)); }))
EACH_INTEGER(FROM_INTEGER, rn)
EACH_INTEGER(FROM_INTEGER, rz)
EACH_INTEGER(FROM_INTEGER, rm)
EACH_INTEGER(FROM_INTEGER, rp)
INSTRUCTION1(sat_f32_s32, "cvt.rn.sat.f32.s32 %0, %1;", f32, s32,
             ([](s32 a) { return a < 1 ? 0.0f : 1.0f; }))
INSTRUCTION1(sat_f64_u64, "cvt.rz.sat.f64.u64 %0, %1;", f64, u64,
             ([](u64 a) { return a < 1 ? 0.0 : 1.0; }))

}  // namespace instructions_convert_real_test
}  // namespace instruction_check
