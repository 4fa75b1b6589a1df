// Comparison and selection: PTX manual, "Comparison and Selection Instructions".
#include <bit>
#include <cstring>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

struct eq {
  template <class T> static bool of(T a, T b) { return a == b; }
};
struct ne {
  template <class T> static bool of(T a, T b) { return a < b || a > b; }
};  // ordered
struct lt {
  template <class T> static bool of(T a, T b) { return a < b; }
};
struct le {
  template <class T> static bool of(T a, T b) { return a <= b; }
};
struct gt {
  template <class T> static bool of(T a, T b) { return a > b; }
};
struct ge {
  template <class T> static bool of(T a, T b) { return a >= b; }
};
struct equ {
  template <class T> static bool of(T a, T b) { return !(a < b || a > b); }
};
struct neu {
  template <class T> static bool of(T a, T b) { return a != b; }
};
struct ltu {
  template <class T> static bool of(T a, T b) { return !(a >= b); }
};
struct leu {
  template <class T> static bool of(T a, T b) { return !(a > b); }
};
struct gtu {
  template <class T> static bool of(T a, T b) { return !(a <= b); }
};
struct geu {
  template <class T> static bool of(T a, T b) { return !(a < b); }
};
struct num {
  template <class T> static bool of(T a, T b) { return a == a && b == b; }
};
struct nan {
  template <class T> static bool of(T a, T b) { return a != a || b != b; }
};

/// One mask from 32 lanes. Integers of one width compare as vectors; the bits are then summed up.
template <class C, class T> lane_mask compare_lanes(T const* a, T const* b) {
  u32 bits[lanes_per_warp];
  for (int i = 0; i < lanes_per_warp; ++i) bits[i] = C::of(a[i], b[i]) ? u32{1} << i : 0u;
  u32 r = 0;
  for (int i = 0; i < lanes_per_warp; ++i) r |= bits[i];
  return r;
}

lane_mask combine(warp& w, op const& o, lane_mask r) {
  if (o.flags == 0) return r;
  lane_mask const c = w.predicate(o.c) ^ o.aux;
  return o.flags == 1 ? r & c : o.flags == 2 ? r | c : r ^ c;
}

template <class C, class T, bool Ftz> lane_mask result(warp& w, op const& o) {
  T const *a = w.row<T>(o.a), *b = w.row<T>(o.b);
  if constexpr (!Ftz) {
    return compare_lanes<C>(a, b);
  } else {
    T fa[lanes_per_warp], fb[lanes_per_warp];
    auto const flush = [](T x) {
      u32 const u = std::bit_cast<u32>(x);
      return (u & 0x7f800000u) == 0 ? std::bit_cast<T>(u & 0x80000000u) : x;
    };
    for (int i = 0; i < lanes_per_warp; ++i) fa[i] = flush(a[i]), fb[i] = flush(b[i]);
    return compare_lanes<C, T>(fa, fb);
  }
}

template <class C, class T, bool Ftz> void setp(warp& w, op const& o) {
  lane_mask const r = result<C, T, Ftz>(w, o), p = combine(w, o, r);
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (p & w.mask);
}
// With a second destination, p|q: q is the combination of the opposite comparison.
template <class C, class T, bool Ftz> void setp2(warp& w, op const& o) {
  lane_mask const r = result<C, T, Ftz>(w, o);
  lane_mask const p = combine(w, o, r), q = combine(w, o, ~r);
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (p & w.mask);
  lane_mask& e = w.predicate(w.here.code->extras[std::size_t(o.extra)]);
  e = (e & ~w.mask) | (q & w.mask);
}
// set: all ones or 1.0f in a register.
template <class C, class T, bool Ftz> void set(warp& w, op const& o) {
  lane_mask const p = combine(w, o, result<C, T, Ftz>(w, o));
  u32* const d = w.row<u32>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = (p >> i & 1) != 0 ? static_cast<u32>(o.value) : 0u;
}

struct comparison {
  handler one = nullptr, two = nullptr, set = nullptr;
};
template <class C, class T, bool Ftz = false> comparison compared() {
  return {&setp<C, T, Ftz>, &setp2<C, T, Ftz>, &set<C, T, Ftz>};
}

template <class T, bool Ftz = false> comparison by_operator(builder& b) {
  std::string_view const word = b.in->modifiers[0];
  constexpr bool real = std::is_floating_point_v<T>;
  if (word == "eq") return compared<eq, T, Ftz>();
  if (word == "ne") return real ? compared<ne, T, Ftz>() : compared<neu, T, Ftz>();
  if (word == "lt" || word == "lo") return compared<lt, T, Ftz>();
  if (word == "le" || word == "ls") return compared<le, T, Ftz>();
  if (word == "gt" || word == "hi") return compared<gt, T, Ftz>();
  if (word == "ge" || word == "hs") return compared<ge, T, Ftz>();
  if constexpr (real) {
    if (word == "equ") return compared<equ, T, Ftz>();
    if (word == "neu") return compared<neu, T, Ftz>();
    if (word == "ltu") return compared<ltu, T, Ftz>();
    if (word == "leu") return compared<leu, T, Ftz>();
    if (word == "gtu") return compared<gtu, T, Ftz>();
    if (word == "geu") return compared<geu, T, Ftz>();
    if (word == "num") return compared<num, T, Ftz>();
    if (word == "nan") return compared<nan, T, Ftz>();
  }
  b.fail("comparison " + std::string(word) + " is not supported for this type");
}

