// cvt between integers, plain and saturating, and between f32 and f64 in every rounding.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_convert_test {

template <class T> T clamped(__int128 x) {
  __int128 const high = std::numeric_limits<T>::max(), low = std::numeric_limits<T>::min();
  return T(x > high ? high : x < low ? low : x);
}

// M(type, register's type, C++ type) for all integers; 8 bits live in a wider register.
#define EACH_INTEGER(M, ...)    \
  M(__VA_ARGS__, u8, u32, u8)   \
  M(__VA_ARGS__, u16, u16, u16) \
  M(__VA_ARGS__, u32, u32, u32) \
  M(__VA_ARGS__, u64, u64, u64) \
  M(__VA_ARGS__, s8, s32, s8)   \
  M(__VA_ARGS__, s16, s16, s16) \
  M(__VA_ARGS__, s32, s32, s32) \
  M(__VA_ARGS__, s64, s64, s64)
// The source's upper bits are ignored; a result is extended to its register.
#define INTEGERS(d, DR, DT, s, SR, ST)                             \
  INSTRUCTION1(cvt_##d##_##s, "cvt." #d "." #s " %0, %1;", DR, SR, \
               ([](SR a) { return DR(DT(ST(a))); }))
EACH_INTEGER(INTEGERS, u8, u32, u8)
EACH_INTEGER(INTEGERS, u16, u16, u16)
EACH_INTEGER(INTEGERS, u32, u32, u32)
EACH_INTEGER(INTEGERS, u64, u64, u64)
EACH_INTEGER(INTEGERS, s8, s32, s8)
EACH_INTEGER(INTEGERS, s16, s16, s16)
EACH_INTEGER(INTEGERS, s32, s32, s32)
EACH_INTEGER(INTEGERS, s64, s64, s64)
// .sat, where the source may be out of the destination's range.
#define SATURATING(d, DR, DT, s, SR, ST)                                   \
  INSTRUCTION1(cvt_sat_##d##_##s, "cvt.sat." #d "." #s " %0, %1;", DR, SR, \
               ([](SR a) { return DR(clamped<DT>(ST(a))); }))
#define FROM_64(...) SATURATING(__VA_ARGS__, s64, s64, s64)
#define FROM_SIGNED(...)                 \
  SATURATING(__VA_ARGS__, s8, s32, s8)   \
  SATURATING(__VA_ARGS__, s16, s16, s16) \
  SATURATING(__VA_ARGS__, s32, s32, s32) \
  FROM_64(__VA_ARGS__)
SATURATING(u8, u32, u8, u16, u16, u16)
SATURATING(u8, u32, u8, u32, u32, u32)
SATURATING(u8, u32, u8, u64, u64, u64)
FROM_SIGNED(u8, u32, u8)
SATURATING(u16, u16, u16, u32, u32, u32)
SATURATING(u16, u16, u16, u64, u64, u64)
FROM_SIGNED(u16, u16, u16)
SATURATING(u32, u32, u32, u64, u64, u64)
FROM_SIGNED(u32, u32, u32)
FROM_SIGNED(u64, u64, u64)
SATURATING(s8, s32, s8, u8, u32, u8)
SATURATING(s8, s32, s8, u16, u16, u16)
SATURATING(s8, s32, s8, u64, u64, u64)
SATURATING(s8, s32, s8, s16, s16, s16)
SATURATING(s8, s32, s8, s32, s32, s32)
FROM_64(s8, s32, s8)
SATURATING(s16, s16, s16, u16, u16, u16)
SATURATING(s16, s16, s16, u32, u32, u32)
SATURATING(s16, s16, s16, s32, s32, s32)
FROM_64(s16, s16, s16)
SATURATING(s32, s32, s32, u32, u32, u32)
SATURATING(s32, s32, s32, u64, u64, u64)
FROM_64(s32, s32, s32)
SATURATING(s64, s64, s64, u64, u64, u64)
INSTRUCTION1(cvt_u32_u8_of_16_bits, "cvt.u32.u8 %0, %1;", u32, u16,
             ([](u16 a) { return u32(u8(a)); }))
INSTRUCTION1(cvt_s16_s8_in_16_bits, "cvt.s16.s8 %0, %1;", s16, s16,
             ([](s16 a) { return s16(s8(a)); }))
INSTRUCTION1(cvt_u16_u32_of_64_bits, "cvt.u16.u32 %0, %1;", u16, u64,
             ([](u64 a) { return u16(a); }))

