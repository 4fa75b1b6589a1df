// Floating point, rounded to nearest: PTX manual, "Floating Point Instructions". The other
// rounding modes are in rounding.cpp, the approximations in special.cpp, halves in half.cpp.
#include <bit>
#include <cmath>
#include <limits>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

constexpr float quiet_nan = std::bit_cast<float>(0x7fffffffu);  // a GPU's one NaN

/// .ftz: subnormals become zeros of their sign, on the way in and out.
template <bool Ftz> constexpr f32 flush(f32 x) {
  if constexpr (!Ftz) return x;
  u32 const bits = std::bit_cast<u32>(x);
  return (bits & 0x7f800000u) == 0 ? std::bit_cast<f32>(bits & 0x80000000u) : x;
}
template <bool> constexpr f64 flush(f64 x) { return x; }

/// f32 NaN results are canonical; f64 NaNs keep a payload.
constexpr f32 canonical(f32 x) { return x != x ? quiet_nan : x; }
constexpr f64 canonical(f64 x) { return x; }

/// .sat: to [0, 1], NaN to +0.
template <bool Sat, class T> constexpr T saturate(T x) {
  if constexpr (!Sat) return x;
  T const low = x > T{0} ? x : T{0};
  return low < T{1} ? low : T{1};
}

template <bool Ftz, bool Sat, class T> constexpr T out(T x) {
  return saturate<Sat>(canonical(flush<Ftz>(x)));
}

template <bool Ftz, bool Sat>
constexpr auto add = []<class T>(T a, T b) { return out<Ftz, Sat>(flush<Ftz>(a) + flush<Ftz>(b)); };
template <bool Ftz, bool Sat>
constexpr auto sub = []<class T>(T a, T b) { return out<Ftz, Sat>(flush<Ftz>(a) - flush<Ftz>(b)); };
template <bool Ftz, bool Sat>
constexpr auto mul = []<class T>(T a, T b) { return out<Ftz, Sat>(flush<Ftz>(a) * flush<Ftz>(b)); };
template <bool Ftz, bool Sat>
constexpr auto fma_of = [](auto a, auto b, auto c) {
  return out<Ftz, Sat>(std::fma(flush<Ftz>(a), flush<Ftz>(b), flush<Ftz>(c)));
};
template <bool Ftz, bool>
constexpr auto div_of =
    []<class T>(T a, T b) { return out<Ftz, false>(flush<Ftz>(a) / flush<Ftz>(b)); };
template <bool Ftz, bool>
constexpr auto rcp_of = []<class T>(T a) { return out<Ftz, false>(T{1} / flush<Ftz>(a)); };
template <bool Ftz, bool>
constexpr auto sqrt_of = [](auto a) { return out<Ftz, false>(std::sqrt(flush<Ftz>(a))); };

// neg and abs only touch the sign (of a NaN too).
template <bool Ftz, bool> constexpr auto neg_of = []<class T>(T a) { return -flush<Ftz>(a); };
template <bool Ftz, bool>
constexpr auto abs_of = []<class T>(T a) {
  using bits = std::conditional_t<sizeof(T) == 4, u32, u64>;
  return std::bit_cast<T>(std::bit_cast<bits>(flush<Ftz>(a)) & (~bits{0} >> 1));
};

// min and max take the number where one is NaN, order -0 below +0, and .NaN hands NaN on.
template <bool Ftz, bool Nan, bool Max>
constexpr auto extreme = []<class T>(T x, T y) {
  using bits = std::conditional_t<sizeof(T) == 4, u32, u64>;
  T const a = flush<Ftz>(x), b = flush<Ftz>(y);
  bool const a_nan = a != a, b_nan = b != b;
  bits const sa = std::bit_cast<bits>(a), sb = std::bit_cast<bits>(b);
  T const equal = std::bit_cast<T>(Max ? sa & sb : sa | sb);  // the sign of zeros
  T const by_order = a == b ? equal : (Max ? a > b : a < b) ? a : b;
  T const nan = sizeof(T) == 4 ? static_cast<T>(quiet_nan) : std::numeric_limits<T>::quiet_NaN();
  if (Nan) return a_nan || b_nan ? nan : by_order;
  return a_nan ? (b_nan ? nan : b) : b_nan ? a : by_order;
};

