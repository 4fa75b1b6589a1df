// f16 and bf16, alone and in pairs: PTX manual, "Half Precision Floating Point Instructions".
#include <algorithm>

#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/formats.hpp"

namespace softgpu {
namespace {

using namespace baseline;

/// Applies a function of one half to the one or two halves of a word.
template <class W, class F, class... A> W each(F f, A... words) {
  if constexpr (sizeof(W) == 2)
    return static_cast<W>(f(static_cast<u32>(words)...));
  else
    return f((words & 0xffffu)...) | f((words >> 16)...) << 16;
}

template <class Fmt> u32 flush(u32 x, bool ftz) {
  return ftz && (x & Fmt::infinity) == 0 ? x & Fmt::sign : x;
}

// Modifiers of an arithmetic instruction, as a template argument.
enum : int { ftz = 1, sat = 2, relu = 4, nan_wins = 8, xorsign = 16 };

template <class Fmt, int M> u32 finish(double r) {
  if ((M & sat) != 0) r = r > 0 ? std::min(r, 1.0) : 0.0;
  if ((M & relu) != 0 && !(r != r)) r = r > 0 ? r : 0.0;
  return flush<Fmt>(encode<Fmt>(r), (M & ftz) != 0);
}
template <class Fmt, int M> double in(u32 x) { return decode<Fmt>(flush<Fmt>(x, (M & ftz) != 0)); }

template <class Fmt, int M> struct add {
  u32 operator()(u32 a, u32 b) const {
    return finish<Fmt, M>(fma_to_odd(in<Fmt, M>(a), 1, in<Fmt, M>(b)));
  }
};
template <class Fmt, int M> struct sub {
  u32 operator()(u32 a, u32 b) const {
    return finish<Fmt, M>(fma_to_odd(in<Fmt, M>(a), 1, -in<Fmt, M>(b)));
  }
};
template <class Fmt, int M> struct mul {
  u32 operator()(u32 a, u32 b) const { return finish<Fmt, M>(in<Fmt, M>(a) * in<Fmt, M>(b)); }
};
template <class Fmt, int M> struct fma_of {
  u32 operator()(u32 a, u32 b, u32 c) const {
    return finish<Fmt, M>(fma_to_odd(in<Fmt, M>(a), in<Fmt, M>(b), in<Fmt, M>(c)));
  }
};
template <class Fmt, int M> struct neg {
  u32 operator()(u32 a) const { return flush<Fmt>(a, (M & ftz) != 0) ^ Fmt::sign; }
};
template <class Fmt, int M> struct abs_of {
  u32 operator()(u32 a) const { return flush<Fmt>(a, (M & ftz) != 0) & Fmt::magnitude; }
};
template <class Fmt, int M, bool Max> struct extreme {
  u32 operator()(u32 x, u32 y) const {
    u32 a = flush<Fmt>(x, (M & ftz) != 0), b = flush<Fmt>(y, (M & ftz) != 0);
    u32 const s = (a ^ b) & Fmt::sign;
    if ((M & xorsign) != 0) a &= Fmt::magnitude, b &= Fmt::magnitude;
    bool const a_nan = (a & Fmt::magnitude) > Fmt::infinity,
               b_nan = (b & Fmt::magnitude) > Fmt::infinity;
    if ((a_nan && b_nan) || ((M & nan_wins) != 0 && (a_nan || b_nan))) return Fmt::nan;
    u32 r = 0;
    if (a_nan || b_nan) {
      r = a_nan ? b : a;
    } else {
      double const p = decode<Fmt>(a), q = decode<Fmt>(b);
      r = p == q ? (Max ? a & b : a | b) : (Max ? p > q : p < q) ? a : b;
      if (p == q && p != 0) r = a;
    }
    return (M & xorsign) != 0 ? (r & Fmt::magnitude) | s : r;
  }
};
template <class Fmt, int M> struct minimum : extreme<Fmt, M, false> {};
template <class Fmt, int M> struct maximum : extreme<Fmt, M, true> {};
template <class Fmt, int M> struct ex2 {
  u32 operator()(u32 a) const { return finish<Fmt, M>(std::exp2(in<Fmt, M>(a))); }
};
template <class Fmt, int M> struct tanh_of {
  u32 operator()(u32 a) const { return finish<Fmt, M>(std::tanh(in<Fmt, M>(a))); }
};

template <class W, class F> constexpr auto words1 = [](W a) { return each<W>(F{}, a); };
template <class W, class F> constexpr auto words2 = [](W a, W b) { return each<W>(F{}, a, b); };
template <class W, class F>
constexpr auto words3 = [](W a, W b, W c) { return each<W>(F{}, a, b, c); };

template <class F, int N> void emit(builder& b, bool pair) {
  if constexpr (N == 1)
    pair ? emit1<words1<u32, F>, u32, u32>(b) : emit1<words1<u16, F>, u16, u16>(b);
  else if constexpr (N == 2)
    pair ? emit2<words2<u32, F>, u32, u32, u32>(b) : emit2<words2<u16, F>, u16, u16, u16>(b);
  else
    pair ? emit3<words3<u32, F>, u32, u32, u32, u32>(b)
         : emit3<words3<u16, F>, u16, u16, u16, u16>(b);
}

template <template <class, int> class F, int N, int M> void by_format(builder& b) {
  std::string_view const t = b.type_word();
  bool const pair = t.ends_with("x2");
  t.starts_with("bf16") ? emit<F<bf16_format, M>, N>(b, pair) : emit<F<f16_format, M>, N>(b, pair);
}

/// The modifiers an instruction may carry, one template instance for each combination it has.
template <template <class, int> class F, int N> void arithmetic(builder& b) {
  int const m = (b.has("ftz") ? ftz : 0) | (b.has("sat") ? sat : 0) | (b.has("relu") ? relu : 0);
  switch (m) {
    case 0: return by_format<F, N, 0>(b);
    case ftz: return by_format<F, N, ftz>(b);
    case sat: return by_format<F, N, sat>(b);
    case relu: return by_format<F, N, relu>(b);
    case ftz | sat: return by_format<F, N, ftz | sat>(b);
    default: return by_format<F, N, ftz | relu>(b);
  }
}
template <template <class, int> class F> void extremes(builder& b) {
  int const m =
      (b.has("ftz") ? ftz : 0) | (b.has("NaN") ? nan_wins : 0) | (b.has("xorsign") ? xorsign : 0);
  switch (m) {
    case 0: return by_format<F, 2, 0>(b);
    case ftz: return by_format<F, 2, ftz>(b);
    case nan_wins: return by_format<F, 2, nan_wins>(b);
    case xorsign: return by_format<F, 2, xorsign>(b);
    case ftz | nan_wins: return by_format<F, 2, ftz | nan_wins>(b);
    case ftz | xorsign: return by_format<F, 2, ftz | xorsign>(b);
    case nan_wins | xorsign: return by_format<F, 2, nan_wins | xorsign>(b);
    default: return by_format<F, 2, ftz | nan_wins | xorsign>(b);
  }
}

// setp on halves: flags: comparison; a pair sets p for the lower half, q for the upper.
bool holds(int comparison, double a, double b) {
  bool const unordered = a != a || b != b;
  switch (comparison % 8) {
    case 0: return unordered ? comparison >= 8 : a == b;
    case 1: return unordered ? comparison >= 8 : a != b;
    case 2: return unordered ? comparison >= 8 : a < b;
    case 3: return unordered ? comparison >= 8 : a <= b;
    case 4: return unordered ? comparison >= 8 : a > b;
    case 5: return unordered ? comparison >= 8 : a >= b;
    default: return comparison == 6 ? !unordered : unordered;
  }
}
/// The lanes for which the comparison of one half holds, combined with the predicate c.
template <class Fmt, class W> lane_mask compared(warp& w, op const& o, int half) {
  W const *a = w.row<W>(o.a), *b = w.row<W>(o.b);
  lane_mask r = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    u32 const x = flush<Fmt>(u32(a[i]) >> (16 * half) & 0xffff, o.aux & 1);
    u32 const y = flush<Fmt>(u32(b[i]) >> (16 * half) & 0xffff, o.aux & 1);
    r |= lane_mask{holds(o.flags, decode<Fmt>(x), decode<Fmt>(y))} << i;
  }
  u32 const how = o.aux >> 1 & 3;
  if (how == 0) return r;
  lane_mask const c = w.predicate(o.c) ^ static_cast<lane_mask>(o.value);
  return how == 1 ? r & c : how == 2 ? r | c : r ^ c;
}
template <class Fmt, class W> void setp(warp& w, op const& o) {
  lane_mask r[2];
  for (int half = 0; half < int{sizeof(W)} / 2; ++half) r[half] = compared<Fmt, W>(w, o, half);
  for (int half = 0; half < int{sizeof(W)} / 2; ++half) {
    lane_mask& d = w.predicate(half == 0 ? o.d : w.here.code->extras[std::size_t(o.extra)]);
    d = (d & ~w.mask) | (r[half] & w.mask);
  }
}
// set: what a half becomes where the comparison holds is in the upper half of aux.
template <class Fmt, class W, class D> void set(warp& w, op const& o) {
  lane_mask r[2] = {};
  for (int half = 0; half < int{sizeof(W)} / 2; ++half) r[half] = compared<Fmt, W>(w, o, half);
  if (sizeof(W) < sizeof(D)) r[1] = r[0];  // all bits of a wider integer
  D* const d = w.row<D>(o.d);
  u32 const yes = o.aux >> 16;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    u32 const low = (r[0] >> i & 1) != 0 ? yes : 0, high = (r[1] >> i & 1) != 0 ? yes : 0;
    d[i] = static_cast<D>(low | high << 16);
  }
}