template <class T> T integral(char how, T x) {
  if (how == 'n') return std::rint(x);
  return how == 'z' ? std::trunc(x) : how == 'm' ? std::floor(x) : how == 'p' ? std::ceil(x) : x;
}
template <class T> T same_width(char const* words, T a) {
  auto const has = [&](char const* word) { return std::strstr(words, word) != nullptr; };
  T x = nothing_if(has("ftz"), a);
  x = integral(words[0] == 'r' ? words[1] : 0, x);
  return has("sat") ? saturated(x) : x;
}
#define SAME(name, words, T)                                              \
  INSTRUCTION1(cvt_##name##_##T, "cvt." words #T "." #T " %0, %1;", T, T, \
               ([](T a) { return same_width<T>(words, a); }))
#define SAME_WIDTH(T)          \
  SAME(plain, "", T)           \
  SAME(rni, "rni.", T)         \
  SAME(rzi, "rzi.", T)         \
  SAME(rmi, "rmi.", T)         \
  SAME(rpi, "rpi.", T)         \
  SAME(sat, "sat.", T)         \
  SAME(rni_sat, "rni.sat.", T) \
  SAME(rzi_sat, "rzi.sat.", T) \
  SAME(rmi_sat, "rmi.sat.", T) \
  SAME(rpi_sat, "rpi.sat.", T)
SAME_WIDTH(f32)
SAME_WIDTH(f64)
SAME(ftz, "ftz.", f32)
SAME(ftz_sat, "ftz.sat.", f32)
SAME(rni_ftz, "rni.ftz.", f32)
SAME(rzi_ftz, "rzi.ftz.", f32)
SAME(rmi_ftz, "rmi.ftz.", f32)
SAME(rpi_ftz, "rpi.ftz.", f32)
SAME(rpi_ftz_sat, "rpi.ftz.sat.", f32)

f32 narrowed(mode m, bool ftz, bool sat, f64 a) {
  f64 volatile x = a;
  f32 const r = nothing_if(ftz, in_mode(m, [&] { return f32(x); }));
  return sat ? saturated(r) : r;
}
#define NARROW(m)                                                                    \
  INSTRUCTION1(narrow_##m, "cvt." #m ".f32.f64 %0, %1;", f32, f64,                   \
               ([](f64 a) { return narrowed(mode::m, false, false, a); }))           \
  INSTRUCTION1(narrow_##m##_ftz, "cvt." #m ".ftz.f32.f64 %0, %1;", f32, f64,         \
               ([](f64 a) { return narrowed(mode::m, true, false, a); }))            \
  INSTRUCTION1(narrow_##m##_sat, "cvt." #m ".sat.f32.f64 %0, %1;", f32, f64,         \
               ([](f64 a) { return narrowed(mode::m, false, true, a); }))            \
  INSTRUCTION1(narrow_##m##_ftz_sat, "cvt." #m ".ftz.sat.f32.f64 %0, %1;", f32, f64, \
               ([](f64 a) { return narrowed(mode::m, true, true, a); }))
NARROW(rn)
NARROW(rz)
NARROW(rm)
NARROW(rp)
INSTRUCTION1(widen, "cvt.f64.f32 %0, %1;", f64, f32, ([](f32 a) { return f64(a); }))
INSTRUCTION1(widen_ftz, "cvt.ftz.f64.f32 %0, %1;", f64, f32,
             ([](f32 a) { return f64(flushed(a)); }))
INSTRUCTION1(widen_sat, "cvt.sat.f64.f32 %0, %1;", f64, f32,
             ([](f32 a) { return f64(saturated(a)); }))

// cvt.pack: clamped, a above b, below what c brings.
template <int Bits, bool Signed> u32 packed(s32 a, s32 b, u32 c) {
  auto const field = [](s32 x) {
    s64 const high = (s64(1) << (Bits - Signed)) - 1, low = Signed ? -high - 1 : 0;
    s64 const r = x > high ? high : x < low ? low : x;
    return u64(r) & ((u64(1) << Bits) - 1);
  };
  return u32(field(b) | field(a) << Bits | u64(c) << 2 * Bits);
}
INSTRUCTION2(pack_s16, "cvt.pack.sat.s16.s32 %0, %1, %2;", u32, s32, s32,
             ([](s32 a, s32 b) { return packed<16, true>(a, b, 0); }))
INSTRUCTION2(pack_u16, "cvt.pack.sat.u16.s32 %0, %1, %2;", u32, s32, s32,
             ([](s32 a, s32 b) { return packed<16, false>(a, b, 0); }))
INSTRUCTION3(pack_s8, "cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;", u32, s32, s32, u32,
             (packed<8, true>))
INSTRUCTION3(pack_u8, "cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;", u32, s32, s32, u32,
             (packed<8, false>))
INSTRUCTION3(pack_u4, "cvt.pack.sat.u4.s32.b32 %0, %1, %2, %3;", u32, s32, s32, u32,
             (packed<4, false>))

}  // namespace instructions_convert_test
}  // namespace instruction_check