comparison by_type(builder& b, ptx::scalar t) {
  if (matches<f32>(t)) return b.has("ftz") ? by_operator<f32, true>(b) : by_operator<f32>(b);
  if (matches<f64>(t)) return by_operator<f64>(b);
  if (matches<u16>(t)) return by_operator<u16>(b);
  if (matches<s16>(t)) return by_operator<s16>(b);
  if (matches<u32>(t)) return by_operator<u32>(b);
  if (matches<s32>(t)) return by_operator<s32>(b);
  if (matches<u64>(t)) return by_operator<u64>(b);
  if (matches<s64>(t)) return by_operator<s64>(b);
  no_such_type(b);
}

struct sources {
  ref a, b, c;
  std::uint8_t combine = 0;
  std::uint32_t flip = 0;
};
sources read_sources(builder& b, ptx::scalar t) {
  sources s;
  s.a = b.input(1, t);
  s.b = b.input(2, t);
  s.c = b.always();
  std::string_view const word = b.one_of({"and", "or", "xor"});
  s.combine = word.empty() ? 0 : word == "and" ? 1 : word == "or" ? 2 : 3;
  if (s.combine != 0) s.c = b.predicate_input(b.operand(3), s.flip);
  return s;
}

void build_setp(builder& b) {
  comparison const c = by_type(b, b.type());
  sources const s = read_sources(b, b.type());
  ptx::operand const& to = b.operand(0);
  bool const pair = to.kind == ptx::operand_kind::pair;
  ref const d = b.predicate_output(pair ? to.parts[0] : to);
  ref const q = pair ? b.predicate_output(to.parts[1]) : ref{};
  op& o = b.emit(pair ? c.two : c.one);
  o.d = d, o.a = s.a, o.b = s.b, o.c = s.c;
  o.flags = s.combine, o.aux = s.flip;
  if (pair) b.extra(o, q);
}

void build_set(builder& b) {
  comparison const c = by_type(b, b.type());
  sources const s = read_sources(b, b.type());
  ptx::scalar const to = b.type(1);
  ref const d = b.output(0, to);
  op& o = b.emit(c.set);
  o.d = d, o.a = s.a, o.b = s.b, o.c = s.c;
  o.flags = s.combine, o.aux = s.flip;
  o.value = to.kind == 'f' ? 0x3f800000 : 0xffffffff;
}

template <class T> struct select {
  static void full(warp& w, op const& o) {
    T* const d = w.row<T>(o.d);
    T const *a = w.row<T>(o.a), *b = w.row<T>(o.b);
    lane_mask const c = w.predicate(o.c) ^ o.aux;
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) d[i] = (c >> i & 1) != 0 ? a[i] : b[i];
  }
  static void some(warp& w, op const& o) {
    T* const d = w.row<T>(o.d);
    T const *a = w.row<T>(o.a), *b = w.row<T>(o.b);
    lane_mask const c = w.predicate(o.c) ^ o.aux, m = w.mask;
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) {
      T const r = (c >> i & 1) != 0 ? a[i] : b[i];
      d[i] = (m >> i & 1) != 0 ? r : d[i];
    }
  }
};
void build_selp(builder& b) {
  std::uint32_t flip = 0;
  ref const d = b.output(0, b.type()), a = b.input(1, b.type()), second = b.input(2, b.type());
  ref const c = b.predicate_input(b.operand(3), flip);
  int const bits = b.type().bits;
  op& o = b.emit(bits == 16   ? both<select<u16>>()
                 : bits == 32 ? both<select<u32>>()
                              : both<select<u64>>());
  o.d = d, o.a = a, o.b = second, o.c = c, o.aux = flip;
}

template <class T, class C> constexpr auto slct = [](T a, T b, C c) { return c >= C{0} ? a : b; };
template <class T>
constexpr auto slct_ftz = [](T a, T b, f32 c) {  // a negative subnormal counts as −0
  bool const subnormal = (std::bit_cast<u32>(c) & 0x7f800000u) == 0;
  return subnormal || c >= 0 ? a : b;
};
template <class T> void slct_of(builder& b) {
  if (b.type().kind != 'f') return emit3<slct<T, s32>, T, T, T, s32>(b);
  b.has("ftz") ? emit3<slct_ftz<T>, T, T, T, f32>(b) : emit3<slct<T, f32>, T, T, T, f32>(b);
}
void build_slct(builder& b) {
  // The operands are raw bits of the first type; only the selector's type matters.
  switch (b.type(1).bits) {
    case 16: return slct_of<u16>(b);
    case 32: return slct_of<u32>(b);
    default: return slct_of<u64>(b);
  }
}

constexpr form rows[] = {
    {"setp.eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan{.and|or|xor}{.ftz}"
     ".b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64 p, a, b{, c}",
     kind::integer, build_setp},
    {"set.eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan{.and|or|xor}{.ftz}"
     ".u32|s32|f32.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64 d, a, b{, c}",
     kind::integer, build_set},
    {"selp.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64 d, a, b, p", kind::integer, build_selp},
    {"slct.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64.s32 d, a, b, c", kind::integer, build_slct},
    {"slct{.ftz}.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64.f32 d, a, b, c", kind::integer,
     build_slct},
};

}  // namespace

std::span<form const> compare() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
