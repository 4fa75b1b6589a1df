// Integer arithmetic, each instruction by itself: add, sub, mul, mad, 24 bits, sad, division, abs,
// neg, min, max, dot products, carries.
#include "instruction_check.hpp"

namespace instruction_check {
namespace instructions_integer_test {

using s128 = __int128;

/// The low bits of a value, as T holds them.
template <class T> T low(s128 x) { return T(u64(x)); }
template <class T> T clamped(s128 x) {
  s128 const high = (s128(1) << (8 * sizeof(T) - 1)) - 1;
  return T(x > high ? high : x < -high - 1 ? -high - 1 : x);
}
/// Bits from `8 · sizeof(T)` on of an exact product.
template <class T> T high(s128 x) { return T(u64(x >> (8 * sizeof(T)))); }
template <> u64 high<u64>(s128) = delete;
u64 high_u64(u64 a, u64 b) { return u64((unsigned __int128)(a)*b >> 64); }

#define BINARY(op, T, ...) INSTRUCTION2(op##_##T, #op "." #T " %0, %1, %2;", T, T, T, __VA_ARGS__)

BINARY(add, u16, [](u16 a, u16 b) { return low<u16>(s128(a) + b); })
BINARY(add, u32, [](u32 a, u32 b) { return low<u32>(s128(a) + b); })
BINARY(add, u64, [](u64 a, u64 b) { return low<u64>(s128(a) + b); })
BINARY(add, s16, [](s16 a, s16 b) { return low<s16>(s128(a) + b); })
BINARY(add, s32, [](s32 a, s32 b) { return low<s32>(s128(a) + b); })
BINARY(add, s64, [](s64 a, s64 b) { return low<s64>(s128(a) + b); })
INSTRUCTION2(add_sat, "add.sat.s32 %0, %1, %2;", s32, s32, s32,
             [](s32 a, s32 b) { return clamped<s32>(s128(a) + b); })
BINARY(sub, u16, [](u16 a, u16 b) { return low<u16>(s128(a) - b); })
BINARY(sub, u32, [](u32 a, u32 b) { return low<u32>(s128(a) - b); })
BINARY(sub, u64, [](u64 a, u64 b) { return low<u64>(s128(a) - b); })
BINARY(sub, s16, [](s16 a, s16 b) { return low<s16>(s128(a) - b); })
BINARY(sub, s32, [](s32 a, s32 b) { return low<s32>(s128(a) - b); })
BINARY(sub, s64, [](s64 a, s64 b) { return low<s64>(s128(a) - b); })
INSTRUCTION2(sub_sat, "sub.sat.s32 %0, %1, %2;", s32, s32, s32,
             [](s32 a, s32 b) { return clamped<s32>(s128(a) - b); })
INSTRUCTION1(add_constant, "add.s32 %0, %1, -17;", s32, s32,
             [](s32 a) { return low<s32>(s128(a) - 17); })
INSTRUCTION1(sub_from_constant, "sub.s64 %0, 0x7fffffffffffffff, %1;", s64, s64,
             [](s64 a) { return low<s64>(s128(0x7fffffffffffffff) - a); })

#define BINARY_IN(op, part, T, ...) \
  INSTRUCTION2(op##_##part##_##T, #op "." #part "." #T " %0, %1, %2;", T, T, T, __VA_ARGS__)
#define WIDE(op, T, W, ...) \
  INSTRUCTION2(op##_wide_##T, #op ".wide." #T " %0, %1, %2;", W, T, T, __VA_ARGS__)

BINARY_IN(mul, lo, u16, [](u16 a, u16 b) { return low<u16>(s128(a) * b); })
BINARY_IN(mul, lo, u32, [](u32 a, u32 b) { return low<u32>(s128(a) * b); })
BINARY_IN(mul, lo, u64, [](u64 a, u64 b) { return low<u64>(s128((unsigned __int128)(a)*b)); })
BINARY_IN(mul, lo, s16, [](s16 a, s16 b) { return low<s16>(s128(a) * b); })
BINARY_IN(mul, lo, s32, [](s32 a, s32 b) { return low<s32>(s128(a) * b); })
BINARY_IN(mul, lo, s64, [](s64 a, s64 b) { return low<s64>(s128(a) * b); })
BINARY_IN(mul, hi, u16, [](u16 a, u16 b) { return high<u16>(s128(a) * b); })
BINARY_IN(mul, hi, u32, [](u32 a, u32 b) { return high<u32>(s128(a) * b); })
BINARY_IN(mul, hi, u64, [](u64 a, u64 b) { return high_u64(a, b); })
BINARY_IN(mul, hi, s16, [](s16 a, s16 b) { return high<s16>(s128(a) * b); })
BINARY_IN(mul, hi, s32, [](s32 a, s32 b) { return high<s32>(s128(a) * b); })
BINARY_IN(mul, hi, s64, [](s64 a, s64 b) { return high<s64>(s128(a) * b); })
WIDE(mul, u16, u32, [](u16 a, u16 b) { return u32(s128(a) * b); })
WIDE(mul, s16, s32, [](s16 a, s16 b) { return s32(s128(a) * b); })
WIDE(mul, u32, u64, [](u32 a, u32 b) { return u64(s128(a) * b); })
WIDE(mul, s32, s64, [](s32 a, s32 b) { return s64(s128(a) * b); })

#define TERNARY_IN(op, part, T, ...) \
  INSTRUCTION3(op##_##part##_##T, #op "." #part "." #T " %0, %1, %2, %3;", T, T, T, T, __VA_ARGS__)

TERNARY_IN(mad, lo, u16, [](u16 a, u16 b, u16 c) { return low<u16>(s128(a) * b + c); })
TERNARY_IN(mad, lo, s16, [](s16 a, s16 b, s16 c) { return low<s16>(s128(a) * b + c); })
TERNARY_IN(mad, lo, u32, [](u32 a, u32 b, u32 c) { return low<u32>(s128(a) * b + c); })
TERNARY_IN(mad, lo, s32, [](s32 a, s32 b, s32 c) { return low<s32>(s128(a) * b + c); })
TERNARY_IN(mad, lo, u64, [](u64 a, u64 b, u64 c) { return a * b + c; })
TERNARY_IN(mad, lo, s64, [](s64 a, s64 b, s64 c) { return s64(u64(a) * u64(b) + u64(c)); })
TERNARY_IN(mad, hi, u16, [](u16 a, u16 b, u16 c) { return u16(high<u16>(s128(a) * b) + c); })
TERNARY_IN(mad, hi, s16, [](s16 a, s16 b, s16 c) { return s16(high<s16>(s128(a) * b) + c); })
TERNARY_IN(mad, hi, u32, [](u32 a, u32 b, u32 c) { return high<u32>(s128(a) * b) + c; })
TERNARY_IN(mad, hi, s32,
           [](s32 a, s32 b, s32 c) { return low<s32>(s128(high<s32>(s128(a) * b)) + c); })
TERNARY_IN(mad, hi, u64, [](u64 a, u64 b, u64 c) { return high_u64(a, b) + c; })
TERNARY_IN(mad, hi, s64,
           [](s64 a, s64 b, s64 c) { return low<s64>(s128(high<s64>(s128(a) * b)) + c); })
INSTRUCTION3(mad_hi_sat, "mad.hi.sat.s32 %0, %1, %2, %3;", s32, s32, s32, s32,
             [](s32 a, s32 b, s32 c) { return clamped<s32>(s128(high<s32>(s128(a) * b)) + c); })
INSTRUCTION3(mad_wide_u16, "mad.wide.u16 %0, %1, %2, %3;", u32, u16, u16, u32,
             [](u16 a, u16 b, u32 c) { return low<u32>(s128(a) * b + c); })
INSTRUCTION3(mad_wide_s16, "mad.wide.s16 %0, %1, %2, %3;", s32, s16, s16, s32,
             [](s16 a, s16 b, s32 c) { return low<s32>(s128(a) * b + c); })
INSTRUCTION3(mad_wide_u32, "mad.wide.u32 %0, %1, %2, %3;", u64, u32, u32, u64,
             [](u32 a, u32 b, u64 c) { return low<u64>(s128(a) * b + c); })
INSTRUCTION3(mad_wide_s32, "mad.wide.s32 %0, %1, %2, %3;", s64, s32, s32, s64,
             [](s32 a, s32 b, s64 c) { return low<s64>(s128(a) * b + c); })

// 24-bit: the low 24 bits of each factor; .hi gives bits 16 to 47 of the product.
constexpr s64 low24(s32 x) { return (s64(x) << 40) >> 40; }
BINARY_IN(mul24, lo, u32, [](u32 a, u32 b) { return u32(u64(a % (1 << 24)) * (b % (1 << 24))); })
BINARY_IN(mul24, lo, s32, [](s32 a, s32 b) { return s32(low24(a) * low24(b)); })
BINARY_IN(mul24, hi, u32,
          [](u32 a, u32 b) { return u32(u64(a % (1 << 24)) * (b % (1 << 24)) >> 16); })
BINARY_IN(mul24, hi, s32, [](s32 a, s32 b) { return s32(low24(a) * low24(b) >> 16); })
TERNARY_IN(mad24, lo, u32,
           [](u32 a, u32 b, u32 c) { return u32(u64(a % (1 << 24)) * (b % (1 << 24)) + c); })
TERNARY_IN(mad24, lo, s32, [](s32 a, s32 b, s32 c) { return s32(low24(a) * low24(b) + c); })
TERNARY_IN(mad24, hi, u32,
           [](u32 a, u32 b, u32 c) { return u32(u64(a % (1 << 24)) * (b % (1 << 24)) >> 16) + c; })
TERNARY_IN(mad24, hi, s32,
           [](s32 a, s32 b, s32 c) { return low<s32>(s128(s32(low24(a) * low24(b) >> 16)) + c); })
INSTRUCTION3(mad24_hi_sat, "mad24.hi.sat.s32 %0, %1, %2, %3;", s32, s32, s32, s32,
             [](s32 a, s32 b, s32 c) {
               return clamped<s32>(s128(s32(low24(a) * low24(b) >> 16)) + c);
             })

template <class T> T distance_added(T a, T b, T c) {
  s128 const d = s128(a) - b;
  return low<T>((d < 0 ? -d : d) + c);
}
#define SAD(T) INSTRUCTION3(sad_##T, "sad." #T " %0, %1, %2, %3;", T, T, T, T, distance_added<T>)
SAD(u16)
SAD(u32)
SAD(u64)
SAD(s16)
SAD(s32)
SAD(s64)

// Division by zero is undefined, a division that overflows wraps.
template <class T> bool is_quotient(T q, T a, T b) { return b == 0 || q == low<T>(s128(a) / b); }
template <class T> bool is_remainder(T r, T a, T b) { return b == 0 || r == low<T>(s128(a) % b); }
#define DIVISION(T)              \
  BINARY(div, T, is_quotient<T>) \
  BINARY(rem, T, is_remainder<T>)
DIVISION(u16)
DIVISION(u32)
DIVISION(u64)
DIVISION(s16)
DIVISION(s32)
DIVISION(s64)

#define SIGNS(T)                                                 \
  INSTRUCTION1(abs_##T, "abs." #T " %0, %1;", T, T,              \
               [](T a) { return a < 0 ? low<T>(-s128(a)) : a; }) \
  INSTRUCTION1(neg_##T, "neg." #T " %0, %1;", T, T, [](T a) { return low<T>(-s128(a)); })
SIGNS(s16)
SIGNS(s32)
SIGNS(s64)

#define EXTREMES(T)                                      \
  BINARY(min, T, [](T a, T b) { return b < a ? b : a; }) \
  BINARY(max, T, [](T a, T b) { return a < b ? b : a; })
EXTREMES(u16)
EXTREMES(u32)
EXTREMES(u64)
EXTREMES(s16)
EXTREMES(s32)
EXTREMES(s64)

// Dot products of bytes: four of each, or two words with two bytes of the other.
template <class A, class B> u32 dot4(u32 a, u32 b, u32 c) {
  s64 sum = 0;
  for (int i = 0; i < 4; ++i) sum += s64(A(a >> 8 * i)) * B(b >> 8 * i);
  return u32(sum) + c;
}
template <class A, class B, int Half> u32 dot2(u32 a, u32 b, u32 c) {
  s64 sum = 0;
  for (int i = 0; i < 2; ++i) sum += s64(A(a >> 16 * i)) * B(b >> 8 * (2 * Half + i));
  return u32(sum) + c;
}
#define DOT4(a, b, A, B) \
  INSTRUCTION3(dp4a_##a##_##b, "dp4a." #a "." #b " %0, %1, %2, %3;", u32, u32, u32, u32, dot4<A, B>)
DOT4(u32, u32, u8, u8)
DOT4(u32, s32, u8, s8)
DOT4(s32, u32, s8, u8)
DOT4(s32, s32, s8, s8)
#define DOT2(part, half, a, b, A, B)                                                              \
  INSTRUCTION3(dp2a_##part##_##a##_##b, "dp2a." #part "." #a "." #b " %0, %1, %2, %3;", u32, u32, \
               u32, u32, dot2<A, B, half>)
DOT2(lo, 0, u32, u32, u16, u8)
DOT2(lo, 0, u32, s32, u16, s8)
DOT2(lo, 0, s32, u32, s16, u8)
DOT2(lo, 0, s32, s32, s16, s8)
DOT2(hi, 1, u32, u32, u16, u8)
DOT2(hi, 1, s32, s32, s16, s8)

// Distances of four bytes, and their sum.
template <class T, bool Add> u32 distances(u32 a, u32 b, u32 c) {
  u32 bytes = 0;
  for (int i = 0; i < 4; ++i) {
    int const x = T(a >> 8 * i), y = T(b >> 8 * i);
    bytes |= u32(u8(x > y ? x - y : y - x)) << 8 * i;
    c += u32(x > y ? x - y : y - x);
  }
  return Add ? c : bytes;
}
INSTRUCTION3(vabsdiff4_u32, "vabsdiff4.u32.u32.u32 %0, %1, %2, %3;", u32, u32, u32, u32,
             (distances<u8, false>))
INSTRUCTION3(vabsdiff4_u32_add, "vabsdiff4.u32.u32.u32.add %0, %1, %2, %3;", u32, u32, u32, u32,
             (distances<u8, true>))
INSTRUCTION3(vabsdiff4_s32_add, "vabsdiff4.u32.s32.s32.add %0, %1, %2, %3;", u32, u32, u32, u32,
             (distances<s8, true>))

// Carries. Each chain ends in a word that shows the carry.
INSTRUCTION2(add_cc, "add.cc.u32 %0, %1, %2; addc.u32 %0, %0, 0;", u32, u32, u32,
             [](u32 a, u32 b) { return u32((u64(a) + b) + ((u64(a) + b) >> 32)); })
INSTRUCTION2(add_cc_u64, "add.cc.u64 %0, %1, %2; addc.u64 %0, %0, 0;", u64, u64, u64,
             [](u64 a, u64 b) { return a + b + (a + b < a); })
INSTRUCTION2(sub_cc, "sub.cc.s32 %0, %1, %2; subc.s32 %0, %0, 0;", u32, u32, u32,
             [](u32 a, u32 b) { return a - b - (a < b); })
INSTRUCTION4(add_two_words,
             "{.reg .u32 l, h; add.cc.u32 l, %1, %2; addc.u32 h, %3, %4; mov.b64 %0, {l, h};}", u64,
             u32, u32, u32, u32,
             [](u32 a, u32 b, u32 c, u32 d) { return (u64(c) << 32 | a) + (u64(d) << 32 | b); })
INSTRUCTION4(sub_two_words,
             "{.reg .u32 l, h; sub.cc.u32 l, %1, %2; subc.u32 h, %3, %4; mov.b64 %0, {l, h};}", u64,
             u32, u32, u32, u32,
             [](u32 a, u32 b, u32 c, u32 d) { return (u64(c) << 32 | a) - (u64(d) << 32 | b); })
INSTRUCTION4(carry_out_of_addc,
             "{.reg .u32 x; add.cc.u32 x, %1, %2; addc.cc.u32 x, %3, %4; addc.u32 %0, 0, 0;}", u32,
             u32, u32, u32, u32, [](u32 a, u32 b, u32 c, u32 d) {
               return u32((u64(c) + d + (u64(a) + b >> 32)) >> 32);
             })
INSTRUCTION4(borrow_out_of_subc,
             "{.reg .u32 x; sub.cc.u32 x, %1, %2; subc.cc.u32 x, %3, %4; subc.u32 %0, 0, 0;}", u32,
             u32, u32, u32, u32,
             [](u32 a, u32 b, u32 c, u32 d) { return s64(c) - s64(d) - (a < b) < 0 ? ~0u : 0u; })
// A 64-bit product from 32-bit words, as a multi-word multiplication writes it.
INSTRUCTION4(mad_cc,
             "{.reg .u32 l, h; mad.lo.cc.u32 l, %1, %2, %3; madc.hi.u32 h, %1, %2, %4;"
             " mov.b64 %0, {l, h};}",
             u64, u32, u32, u32, u32,
             [](u32 a, u32 b, u32 c, u32 d) { return u64(a) * b + (u64(d) << 32 | c); })
INSTRUCTION4(carry_out_of_madc,
             "{.reg .u32 x; mad.hi.cc.u32 x, %1, %2, %3; madc.lo.cc.u32 x, %1, %2, %4;"
             " addc.u32 %0, x, 0;}",
             u32, u32, u32, u32, u32, [](u32 a, u32 b, u32 c, u32 d) {
               u64 const first = (u64(a) * b >> 32) + c;
               u64 const second = u64(u32(u64(a) * b)) + d + (first >> 32);
               return u32(second) + u32(second >> 32);
             })

// Two 16-bit integers in a word.
template <class T, class F> u32 halves(u32 a, u32 b, F f) {
  return u32(u16(f(T(a), T(b)))) | u32(u16(f(T(a >> 16), T(b >> 16)))) << 16;
}
INSTRUCTION2(add_u16x2, "add.u16x2 %0, %1, %2;", u32, u32, u32,
             [](u32 a, u32 b) { return halves<u16>(a, b, [](u16 x, u16 y) { return x + y; }); })
INSTRUCTION2(min_u16x2, "min.u16x2 %0, %1, %2;", u32, u32, u32, [](u32 a, u32 b) {
  return halves<u16>(a, b, [](u16 x, u16 y) { return x < y ? x : y; });
})
INSTRUCTION2(max_s16x2, "max.s16x2 %0, %1, %2;", u32, u32, u32, [](u32 a, u32 b) {
  return halves<s16>(a, b, [](s16 x, s16 y) { return x > y ? x : y; });
})
INSTRUCTION2(min_relu_s16x2, "min.relu.s16x2 %0, %1, %2;", u32, u32, u32, [](u32 a, u32 b) {
  return halves<s16>(a, b, [](s16 x, s16 y) { return x < 0 || y < 0 ? 0 : x < y ? x : y; });
})
INSTRUCTION2(max_relu_s32, "max.s32.relu %0, %1, %2;", s32, s32, s32, [](s32 a, s32 b) {
  return a < 0 && b < 0 ? 0 : a > b ? a : b;
})

}  // namespace instructions_integer_test
}  // namespace instruction_check