constexpr auto copysign_of = []<class T>(T a, T b) {
  using bits = std::conditional_t<sizeof(T) == 4, u32, u64>;
  constexpr bits sign = bits{1} << (sizeof(T) * 8 - 1);
  return std::bit_cast<T>((std::bit_cast<bits>(a) & sign) | (std::bit_cast<bits>(b) & ~sign));
};

// Bit 0: number classes finite, infinite, number, notanumber, normal, subnormal.
enum test : int { finite, infinite, number, notanumber, normal, subnormal };
template <class T> bool passes(T x, int t) {
  switch (t) {
    case finite: return std::isfinite(x);
    case infinite: return std::isinf(x);
    case number: return !std::isnan(x);
    case notanumber: return std::isnan(x);
    case normal: return std::isnormal(x);
    default: return std::fpclassify(x) == FP_SUBNORMAL;
  }
}
template <class T> void testp(warp& w, op const& o) {
  T const* const a = w.row<T>(o.a);
  lane_mask r = 0;
  for (int i = 0; i < lanes_per_warp; ++i)
    r |= lane_mask{passes(a[i], static_cast<int>(o.value))} << i;
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (r & w.mask);
}
void build_testp(builder& b) {
  static constexpr std::string_view names[] = {"finite",     "infinite", "number",
                                               "notanumber", "normal",   "subnormal"};
  ref const d = b.predicate_output(b.operand(0)), a = b.input(1, b.type());
  op& o = b.emit(b.type().bits == 64 ? &testp<f64> : &testp<f32>);
  o.d = d, o.a = a;
  for (int i = 0; i < 6; ++i)
    if (b.in->modifiers[0] == names[i]) o.value = i;
}

/// Chooses among the four variants of an f32 instruction by its modifiers; f64 has the plain one.
#define SOFTGPU_REAL_BUILDER(name, emitter, function)                        \
  void name(builder& b) {                                                    \
    bool const ftz = b.has("ftz"), sat = b.has("sat");                       \
    if (b.type().bits == 64) return emitter<function<false, false>, f64>(b); \
    if (ftz && sat) return emitter<function<true, true>, f32>(b);            \
    if (ftz) return emitter<function<true, false>, f32>(b);                  \
    if (sat) return emitter<function<false, true>, f32>(b);                  \
    emitter<function<false, false>, f32>(b);                                 \
  }
SOFTGPU_REAL_BUILDER(build_add, binary, add)
SOFTGPU_REAL_BUILDER(build_sub, binary, sub)
SOFTGPU_REAL_BUILDER(build_mul, binary, mul)
SOFTGPU_REAL_BUILDER(build_fma, ternary, fma_of)
SOFTGPU_REAL_BUILDER(build_div, binary, div_of)
SOFTGPU_REAL_BUILDER(build_rcp, unary, rcp_of)
SOFTGPU_REAL_BUILDER(build_sqrt, unary, sqrt_of)
SOFTGPU_REAL_BUILDER(build_neg, unary, neg_of)
SOFTGPU_REAL_BUILDER(build_abs, unary, abs_of)
#undef SOFTGPU_REAL_BUILDER

