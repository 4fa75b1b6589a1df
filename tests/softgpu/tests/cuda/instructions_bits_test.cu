// Logic, shifts and bit fields, each instruction by itself.
#include "instruction_check.hpp"

namespace instruction_check {
namespace instructions_bits_test {

#define LOGIC(T, B)                                                                           \
  INSTRUCTION2(and_##B, "and." #B " %0, %1, %2;", T, T, T, [](T a, T b) { return T(a & b); }) \
  INSTRUCTION2(or_##B, "or." #B " %0, %1, %2;", T, T, T, [](T a, T b) { return T(a | b); })   \
  INSTRUCTION2(xor_##B, "xor." #B " %0, %1, %2;", T, T, T, [](T a, T b) { return T(a ^ b); }) \
  INSTRUCTION1(not_##B, "not." #B " %0, %1;", T, T, [](T a) { return T(~a); })                \
  INSTRUCTION1(cnot_##B, "cnot." #B " %0, %1;", T, T, [](T a) { return T(a == 0 ? 1 : 0); })
LOGIC(u16, b16)
LOGIC(u32, b32)
LOGIC(u64, b64)

// Bit loops: what a field is, bit by bit.
template <class T> bool bit(T x, u64 i) { return i < 8 * sizeof(T) && (u64(x) >> i & 1) != 0; }
template <class T> constexpr u64 width = 8 * sizeof(T);

template <class T> T shifted_left(T a, count n) {
  T r = 0;
  for (u64 i = 0; i < width<T>; ++i)
    if (i >= u64(n) && bit(a, i - u64(n))) r = T(r | T(1) << i);
  return r;
}
/// Bits that come in at the top are copies of `fill`.
template <class T> T shifted_right(T a, count n, bool fill) {
  u64 r = 0;
  for (u64 i = 0; i < width<T>; ++i) {
    u64 const from = i + u64(n);
    r |= u64(from < width<T> ? bit(a, from) : fill) << i;
  }
  return T(r);
}
#define SHIFTS(T, S, bits)                                                              \
  INSTRUCTION2(shl_b##bits, "shl.b" #bits " %0, %1, %2;", T, T, count, shifted_left<T>) \
  INSTRUCTION2(shr_b##bits, "shr.b" #bits " %0, %1, %2;", T, T, count,                  \
               [](T a, count n) { return shifted_right<T>(a, n, false); })              \
  INSTRUCTION2(shr_u##bits, "shr.u" #bits " %0, %1, %2;", T, T, count,                  \
               [](T a, count n) { return shifted_right<T>(a, n, false); })              \
  INSTRUCTION2(shr_s##bits, "shr.s" #bits " %0, %1, %2;", S, S, count,                  \
               [](S a, count n) { return shifted_right<S>(a, n, a < 0); })
SHIFTS(u16, s16, 16)
SHIFTS(u32, s32, 32)
SHIFTS(u64, s64, 64)

u64 funnel_count(count n, bool clamp) { return clamp ? (u32(n) > 32 ? 32 : u32(n)) : u32(n) % 32; }
template <bool Clamp> u32 funnel_left(u32 a, u32 b, count n) {
  u64 const both = u64(b) << 32 | a, k = funnel_count(n, Clamp);
  return u32(shifted_left<u64>(both, count(k)) >> 32);
}
template <bool Clamp> u32 funnel_right(u32 a, u32 b, count n) {
  return u32(shifted_right<u64>(u64(b) << 32 | a, count(funnel_count(n, Clamp)), false));
}
INSTRUCTION3(shf_l_wrap, "shf.l.wrap.b32 %0, %1, %2, %3;", u32, u32, u32, count, funnel_left<false>)
INSTRUCTION3(shf_l_clamp, "shf.l.clamp.b32 %0, %1, %2, %3;", u32, u32, u32, count,
             funnel_left<true>)
INSTRUCTION3(shf_r_wrap, "shf.r.wrap.b32 %0, %1, %2, %3;", u32, u32, u32, count,
             funnel_right<false>)
INSTRUCTION3(shf_r_clamp, "shf.r.clamp.b32 %0, %1, %2, %3;", u32, u32, u32, count,
             funnel_right<true>)

template <class T> u32 ones(T a) {
  u32 n = 0;
  for (u64 i = 0; i < width<T>; ++i) n += bit(a, i);
  return n;
}
template <class T> u32 leading_zeros(T a) {
  u32 n = 0;
  while (n < width<T> && !bit(a, width<T> - 1 - n)) ++n;
  return n;
}
template <class T> T reversed(T a) {
  T r = 0;
  for (u64 i = 0; i < width<T>; ++i)
    if (bit(a, i)) r |= T(1) << (width<T> - 1 - i);
  return r;
}
template <class T, bool Amount> u32 highest(T a) {
  bool const sign = T(-1) < T(0) && a < 0;
  for (u64 i = width<T>; i-- > 0;)
    if (bit(a, i) != sign) return u32(Amount ? width<T> - 1 - i : i);
  return ~0u;
}
#define COUNTS(T, S, bits)                                                           \
  INSTRUCTION1(popc_b##bits, "popc.b" #bits " %0, %1;", u32, T, ones<T>)             \
  INSTRUCTION1(clz_b##bits, "clz.b" #bits " %0, %1;", u32, T, leading_zeros<T>)      \
  INSTRUCTION1(brev_b##bits, "brev.b" #bits " %0, %1;", T, T, reversed<T>)           \
  INSTRUCTION1(bfind_u##bits, "bfind.u" #bits " %0, %1;", u32, T, highest<T, false>) \
  INSTRUCTION1(bfind_s##bits, "bfind.s" #bits " %0, %1;", u32, S, highest<S, false>) \
  INSTRUCTION1(bfind_shiftamt_u##bits, "bfind.shiftamt.u" #bits " %0, %1;", u32, T,  \
               highest<T, true>)                                                     \
  INSTRUCTION1(bfind_shiftamt_s##bits, "bfind.shiftamt.s" #bits " %0, %1;", u32, S,  \
               highest<S, true>)
COUNTS(u32, s32, 32)
COUNTS(u64, s64, 64)

// bfe and bfi, as the manual's pseudo-code has them: positions and lengths are bytes.
template <class T> T extracted(T a, count position, count length) {
  u64 const pos = u64(position) & 0xff, len = u64(length) & 0xff, msb = width<T> - 1;
  bool const is_signed = T(-1) < T(0);
  bool const sign = is_signed && len != 0 && bit(a, pos + len - 1 < msb ? pos + len - 1 : msb);
  u64 r = 0;
  for (u64 i = 0; i <= msb; ++i) r |= u64(i < len && pos + i <= msb ? bit(a, pos + i) : sign) << i;
  return T(r);
}
template <class T> T inserted(T a, T b, count position, count length) {
  u64 const pos = u64(position) & 0xff, len = u64(length) & 0xff;
  u64 r = b;
  for (u64 i = 0; i < len && pos + i < width<T>; ++i)
    r = (r & ~(u64(1) << (pos + i))) | u64(bit(a, i)) << (pos + i);
  return T(r);
}
#define FIELDS(T, S, bits)                                                                      \
  INSTRUCTION3(bfe_u##bits, "bfe.u" #bits " %0, %1, %2, %3;", T, T, count, count, extracted<T>) \
  INSTRUCTION3(bfe_s##bits, "bfe.s" #bits " %0, %1, %2, %3;", S, S, count, count, extracted<S>) \
  INSTRUCTION4(bfi_b##bits, "bfi.b" #bits " %0, %1, %2, %3, %4;", T, T, T, count, count,        \
               inserted<T>)
FIELDS(u32, s32, 32)
FIELDS(u64, s64, 64)

template <bool Clamp> u32 mask_of(count position, count length) {
  u64 const pos = Clamp ? u64(position) : u64(position) % 32;
  u64 const len = Clamp ? u64(length) : u64(length) % 32;
  u32 r = 0;
  for (u64 i = 0; i < 32; ++i) r |= u32(i >= pos && i < pos + len) << i;
  return r;
}
INSTRUCTION2(bmsk_clamp, "bmsk.clamp.b32 %0, %1, %2;", u32, count, count, mask_of<true>)
INSTRUCTION2(bmsk_wrap, "bmsk.wrap.b32 %0, %1, %2;", u32, count, count, mask_of<false>)

// szext: the low n bits extended by zeros or by their sign.
template <class T, bool Clamp> T extended(T a, count n) {
  u64 const len = Clamp ? (u64(n) > 32 ? 32 : u64(n)) : u64(n) % 32;
  bool const sign = T(-1) < T(0) && len != 0 && bit(a, len - 1);
  u32 r = 0;
  for (u64 i = 0; i < 32; ++i) r |= u32(i < len ? bit(a, i) : sign) << i;
  return T(r);
}
INSTRUCTION2(szext_clamp_s32, "szext.clamp.s32 %0, %1, %2;", s32, s32, count, extended<s32, true>)
INSTRUCTION2(szext_clamp_u32, "szext.clamp.u32 %0, %1, %2;", u32, u32, count, extended<u32, true>)
INSTRUCTION2(szext_wrap_s32, "szext.wrap.s32 %0, %1, %2;", s32, s32, count, extended<s32, false>)
INSTRUCTION2(szext_wrap_u32, "szext.wrap.u32 %0, %1, %2;", u32, u32, count, extended<u32, false>)

// lop3: bit i of the table is the result where (a, b, c) spell i.
template <u32 Table> u32 looked_up(u32 a, u32 b, u32 c) {
  u32 r = 0;
  for (u64 i = 0; i < 32; ++i) r |= (Table >> (4 * bit(a, i) + 2 * bit(b, i) + bit(c, i)) & 1) << i;
  return r;
}
#define LOP3(table)                                                                      \
  INSTRUCTION3(lop3_##table, "lop3.b32 %0, %1, %2, %3, " #table ";", u32, u32, u32, u32, \
               looked_up<table>)
LOP3(0x80)
LOP3(0x96)
LOP3(0xe8)
LOP3(0x1b)
LOP3(0xca)
LOP3(0x00)
LOP3(0xff)
LOP3(0x6d)
#define LOP3_OF(op, what)                                                          \
  INSTRUCTION3(lop3_##op,                                                          \
               "{.reg .pred p, q; setp.gt.s32 q, %3, 5; lop3." #op                 \
               ".b32 %0|p, %1, %2, %3, 0x1b, q; selp.u32 %0, 1, 0, p;}",           \
               u32, u32, u32, s32, [](u32 a, u32 b, s32 c) {                       \
                 bool const found = looked_up<0x1b>(a, b, u32(c)) != 0, q = c > 5; \
                 return u32(what);                                                 \
               })
LOP3_OF(or, found || q)
LOP3_OF(and, found&& q)

// prmt: the selector's nibbles name bytes of {b, a}; bit 3 of a nibble spreads the byte's sign.
u32 permuted(u32 a, u32 b, u32 c) {
  u32 r = 0;
  for (int i = 0; i < 4; ++i) {
    u32 const nibble = c >> 4 * i & 15, which = nibble & 7;
    u32 byte = (which < 4 ? a : b) >> 8 * (which % 4) & 255;
    if (nibble > 7) byte = byte > 127 ? 255 : 0;
    r += byte << 8 * i;
  }
  return r;
}
INSTRUCTION3(prmt, "prmt.b32 %0, %1, %2, %3;", u32, u32, u32, u32, permuted)
#define PRMT(mode, ...)                                                                      \
  INSTRUCTION3(                                                                              \
      prmt_##mode, "prmt.b32." #mode " %0, %1, %2, %3;", u32, u32, u32, u32,                 \
      [](u32 a, u32 b, u32 c) {                                                              \
        u32 const n = c % 4;                                                                 \
        auto const byte = [&](u32 k) { return u8((u64(b) << 32 | a) >> 8 * (k & 7)); };      \
        u32 const k[4] = {__VA_ARGS__};                                                      \
        return u32(byte(k[0]) | byte(k[1]) << 8 | byte(k[2]) << 16 | u32(byte(k[3])) << 24); \
      })
PRMT(f4e, n, n + 1, n + 2, n + 3)
PRMT(b4e, n, n - 1, n - 2, n - 3)
PRMT(rc8, n, n, n, n)
PRMT(ecl, n, n > 1 ? n : 1, n > 2 ? n : 2, 3)
PRMT(ecr, 0, n < 1 ? n : 1, n < 2 ? n : 2, n)
PRMT(rc16, n % 2 * 2, n % 2 * 2 + 1, n % 2 * 2, n % 2 * 2 + 1)

// fns: the n-th set bit from a base, upward where n > 0, downward where n < 0.
u32 nth_set(u32 mask, count base, s32 n) {
  s64 const step = n < 0 ? -1 : 1;
  s64 left = n < 0 ? -s64(n) : n;
  if (n == 0) return mask >> u32(base) & 1 ? u32(base) : ~0u;
  for (s64 i = s64(u32(base)); i >= 0 && i < 32; i += step)
    if (mask >> i & 1 && --left == 0) return u32(i);
  return ~0u;
}
INSTRUCTION3(fns, "{.reg .u32 base; and.b32 base, %2, 31; fns.b32 %0, %1, base, %3;}", u32, u32,
             count, s32,
             [](u32 mask, count base, s32 n) { return nth_set(mask, count(u32(base) % 32), n); })

// Logic on predicates, negated ones too.
#define PREDICATES(op, ptx, what)                                                                 \
  INSTRUCTION2(pred_##op,                                                                         \
               "{.reg .pred p, q, r; setp.lt.s32 p, %1, 0; setp.lt.s32 q, %2, 7; setp.ne.u32 r, " \
               "0, 0; " ptx " selp.u32 %0, 1, 0, r;}",                                            \
               u32, s32, s32, [](s32 a, s32 b) {                                                  \
                 bool const p = a < 0, q = b < 7;                                                 \
                 return u32(what);                                                                \
               })
PREDICATES(and, "and.pred r, p, q;", p&& q)
PREDICATES(and_not, "and.pred r, !p, q;", !p && q)
PREDICATES(or, "or.pred r, p, !q;", p || !q)
PREDICATES(xor, "xor.pred r, p, q;", p != q)
PREDICATES(not, "not.pred r, p;", !p && (q || !q))
PREDICATES(mov, "mov.pred r, q;", q && (p || !p))
PREDICATES(mov_not, "mov.pred r, !q;", !q && (p || !p))
PREDICATES(guarded, "@!p and.pred r, q, q; @p not.pred r, q;", p != q)

}  // namespace instructions_bits_test
}  // namespace instruction_check
