// Integer arithmetic: PTX manual, "Integer Arithmetic Instructions" and "Extended-Precision".
#include <limits>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

template <class T> using unsigned_of = std::make_unsigned_t<T>;

// Wraps around in unsigned arithmetic at least 32 bits wide: no overflow, no promotion self_information.
template <class T> constexpr auto up(T x) {
  if constexpr (sizeof(T) < 4)
    return static_cast<u32>(static_cast<s32>(x));
  else
    return static_cast<unsigned_of<T>>(x);
}

constexpr auto add = []<class T>(T a, T b) { return static_cast<T>(up(a) + up(b)); };
constexpr auto sub = []<class T>(T a, T b) { return static_cast<T>(up(a) - up(b)); };
constexpr auto mul_lo = []<class T>(T a, T b) { return static_cast<T>(up(a) * up(b)); };
constexpr auto mad_lo = []<class T>(T a, T b, T c) {
  return static_cast<T>(up(a) * up(b) + up(c));
};
constexpr auto neg = []<class T>(T a) { return static_cast<T>(0 - up(a)); };
constexpr auto abs_of = []<class T>(T a) { return static_cast<T>(a < 0 ? 0 - up(a) : up(a)); };
constexpr auto min_of = []<class T>(T a, T b) { return a < b ? a : b; };
constexpr auto max_of = []<class T>(T a, T b) { return a > b ? a : b; };

constexpr auto add_sat = [](s32 a, s32 b) {
  s64 const r = s64{a} + b;
  return static_cast<s32>(r > 0x7fffffff ? 0x7fffffff : r < -0x7fffffff - 1 ? -0x7fffffff - 1 : r);
};
constexpr auto sub_sat = [](s32 a, s32 b) {
  s64 const r = s64{a} - b;
  return static_cast<s32>(r > 0x7fffffff ? 0x7fffffff : r < -0x7fffffff - 1 ? -0x7fffffff - 1 : r);
};

constexpr auto mul_hi = []<class T>(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    using wide_t = std::conditional_t<std::is_signed_v<T>, s128, u128>;
    return static_cast<T>((static_cast<wide_t>(a) * static_cast<wide_t>(b)) >> 64);
  } else {
    using wide_t = std::conditional_t<std::is_signed_v<T>, s64, u64>;
    return static_cast<T>((static_cast<wide_t>(a) * static_cast<wide_t>(b)) >> (sizeof(T) * 8));
  }
};
constexpr auto mad_hi = []<class T>(T a, T b, T c) {
  return static_cast<T>(up(mul_hi(a, b)) + up(c));
};

// Division by zero has no defined result; a GPU gives all ones, and the dividend as remainder.
constexpr auto div_of = []<class T>(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(0 - up(a));
  return static_cast<T>(a / b);
};
constexpr auto rem_of = []<class T>(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(0);
  return static_cast<T>(a % b);
};

template <class T>
using twice = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
                                 std::conditional_t<std::is_signed_v<T>, s64, u64>>;

template <class T>
constexpr auto mul_wide = [](T a, T b) {
  return static_cast<twice<T>>(static_cast<twice<T>>(a) * static_cast<twice<T>>(b));
};
template <class T>
constexpr auto mad_wide =
    [](T a, T b, twice<T> c) { return static_cast<twice<T>>(up(mul_wide<T>(a, b)) + up(c)); };

template <class T> bool wide_mul(builder& b) {
  return matches<T>(b.type()) && (emit2<mul_wide<T>, twice<T>, T, T>(b), true);
}
template <class T> bool wide_mad(builder& b) {
  return matches<T>(b.type()) && (emit3<mad_wide<T>, twice<T>, T, T, twice<T>>(b), true);
}
void build_mul_wide(builder& b) {
  if (!(wide_mul<u16>(b) || wide_mul<s16>(b) || wide_mul<u32>(b) || wide_mul<s32>(b)))
    no_such_type(b);
}
void build_mad_wide(builder& b) {
  if (!(wide_mad<u16>(b) || wide_mad<s16>(b) || wide_mad<u32>(b) || wide_mad<s32>(b)))
    no_such_type(b);
}

constexpr auto sad_of = []<class T>(T a, T b, T c) {
  return static_cast<T>(up(c) + (a < b ? up(b) - up(a) : up(a) - up(b)));
};

