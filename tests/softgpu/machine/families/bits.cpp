// Logic, shifts and bit fields: PTX manual, "Logic and Shift Instructions" and the bit instructions.
#include <bit>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

constexpr auto and_of = []<class T>(T a, T b) { return static_cast<T>(a & b); };
constexpr auto or_of = []<class T>(T a, T b) { return static_cast<T>(a | b); };
constexpr auto xor_of = []<class T>(T a, T b) { return static_cast<T>(a ^ b); };
constexpr auto not_of = []<class T>(T a) { return static_cast<T>(~a); };
constexpr auto cnot_of = []<class T>(T a) { return static_cast<T>(a == 0); };

// Shift amounts past the width clamp to the width.
template <class T>
constexpr auto shl_of = [](T a, u32 n) {
  constexpr u32 bits = sizeof(T) * 8;
  return n >= bits ? T{0} : static_cast<T>(static_cast<u64>(a) << n);
};
template <class T>
constexpr auto shr_of = [](T a, u32 n) {
  constexpr u32 bits = sizeof(T) * 8;
  if constexpr (std::is_signed_v<T>)
    return static_cast<T>(a >> (n >= bits ? bits - 1 : n));
  else
    return n >= bits ? T{0} : static_cast<T>(a >> n);
};

template <class T> bool left(builder& b) {
  return matches<T>(b.type()) && (emit2<shl_of<T>, T, T, u32>(b), true);
}
template <class T> bool right(builder& b) {
  return matches<T>(b.type()) && (emit2<shr_of<T>, T, T, u32>(b), true);
}
void build_shl(builder& b) {
  if (!(left<u16>(b) || left<u32>(b) || left<u64>(b))) no_such_type(b);
}
void build_shr(builder& b) {
  if (!(right<u16>(b) || right<u32>(b) || right<u64>(b) || right<s16>(b) || right<s32>(b) ||
        right<s64>(b)))
    no_such_type(b);
}

constexpr auto shf_l_wrap = [](u32 a, u32 b, u32 n) {
  return static_cast<u32>((((u64{b} << 32) | a) << (n & 31)) >> 32);
};
constexpr auto shf_l_clamp = [](u32 a, u32 b, u32 n) {
  return static_cast<u32>((((u64{b} << 32) | a) << (n > 32 ? 32 : n)) >> 32);
};
constexpr auto shf_r_wrap = [](u32 a, u32 b, u32 n) {
  return static_cast<u32>(((u64{b} << 32) | a) >> (n & 31));
};
constexpr auto shf_r_clamp = [](u32 a, u32 b, u32 n) {
  return static_cast<u32>(((u64{b} << 32) | a) >> (n > 32 ? 32 : n));
};

constexpr auto popc_of = []<class T>(T a) { return static_cast<u32>(std::popcount(a)); };
constexpr auto clz_of = []<class T>(T a) { return static_cast<u32>(std::countl_zero(a)); };
constexpr auto brev_of = []<class T>(T a) {
  u64 r = a;
  r = (r >> 1 & 0x5555555555555555u) | (r & 0x5555555555555555u) << 1;
  r = (r >> 2 & 0x3333333333333333u) | (r & 0x3333333333333333u) << 2;
  r = (r >> 4 & 0x0f0f0f0f0f0f0f0fu) | (r & 0x0f0f0f0f0f0f0f0fu) << 4;
  r = __builtin_bswap64(r);
  return static_cast<T>(sizeof(T) == 8 ? r : r >> 32);
};

template <auto F> void count_bits(builder& b) {  // the result has 32 bits whatever the source
  b.type().bits == 64 ? emit1<F, u32, u64>(b) : emit1<F, u32, u32>(b);
}

// bfind: the highest bit that differs from the sign; .shiftamt: how far to shift it to the top.
template <bool Amount, class T>
constexpr auto find_bit = [](T a) {
  using plain = std::make_unsigned_t<T>;
  plain const x = static_cast<plain>(std::is_signed_v<T> && a < 0 ? ~a : a);
  if (x == 0) return ~u32{0};
  u32 const from_top = static_cast<u32>(std::countl_zero(x));
  return Amount ? from_top : u32{sizeof(T) * 8 - 1} - from_top;
};
template <class T> bool bfind_as(builder& b) {
  if (!matches<T>(b.type())) return false;
  b.has("shiftamt") ? emit1<find_bit<true, T>, u32, T>(b) : emit1<find_bit<false, T>, u32, T>(b);
  return true;
}
void build_bfind(builder& b) {
  if (!(bfind_as<u32>(b) || bfind_as<s32>(b) || bfind_as<u64>(b) || bfind_as<s64>(b)))
    no_such_type(b);
}