/// The sources and the comparison, read before the op is made.
struct comparison {
  explicit comparison(builder& b)
      : pair(b.type_word().ends_with("x2")), brain(b.type_word().starts_with("bf16")) {
    static constexpr std::string_view names[] = {"eq",  "ne",  "lt",  "le",  "gt",
                                                 "ge",  "num", "?",   "equ", "neu",
                                                 "ltu", "leu", "gtu", "geu", "nan"};
    ptx::scalar const t{'b', pair ? 32 : 16};
    a = b.input(1, t), second = b.input(2, t);
    std::string_view const word = b.one_of({"and", "or", "xor"});
    c = word.empty() ? b.always() : b.predicate_input(b.operand(3), flip);
    aux = (b.has("ftz") ? 1u : 0u) | (word == "and"   ? 2u
                                      : word == "or"  ? 4u
                                      : word == "xor" ? 6u
                                                      : 0u);
    for (std::uint8_t i = 0; i < std::size(names); ++i)
      if (b.in->modifiers[0] == names[i]) which = i;
  }
  void fill(op& o) const {
    o.a = a, o.b = second, o.c = c, o.value = static_cast<std::int64_t>(flip);
    o.aux = aux, o.flags = which;
  }
  bool pair, brain;
  ref a, second, c;
  u32 flip = 0, aux = 0;
  std::uint8_t which = 0;
};