// 24 bits: the product of the low 24 bits of each; .hi gives its bits 16 to 47.
template <class T> constexpr s64 mul24(T a, T b) {
  if constexpr (std::is_signed_v<T>)
    return s64{s32(u32(a) << 8) >> 8} * s64{s32(u32(b) << 8) >> 8};
  else
    return static_cast<s64>(u64{a & 0xffffff} * u64{b & 0xffffff});
}
constexpr auto mul24_lo = []<class T>(T a, T b) { return static_cast<T>(mul24(a, b)); };
constexpr auto mul24_hi = []<class T>(T a, T b) { return static_cast<T>(mul24(a, b) >> 16); };
constexpr auto mad24_lo = []<class T>(T a, T b, T c) {
  return static_cast<T>(u32(mul24(a, b)) + u32(c));
};
constexpr auto mad24_hi = []<class T>(T a, T b, T c) {
  return static_cast<T>(u32(mul24(a, b) >> 16) + u32(c));
};
constexpr auto mad24_hi_sat = [](s32 a, s32 b, s32 c) {
  return add_sat(static_cast<s32>(mul24(a, b) >> 16), c);
};
constexpr auto mad_hi_sat = [](s32 a, s32 b, s32 c) { return add_sat(mul_hi(a, b), c); };

// dp4a: four products of bytes added to c; dp2a: of two words of a and the lower or upper two bytes
// of b. Signed or unsigned by the two type modifiers.
template <class A, class B>
constexpr auto dot4 = [](u32 a, u32 b, u32 c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<u32>(s32(A(a >> i)) * s32(B(b >> i)));
  return c;
};
template <int Shift, class A, class B>
constexpr auto dot2 = [](u32 a, u32 b, u32 c) {
  for (int i = 0; i < 2; ++i)
    c += static_cast<u32>(s32(A(a >> (16 * i))) * s32(B(b >> (Shift + 8 * i))));
  return c;
};
template <class A, class B> void dot(builder& b) {
  if (b.in->opcode == "dp4a")
    emit3<dot4<A, B>, u32, u32, u32, u32>(b);
  else if (b.has("hi"))
    emit3<dot2<16, std::conditional_t<std::is_signed_v<A>, s16, u16>, B>, u32, u32, u32, u32>(b);
  else
    emit3<dot2<0, std::conditional_t<std::is_signed_v<A>, s16, u16>, B>, u32, u32, u32, u32>(b);
}
void build_dot(builder& b) {
  bool const a_signed = b.type_word(1) == "s32", b_signed = b.type_word(0) == "s32";
  if (a_signed)
    b_signed ? dot<s8, s8>(b) : dot<s8, u8>(b);
  else
    b_signed ? dot<u8, s8>(b) : dot<u8, u8>(b);
}

// vabsdiff4: distances of bytes; .add adds them all to c.
template <class A, class B, bool Add>
constexpr auto distances = [](u32 a, u32 b, u32 c) {
  u32 sum = c, bytes = 0;
  for (int i = 0; i < 32; i += 8) {
    s32 const d = s32(A(a >> i)) - s32(B(b >> i));
    u32 const distance = static_cast<u32>(d < 0 ? -d : d);
    sum += distance;
    bytes |= (distance & 255) << i;
  }
  return Add ? sum : bytes;
};
template <class A, class B> void distances_of(builder& b) {
  b.has("add") ? emit3<distances<A, B, true>, u32, u32, u32, u32>(b)
               : emit3<distances<A, B, false>, u32, u32, u32, u32>(b);
}
void build_distances(builder& b) {
  bool const a_signed = b.type_word(1) == "s32", b_signed = b.type_word(0) == "s32";
  if (a_signed != b_signed) b.fail("bytes of different signs are not supported here");
  a_signed ? distances_of<s8, s8>(b) : distances_of<u8, u8>(b);
}

// Two 16-bit integers in a word.
template <auto F, class T>
constexpr auto halves = [](u32 a, u32 b) {
  u32 const low = static_cast<u16>(F(static_cast<T>(a), static_cast<T>(b)));
  u32 const high = static_cast<u16>(F(static_cast<T>(a >> 16), static_cast<T>(b >> 16)));
  return low | high << 16;
};
constexpr auto min_relu = []<class T>(T a, T b) { return max_of(min_of(a, b), T{0}); };
constexpr auto max_relu = []<class T>(T a, T b) { return max_of(max_of(a, b), T{0}); };
template <auto F> void pair(builder& b) {
  b.type_word() == "s16x2" ? emit2<halves<F, s16>, u32, u32, u32>(b)
                           : emit2<halves<F, u16>, u32, u32, u32>(b);
}