template <class T>
constexpr auto extract = [](T a, u32 position, u32 length) {
  constexpr u32 bits = sizeof(T) * 8;
  u32 const pos = position & 0xff, len = length & 0xff;
  using plain = std::make_unsigned_t<T>;
  plain const x = static_cast<plain>(a);
  plain const field = pos >= bits ? plain{0} : static_cast<plain>(x >> pos);
  bool sign = false;
  if constexpr (std::is_signed_v<T>) {
    u32 const top = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    sign = len != 0 && (x >> top & 1) != 0;
  }
  if (len == 0) return T{0};
  // Bits past the field, or past the word, are copies of the sign.
  u32 const valid = pos >= bits ? 0 : (len < bits - pos ? len : bits - pos);
  plain const mask = valid >= bits ? ~plain{0} : static_cast<plain>((plain{1} << valid) - 1);
  return static_cast<T>((field & mask) | (sign ? static_cast<plain>(~mask) : plain{0}));
};
template <class T> bool bfe_as(builder& b) {
  return matches<T>(b.type()) && (emit3<extract<T>, T, T, u32, u32>(b), true);
}
void build_bfe(builder& b) {
  if (!(bfe_as<u32>(b) || bfe_as<s32>(b) || bfe_as<u64>(b) || bfe_as<s64>(b))) no_such_type(b);
}

// Four sources: the fourth, the length, is the op's first extra.
template <class T> void insert(warp& w, op const& o) {
  T* const d = w.row<T>(o.d);
  T const *a = w.row<T>(o.a), *b = w.row<T>(o.b);
  u32 const *position = w.row<u32>(o.c),
            *length = w.row<u32>(w.here.code->extras[std::size_t(o.extra)]);
  constexpr u32 bits = sizeof(T) * 8;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    u32 const pos = position[i] & 0xff, len = length[i] & 0xff;
    if (pos >= bits || len == 0) {
      d[i] = b[i];
      continue;
    }
    u32 const valid = len < bits - pos ? len : bits - pos;
    T const mask =
        static_cast<T>((valid >= bits ? ~T{0} : static_cast<T>((T{1} << valid) - 1)) << pos);
    d[i] = static_cast<T>((b[i] & ~mask) | (static_cast<T>(a[i] << pos) & mask));
  }
}
template <class T> void bfi_as(builder& b) {
  ref const d = b.output(0, scalar_of<T>()), a = b.input(1, scalar_of<T>());
  ref const base = b.input(2, scalar_of<T>());
  ref const position = b.input(3, {'u', 32}), length = b.input(4, {'u', 32});
  op& o = b.emit(&insert<T>);
  o.d = d, o.a = a, o.b = base, o.c = position;
  b.extra(o, length);
}
void build_bfi(builder& b) { b.type().bits == 64 ? bfi_as<u64>(b) : bfi_as<u32>(b); }

// bmsk: a run of ones of a length from a position.
constexpr auto mask_clamp = [](u32 position, u32 length) {
  u32 const below = position >= 32 ? ~u32{0} : (u32{1} << position) - 1;
  u64 const end = u64{position} + length;
  u32 const under_end = end >= 32 ? ~u32{0} : (u32{1} << end) - 1;
  return under_end & ~below;
};
constexpr auto mask_wrap = [](u32 position, u32 length) {
  u32 const p = position & 31, n = length & 31;
  return ((u32{1} << n) - 1) << p;
};

// szext: the low n bits, extended by zeros or by their highest.
template <class T, bool Clamp>
constexpr auto extend = [](T a, u32 length) {
  if (Clamp && length >= 32) return a;
  u32 const n = length & 31;
  if (n == 0) return T{0};
  return static_cast<T>(static_cast<T>(static_cast<u32>(a) << (32 - n)) >> (32 - n));
};
template <bool Clamp> void build_szext(builder& b) {
  b.type().kind == 's' ? emit2<extend<s32, Clamp>, s32, s32, u32>(b)
                       : emit2<extend<u32, Clamp>, u32, u32, u32>(b);
}

// fns: the n-th set bit of a mask from a base on, downward where n is negative.
constexpr auto find_set = [](u32 mask, u32 base, s32 n) {
  if (base > 31) return ~u32{0};
  if (n == 0) return (mask >> base & 1) != 0 ? base : ~u32{0};
  s64 left = n > 0 ? n : -s64{n};
  for (int i = static_cast<int>(base); i >= 0 && i < 32; i += n > 0 ? 1 : -1)
    if ((mask >> i & 1) != 0 && --left == 0) return static_cast<u32>(i);
  return ~u32{0};
};

