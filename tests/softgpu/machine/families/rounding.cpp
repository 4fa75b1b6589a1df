// Floating point in the directed rounding modes: .rz, .rm, .rp. Compiled with -frounding-math; the
// host's own rounding mode is set around each op.
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>

#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"

namespace softgpu {
namespace {

using namespace baseline;

f32 flush(f32 x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
f64 flush(f64 x) { return x; }
f32 clean(f32 x) { return x != x ? std::bit_cast<f32>(0x7fffffffu) : x; }
f64 clean(f64 x) { return x; }

// flags: bits 0–1 the rounding (1 zero, 2 down, 3 up), 4: ftz, 8: sat.
int host_rounding(int flags) {
  constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  return modes[flags & 3];
}

enum class act : std::uint8_t { add, sub, mul, fma, div, rcp, sqrt };

template <act A, class T> [[gnu::noinline]] void compute(T* r, T const* a, T const* b, T const* c) {
  for (int i = 0; i < lanes_per_warp; ++i) {
    if constexpr (A == act::add) r[i] = a[i] + b[i];
    if constexpr (A == act::sub) r[i] = a[i] - b[i];
    if constexpr (A == act::mul) r[i] = a[i] * b[i];
    if constexpr (A == act::fma) r[i] = std::fma(a[i], b[i], c[i]);
    if constexpr (A == act::div) r[i] = a[i] / b[i];
    if constexpr (A == act::rcp) r[i] = T{1} / a[i];
    if constexpr (A == act::sqrt) r[i] = std::sqrt(a[i]);
  }
}

template <act A, class T> void directed(warp& w, op const& o) {
  bool const ftz = (o.flags & 4) != 0, sat = (o.flags & 8) != 0;
  T s[3][lanes_per_warp], r[lanes_per_warp];
  ref const sources[] = {o.a, o.b, o.c};
  for (int k = 0; k < 3; ++k) {
    T const* const row = w.row<T>(sources[k]);
    for (int i = 0; i < lanes_per_warp; ++i) s[k][i] = ftz ? flush(row[i]) : row[i];
  }
  int const before = std::fegetround();
  std::fesetround(host_rounding(o.flags));
  compute<A>(r, s[0], s[1], s[2]);
  std::fesetround(before);
  T* const d = w.row<T>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    T x = ftz ? flush(r[i]) : r[i];
    if (sat) x = x > 0 ? (x < 1 ? x : T{1}) : T{0};
    d[i] = clean(x);
  }
}

std::uint8_t flags_of(builder& b) {
  std::string_view const r = b.one_of({"rz", "rm", "rp"});
  int const mode = r == "rz" ? 1 : r == "rm" ? 2 : 3;
  return static_cast<std::uint8_t>(mode | (b.has("ftz") ? 4 : 0) | (b.has("sat") ? 8 : 0));
}

template <act A> void build(builder& b) {
  ptx::scalar const t = b.type();
  std::size_t const n = b.operand_count();
  ref const d = b.output(0, t), a = b.input(1, t);
  ref const second = n > 2 ? b.input(2, t) : a, third = n > 3 ? b.input(3, t) : a;
  op& o = b.emit(t.bits == 64 ? &directed<A, f64> : &directed<A, f32>);
  o.d = d, o.a = a, o.b = second, o.c = third, o.flags = flags_of(b);
}

// cvt to a float with a directed rounding.
template <class D, class S> [[gnu::noinline]] void cast_lanes(D* r, S const* a) {
  for (int i = 0; i < lanes_per_warp; ++i) r[i] = static_cast<D>(a[i]);
}
template <class D, class S> void convert(warp& w, op const& o) {
  D r[lanes_per_warp];
  S a[lanes_per_warp];  // a register may be wider than its type
  for (int i = 0; i < lanes_per_warp; ++i)
    std::memcpy(&a[i], w.row<std::byte>(o.a) + static_cast<u32>(i) * o.aux, sizeof(S));
  int const before = std::fegetround();
  std::fesetround(host_rounding(o.flags));
  cast_lanes(r, a);
  std::fesetround(before);
  D* const d = w.row<D>(o.d);
  bool const ftz = (o.flags & 4) != 0, sat = (o.flags & 8) != 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    D x = ftz ? flush(r[i]) : r[i];
    if (sat) x = x > 0 ? (x < 1 ? x : D{1}) : D{0};
    d[i] = clean(x);
  }
}
template <class D> handler convert_from(builder& b, ptx::scalar s) {
  if (s == ptx::scalar{'s', 32}) return &convert<D, s32>;
  if (s == ptx::scalar{'u', 32}) return &convert<D, u32>;
  if (s == ptx::scalar{'s', 64}) return &convert<D, s64>;
  if (s == ptx::scalar{'u', 64}) return &convert<D, u64>;
  if (s == ptx::scalar{'s', 16}) return &convert<D, s16>;
  if (s == ptx::scalar{'u', 16}) return &convert<D, u16>;
  if (s == ptx::scalar{'s', 8}) return &convert<D, s8>;
  if (s == ptx::scalar{'u', 8}) return &convert<D, u8>;
  if (s == ptx::scalar{'f', 64}) return &convert<D, f64>;
  b.fail("this source type is not supported in a directed rounding");
}
void build_convert(builder& b) {
  ptx::scalar const to = b.type(1), from = b.type(0);
  ref const d = b.output(0, to);
  int store = from.bits < 16 ? 16 : from.bits;
  bool const is_register = b.operand(1).kind == ptx::operand_kind::reg;
  ref const a = is_register ? b.any_row(b.operand(1), store) : b.input(1, {from.kind, store});
  if (store < from.bits) b.fail("the source register is narrower than its type");
  op& o = b.emit(to.bits == 64 ? convert_from<f64>(b, from) : convert_from<f32>(b, from));
  o.d = d, o.a = a, o.flags = flags_of(b), o.aux = static_cast<u32>(store / 8);
}

constexpr form rows[] = {
    {"add.rz|rm|rp{.ftz}{.sat}.f32 d, a, b", kind::real, build<act::add>},
    {"add.rz|rm|rp.f64 d, a, b", kind::real, build<act::add>},
    {"sub.rz|rm|rp{.ftz}{.sat}.f32 d, a, b", kind::real, build<act::sub>},
    {"sub.rz|rm|rp.f64 d, a, b", kind::real, build<act::sub>},
    {"mul.rz|rm|rp{.ftz}{.sat}.f32 d, a, b", kind::real, build<act::mul>},
    {"mul.rz|rm|rp.f64 d, a, b", kind::real, build<act::mul>},
    {"fma.rz|rm|rp{.ftz}{.sat}.f32 d, a, b, c", kind::real, build<act::fma>},
    {"fma.rz|rm|rp.f64 d, a, b, c", kind::real, build<act::fma>},
    {"mad.rz|rm|rp{.ftz}{.sat}.f32 d, a, b, c", kind::real, build<act::fma>},
    {"mad.rz|rm|rp.f64 d, a, b, c", kind::real, build<act::fma>},
    {"div.rz|rm|rp{.ftz}.f32 d, a, b", kind::real, build<act::div>},
    {"div.rz|rm|rp.f64 d, a, b", kind::real, build<act::div>},
    {"rcp.rz|rm|rp{.ftz}.f32 d, a", kind::real, build<act::rcp>},
    {"rcp.rz|rm|rp.f64 d, a", kind::real, build<act::rcp>},
    {"sqrt.rz|rm|rp{.ftz}.f32 d, a", kind::real, build<act::sqrt>},
    {"sqrt.rz|rm|rp.f64 d, a", kind::real, build<act::sqrt>},
    {"cvt.rz|rm|rp{.ftz}{.sat}.f32.u8|u16|u32|u64|s8|s16|s32|s64|f64 d, a", kind::convert,
     build_convert},
    {"cvt.rz|rm|rp{.sat}.f64.u8|u16|u32|u64|s8|s16|s32|s64 d, a", kind::convert, build_convert},
};

}  // namespace

std::span<form const> rounding_family() { return rows; }

}  // namespace softgpu