template <bool Nan, bool Max>
constexpr auto xorsign = [](f32 a, f32 b) {
  u32 const sa = std::bit_cast<u32>(a), sb = std::bit_cast<u32>(b);
  auto const magnitude = [](u32 x) { return std::bit_cast<f32>(x & 0x7fffffffu); };
  u32 const r = std::bit_cast<u32>(extreme<false, Nan, Max>(magnitude(sa), magnitude(sb)));
  return std::bit_cast<f32>((r & 0x7fffffffu) | ((sa ^ sb) & 0x80000000u));
};
template <bool Ftz, bool Nan, bool Max>
constexpr auto extreme3 =
    [](f32 a, f32 b, f32 c) { return extreme<Ftz, Nan, Max>(extreme<Ftz, Nan, Max>(a, b), c); };
template <bool Ftz, bool Nan, bool Max> void extreme_of(builder& b) {
  if (b.has("xorsign")) {
    if constexpr (Ftz)
      b.fail("min and max with .ftz and .xorsign are not supported");
    else
      emit2<xorsign<Nan, Max>, f32, f32, f32>(b);
  } else if (b.operand_count() == 4) {
    emit3<extreme3<Ftz, Nan, Max>, f32, f32, f32, f32>(b);
  } else {
    emit2<extreme<Ftz, Nan, Max>, f32, f32, f32>(b);
  }
}
template <bool Max> void build_extreme(builder& b) {
  bool const ftz = b.has("ftz"), nan = b.has("NaN");
  if (b.type().bits == 64) return binary<extreme<false, false, Max>, f64>(b);
  if (ftz && nan) return extreme_of<true, true, Max>(b);
  if (ftz) return extreme_of<true, false, Max>(b);
  if (nan) return extreme_of<false, true, Max>(b);
  extreme_of<false, false, Max>(b);
}

constexpr form rows[] = {
    {"add{.rn}{.ftz}{.sat}.f32 d, a, b", kind::real, build_add},
    {"add{.rn}.f64 d, a, b", kind::real, build_add},
    {"sub{.rn}{.ftz}{.sat}.f32 d, a, b", kind::real, build_sub},
    {"sub{.rn}.f64 d, a, b", kind::real, build_sub},
    {"mul{.rn}{.ftz}{.sat}.f32 d, a, b", kind::real, build_mul},
    {"mul{.rn}.f64 d, a, b", kind::real, build_mul},
    {"fma.rn{.ftz}{.sat}.f32 d, a, b, c", kind::real, build_fma},
    {"fma.rn.f64 d, a, b, c", kind::real, build_fma},
    {"mad.rn{.ftz}{.sat}.f32 d, a, b, c", kind::real, build_fma},
    {"mad.rn.f64 d, a, b, c", kind::real, build_fma},
    {"div.rn{.ftz}.f32 d, a, b", kind::real, build_div},
    {"div.rn.f64 d, a, b", kind::real, build_div},
    {"rcp.rn{.ftz}.f32 d, a", kind::real, build_rcp},
    {"rcp.rn.f64 d, a", kind::real, build_rcp},
    {"sqrt.rn{.ftz}.f32 d, a", kind::real, build_sqrt},
    {"sqrt.rn.f64 d, a", kind::real, build_sqrt},
    {"neg{.ftz}.f32 d, a", kind::real, build_neg},
    {"neg.f64 d, a", kind::real, build_neg},
    {"abs{.ftz}.f32 d, a", kind::real, build_abs},
    {"abs.f64 d, a", kind::real, build_abs},
    {"min{.ftz}{.NaN}{.xorsign}{.abs}.f32 d, a, b{, c}", kind::real, build_extreme<false>},
    {"min.f64 d, a, b", kind::real, build_extreme<false>},
    {"max{.ftz}{.NaN}{.xorsign}{.abs}.f32 d, a, b{, c}", kind::real, build_extreme<true>},
    {"max.f64 d, a, b", kind::real, build_extreme<true>},
    {"copysign.f32|f64 d, a, b", kind::real, binary<copysign_of, f32, f64>},
    {"testp.finite|infinite|number|notanumber|normal|subnormal.f32|f64 p, a", kind::real,
     build_testp},
};

}  // namespace

std::span<form const> real() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