constexpr form rows[] = {
    {"add.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<add, u16, u32, u64, s16, s32, s64>},
    {"add.sat.s32 d, a, b", kind::integer, emit2<add_sat, s32, s32, s32>},
    {"sub.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<sub, u16, u32, u64, s16, s32, s64>},
    {"sub.sat.s32 d, a, b", kind::integer, emit2<sub_sat, s32, s32, s32>},
    {"mul.lo.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<mul_lo, u16, u32, u64, s16, s32, s64>},
    {"mul.hi.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<mul_hi, u16, u32, u64, s16, s32, s64>},
    {"mul.wide.u16|u32|s16|s32 d, a, b", kind::integer, build_mul_wide},
    {"mad.lo.u16|u32|u64|s16|s32|s64 d, a, b, c", kind::integer,
     ternary<mad_lo, u16, u32, u64, s16, s32, s64>},
    {"mad.hi.u16|u32|u64|s16|s32|s64 d, a, b, c", kind::integer,
     ternary<mad_hi, u16, u32, u64, s16, s32, s64>},
    {"mad.hi.sat.s32 d, a, b, c", kind::integer, emit3<mad_hi_sat, s32, s32, s32, s32>},
    {"mad.wide.u16|u32|s16|s32 d, a, b, c", kind::integer, build_mad_wide},
    {"mul24.lo.u32|s32 d, a, b", kind::integer, binary<mul24_lo, u32, s32>},
    {"mul24.hi.u32|s32 d, a, b", kind::integer, binary<mul24_hi, u32, s32>},
    {"mad24.lo.u32|s32 d, a, b, c", kind::integer, ternary<mad24_lo, u32, s32>},
    {"mad24.hi.u32|s32 d, a, b, c", kind::integer, ternary<mad24_hi, u32, s32>},
    {"mad24.hi.sat.s32 d, a, b, c", kind::integer, emit3<mad24_hi_sat, s32, s32, s32, s32>},
    {"sad.u16|u32|u64|s16|s32|s64 d, a, b, c", kind::integer,
     ternary<sad_of, u16, u32, u64, s16, s32, s64>},
    {"div.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<div_of, u16, u32, u64, s16, s32, s64>},
    {"rem.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<rem_of, u16, u32, u64, s16, s32, s64>},
    {"abs.s16|s32|s64 d, a", kind::integer, unary<abs_of, s16, s32, s64>},
    {"neg.s16|s32|s64 d, a", kind::integer, unary<neg, s16, s32, s64>},
    {"min.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<min_of, u16, u32, u64, s16, s32, s64>},
    {"max.u16|u32|u64|s16|s32|s64 d, a, b", kind::integer,
     binary<max_of, u16, u32, u64, s16, s32, s64>},
    {"dp4a.u32|s32.u32|s32 d, a, b, c", kind::integer, build_dot},
    {"dp2a.lo|hi.u32|s32.u32|s32 d, a, b, c", kind::integer, build_dot},
    {"vabsdiff4.u32.u32|s32.u32|s32{.add} d, a, b, c", kind::integer, build_distances},
    {"add.u16x2|s16x2 d, a, b", kind::integer, pair<add>},
    {"min.u16x2|s16x2 d, a, b", kind::integer, pair<min_of>},
    {"max.u16x2|s16x2 d, a, b", kind::integer, pair<max_of>},
    {"min.relu.s16x2 d, a, b", kind::integer, pair<min_relu>},
    {"min.s16x2.relu d, a, b", kind::integer, pair<min_relu>},
    {"max.relu.s16x2 d, a, b", kind::integer, pair<max_relu>},
    {"max.s16x2.relu d, a, b", kind::integer, pair<max_relu>},
    {"min.relu.s32 d, a, b", kind::integer, emit2<min_relu, s32, s32, s32>},
    {"min.s32.relu d, a, b", kind::integer, emit2<min_relu, s32, s32, s32>},
    {"max.relu.s32 d, a, b", kind::integer, emit2<max_relu, s32, s32, s32>},
    {"max.s32.relu d, a, b", kind::integer, emit2<max_relu, s32, s32, s32>},
};

}  // namespace

std::span<form const> integer() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