void build_setp(builder& b) {
  comparison const c(b);
  ptx::operand const& to = b.operand(0);
  bool const two = to.kind == ptx::operand_kind::pair;
  if (c.pair != two) b.fail("a pair of halves sets two predicates, one half sets one");
  ref const d = b.predicate_output(two ? to.parts[0] : to);
  ref const q = two ? b.predicate_output(to.parts[1]) : b.scratch();
  op& o = b.emit(c.pair ? (c.brain ? &setp<bf16_format, u32> : &setp<f16_format, u32>)
                        : (c.brain ? &setp<bf16_format, u16> : &setp<f16_format, u16>));
  c.fill(o);
  o.d = d;
  b.extra(o, q);
}
void build_set(builder& b) {
  comparison const c(b);
  std::string_view const to = b.type_word(1);
  bool const wide = to.ends_with("32") || c.pair;
  ref const d = b.output(0, {'b', wide ? 32 : 16});
  op& o = b.emit(c.pair ? (c.brain ? &set<bf16_format, u32, u32> : &set<f16_format, u32, u32>)
                 : wide ? (c.brain ? &set<bf16_format, u16, u32> : &set<f16_format, u16, u32>)
                        : (c.brain ? &set<bf16_format, u16, u16> : &set<f16_format, u16, u16>));
  c.fill(o);
  o.d = d;
  o.aux |= (to.starts_with("bf16") ? 0x3f80u : to.starts_with("f16") ? 0x3c00u : 0xffffu) << 16;
}

#define SOFTGPU_HALVES ".f16|f16x2|bf16|bf16x2"
#define SOFTGPU_COMPARISON ".eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan{.and|or|xor}{.ftz}"

constexpr form rows[] = {
    {"add{.rn}{.ftz}{.sat}" SOFTGPU_HALVES " d, a, b", kind::real, arithmetic<add, 2>},
    {"sub{.rn}{.ftz}{.sat}" SOFTGPU_HALVES " d, a, b", kind::real, arithmetic<sub, 2>},
    {"mul{.rn}{.ftz}{.sat}" SOFTGPU_HALVES " d, a, b", kind::real, arithmetic<mul, 2>},
    {"fma.rn{.ftz}{.sat}{.relu}" SOFTGPU_HALVES " d, a, b, c", kind::real, arithmetic<fma_of, 3>},
    {"neg{.ftz}" SOFTGPU_HALVES " d, a", kind::real, arithmetic<neg, 1>},
    {"abs{.ftz}" SOFTGPU_HALVES " d, a", kind::real, arithmetic<abs_of, 1>},
    {"min{.ftz}{.NaN}{.xorsign}{.abs}" SOFTGPU_HALVES " d, a, b", kind::real, extremes<minimum>},
    {"max{.ftz}{.NaN}{.xorsign}{.abs}" SOFTGPU_HALVES " d, a, b", kind::real, extremes<maximum>},
    {"ex2.approx{.ftz}" SOFTGPU_HALVES " d, a", kind::special, arithmetic<ex2, 1>},
    {"tanh.approx" SOFTGPU_HALVES " d, a", kind::special, arithmetic<tanh_of, 1>},
    {"setp" SOFTGPU_COMPARISON SOFTGPU_HALVES " p, a, b{, c}", kind::real, build_setp},
    {"set" SOFTGPU_COMPARISON ".f16|bf16|u16|s16|u32|s32.f16|bf16 d, a, b{, c}", kind::real,
     build_set},
    {"set" SOFTGPU_COMPARISON ".f16x2|bf16x2|u32|s32.f16x2|bf16x2 d, a, b{, c}", kind::real,
     build_set},
};

}  // namespace

std::span<form const> half_family() { return rows; }

}  // namespace softgpu