// lop3: the truth table is an immediate. The common tables are recognized by the compiler's loop.
template <class = void> void lop3(warp& w, op const& o) {
  u32* const d = w.row<u32>(o.d);
  u32 const *a = w.row<u32>(o.a), *b = w.row<u32>(o.b), *c = w.row<u32>(o.c);
  u32 t[8];
  for (int k = 0; k < 8; ++k) t[k] = (o.value >> k & 1) != 0 ? ~u32{0} : 0u;
  lane_mask const m = w.mask | w.idle;
  for (int i = 0; i < lanes_per_warp; ++i) {
    u32 const x = a[i], y = b[i], z = c[i];
    u32 const low = (~y & ((~z & t[0]) | (z & t[1]))) | (y & ((~z & t[2]) | (z & t[3])));
    u32 const high = (~y & ((~z & t[4]) | (z & t[5]))) | (y & ((~z & t[6]) | (z & t[7])));
    u32 const r = (~x & low) | (x & high);
    d[i] = (m >> i & 1) != 0 ? r : d[i];
  }
}
// lop3.or, lop3.and: p is whether the result is not zero, combined with q.
void lop3_predicate(warp& w, op const& o) {
  lop3<>(w, o);
  ref const* const extras = w.here.code->extras.data() + o.extra;
  u32 const* const d = w.row<u32>(o.d);
  lane_mask found = 0;
  for (int i = 0; i < lanes_per_warp; ++i) found |= lane_mask{d[i] != 0} << i;
  lane_mask const q = w.predicate(extras[1]) ^ o.aux;
  lane_mask& p = w.predicate(extras[0]);
  p = (p & ~w.mask) | ((o.flags != 0 ? found | q : found & q) & w.mask);
}
void build_lop3_predicate(builder& b) {
  ptx::operand const& to = b.operand(0);
  if (to.kind != ptx::operand_kind::pair) b.fail("lop3 with an operator needs d|p");
  if (b.operand(4).kind != ptx::operand_kind::integer) b.fail("the truth table is no number");
  ref const d = b.output(to.parts[0], {'b', 32}), p = b.predicate_output(to.parts[1]);
  ref const a = b.input(1, {'b', 32}), second = b.input(2, {'b', 32}),
            third = b.input(3, {'b', 32});
  u32 flip = 0;
  ref const q = b.predicate_input(b.operand(5), flip);
  op& o = b.emit(&lop3_predicate);
  o.d = d, o.a = a, o.b = second, o.c = third, o.aux = flip, o.flags = b.has("or");
  o.value = b.operand(4).value;
  b.extra(o, p);
  b.extra(o, q);
}
void build_lop3(builder& b) {
  ref const d = b.output(0, {'b', 32}), a = b.input(1, {'b', 32}), second = b.input(2, {'b', 32}),
            third = b.input(3, {'b', 32});
  if (b.operand(4).kind != ptx::operand_kind::integer) b.fail("the truth table is no number");
  op& o = b.emit(&lop3<>);
  o.d = d, o.a = a, o.b = second, o.c = third;
  o.value = b.operand(4).value;
}

// prmt: bytes of {b, a} by the selector's nibbles; bit 3 of a nibble replicates the byte's sign.
constexpr auto permute = [](u32 a, u32 b, u32 selector) {
  u64 const bytes = (u64{b} << 32) | a;
  u32 r = 0;
  for (u32 i = 0; i < 4; ++i) {
    u32 const s = selector >> (4 * i) & 15;
    u32 byte = static_cast<u32>(bytes >> (8 * (s & 7))) & 0xff;
    if (s & 8) byte = (byte & 0x80) != 0 ? 0xff : 0;
    r |= byte << (8 * i);
  }
  return r;
};
template <int Mode>
constexpr auto permute_mode = [](u32 a, u32 b, u32 c) {
  // f4e, b4e, rc8, ecl, ecr, rc16: the selector nibbles by the two low bits of c.
  constexpr u32 selectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
      {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
      {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  return permute(a, b, selectors[Mode][c & 3]);
};
template <int Mode> void build_prmt(builder& b) {
  emit3<permute_mode<Mode>, u32, u32, u32, u32>(b);
}

// Logic on predicates: one word holds the lanes.
template <char Operation> void predicates(warp& w, op const& o) {
  lane_mask const a = w.predicate(o.a) ^ (o.aux & 1 ? all_lanes : 0);
  lane_mask const b = w.predicate(o.b) ^ (o.aux & 2 ? all_lanes : 0);
  lane_mask const r = Operation == '&'   ? a & b
                      : Operation == '|' ? a | b
                      : Operation == '^' ? a ^ b
                                         : ~a;
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (r & w.mask);
}
template <char Operation> void build_predicates(builder& b) {
  std::uint32_t flip_a = 0, flip_b = 0;
  ref const d = b.predicate_output(b.operand(0)), a = b.predicate_input(b.operand(1), flip_a);
  ref const second = b.operand_count() > 2 ? b.predicate_input(b.operand(2), flip_b) : b.always();
  op& o = b.emit(&predicates<Operation>);
  o.d = d, o.a = a, o.b = second;
  o.aux = (flip_a & 1) | (flip_b & 2);
}

constexpr form rows[] = {
    {"and.b16|b32|b64 d, a, b", kind::integer, binary<and_of, u16, u32, u64>},
    {"or.b16|b32|b64 d, a, b", kind::integer, binary<or_of, u16, u32, u64>},
    {"xor.b16|b32|b64 d, a, b", kind::integer, binary<xor_of, u16, u32, u64>},
    {"not.b16|b32|b64 d, a", kind::integer, unary<not_of, u16, u32, u64>},
    {"and.pred d, a, b", kind::integer, build_predicates<'&'>},
    {"or.pred d, a, b", kind::integer, build_predicates<'|'>},
    {"xor.pred d, a, b", kind::integer, build_predicates<'^'>},
    {"not.pred d, a", kind::integer, build_predicates<'!'>},
    {"cnot.b16|b32|b64 d, a", kind::integer, unary<cnot_of, u16, u32, u64>},
    {"lop3.b32 d, a, b, c, t", kind::integer, build_lop3},
    {"lop3.or|and.b32 d, a, b, c, t, q", kind::integer, build_lop3_predicate},
    {"shl.b16|b32|b64 d, a, n", kind::integer, build_shl},
    {"shr.b16|b32|b64|u16|u32|u64|s16|s32|s64 d, a, n", kind::integer, build_shr},
    {"shf.l.wrap.b32 d, a, b, n", kind::integer, emit3<shf_l_wrap, u32, u32, u32, u32>},
    {"shf.l.clamp.b32 d, a, b, n", kind::integer, emit3<shf_l_clamp, u32, u32, u32, u32>},
    {"shf.r.wrap.b32 d, a, b, n", kind::integer, emit3<shf_r_wrap, u32, u32, u32, u32>},
    {"shf.r.clamp.b32 d, a, b, n", kind::integer, emit3<shf_r_clamp, u32, u32, u32, u32>},
    {"popc.b32|b64 d, a", kind::integer, count_bits<popc_of>},
    {"clz.b32|b64 d, a", kind::integer, count_bits<clz_of>},
    {"brev.b32|b64 d, a", kind::integer, unary<brev_of, u32, u64>},
    {"bfind{.shiftamt}.u32|s32|u64|s64 d, a", kind::integer, build_bfind},
    {"bfe.u32|s32|u64|s64 d, a, p, n", kind::integer, build_bfe},
    {"bfi.b32|b64 d, a, b, p, n", kind::integer, build_bfi},
    {"bmsk.clamp.b32 d, p, n", kind::integer, emit2<mask_clamp, u32, u32, u32>},
    {"bmsk.wrap.b32 d, p, n", kind::integer, emit2<mask_wrap, u32, u32, u32>},
    {"szext.clamp.s32|u32 d, a, n", kind::integer, build_szext<true>},
    {"szext.wrap.s32|u32 d, a, n", kind::integer, build_szext<false>},
    {"fns.b32 d, m, a, n", kind::integer, emit3<find_set, u32, u32, u32, s32>},
    {"prmt.b32 d, a, b, c", kind::integer, emit3<permute, u32, u32, u32, u32>},
    {"prmt.b32.f4e d, a, b, c", kind::integer, build_prmt<0>},
    {"prmt.b32.b4e d, a, b, c", kind::integer, build_prmt<1>},
    {"prmt.b32.rc8 d, a, b, c", kind::integer, build_prmt<2>},
    {"prmt.b32.ecl d, a, b, c", kind::integer, build_prmt<3>},
    {"prmt.b32.ecr d, a, b, c", kind::integer, build_prmt<4>},
    {"prmt.b32.rc16 d, a, b, c", kind::integer, build_prmt<5>},
};

}  // namespace

std::span<form const> bits() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
