// cvt between integers, f32 and f64, and cvta: PTX manual, "cvt". Halves and fp8 are in half.cpp,
// directed roundings to a float in rounding.cpp.
#include <bit>
#include <cmath>
#include <limits>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"
#include "memory/map.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

// Integer to integer: through 64 bits, since a register may be wider than its type.
struct narrow {
  int bits;
  bool is_signed;
};
constexpr s64 read_as(u64 raw, narrow n) {
  int const shift = 64 - n.bits;
  return n.is_signed ? static_cast<s64>(raw << shift) >> shift
                     : static_cast<s64>(raw << shift >> shift);
}
u64 load_lane(std::byte const* row, int bits, int lane) {
  u64 v = 0;
  __builtin_memcpy(&v, row + lane * (bits / 8), static_cast<std::size_t>(bits / 8));
  return v;
}
void store_lane(std::byte* row, int bits, int lane, u64 v) {
  __builtin_memcpy(row + lane * (bits / 8), &v, static_cast<std::size_t>(bits / 8));
}
s64 clamp_to(s64 v, narrow from, narrow to) {
  if (to.is_signed) {
    s64 const high =
        to.bits == 64 ? std::numeric_limits<s64>::max() : (s64{1} << (to.bits - 1)) - 1;
    if (!from.is_signed && v < 0) return high;  // an unsigned 64-bit value past the sign
    return v > high ? high : v < -high - 1 ? -high - 1 : v;
  }
  if (from.is_signed && v < 0) return 0;
  u64 const high = to.bits == 64 ? ~u64{0} : (u64{1} << to.bits) - 1;
  return static_cast<s64>(static_cast<u64>(v) > high ? high : static_cast<u64>(v));
}
// aux: source type, destination type and the widths of their registers.
constexpr u32 packed(ptx::scalar t, int store) {
  return static_cast<u32>(t.bits / 8) | (t.kind == 's' ? 16u : 0u) |
         static_cast<u32>(store / 8) << 8;
}
void between_integers(warp& w, op const& o) {
  narrow const from{int(o.aux & 15) * 8, (o.aux & 16) != 0};
  u32 const high = o.aux >> 16;
  narrow const to{int(high & 15) * 8, (high & 16) != 0};
  int const from_store = int(o.aux >> 8 & 255) * 8, to_store = int(high >> 8 & 255) * 8;
  std::byte* const d = w.row<std::byte>(o.d);
  std::byte const* const a = w.row<std::byte>(o.a);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    s64 v = read_as(load_lane(a, from_store, i), from);
    if (o.flags != 0) v = clamp_to(v, from, to);
    store_lane(d, to_store, i, static_cast<u64>(read_as(static_cast<u64>(v), to)));
  }
}

template <class D, class S> constexpr auto plain_cast = [](S a) { return static_cast<D>(a); };
template <class D, class S> handlers cast() { return both<lanes1<plain_cast<D, S>, D, S>>(); }

handlers integer_cast(ptx::scalar d, int d_store, ptx::scalar s, int s_store, bool sat) {
  if (!sat && d.bits == d_store && s.bits == s_store) {
    if (d.bits == 64 && s.bits == 32) return s.kind == 's' ? cast<s64, s32>() : cast<u64, u32>();
    if (d.bits == 32 && s.bits == 64) return cast<u32, u64>();
    if (d.bits == 32 && s.bits == 16) return s.kind == 's' ? cast<s32, s16>() : cast<u32, u16>();
    if (d.bits == 16 && s.bits == 32) return cast<u16, u32>();
    if (d.bits == 64 && s.bits == 16) return s.kind == 's' ? cast<s64, s16>() : cast<u64, u16>();
    if (d.bits == 16 && s.bits == 64) return cast<u16, u64>();
    if (d.bits == 32 && s.bits == 32) return cast<u32, u32>();
    if (d.bits == 64 && s.bits == 64) return cast<u64, u64>();
  }
  return {&between_integers, &between_integers};
}

// Float to integer. NaN gives 0, or 1 << (bits - 1) where either side has 64 bits.
enum rounding { nearest, zero, down, upward };
template <rounding R, class T> constexpr T to_integral(T x) {
  if constexpr (R == nearest)
    return std::nearbyint(x);
  else if constexpr (R == zero)
    return std::trunc(x);
  else if constexpr (R == down)
    return std::floor(x);
  else
    return std::ceil(x);
}
template <class D, class S, rounding R> D real_to_integer(S x) {
  using plain = std::make_unsigned_t<D>;
  if (x != x)
    return sizeof(S) == 8 || sizeof(D) == 8 ? static_cast<D>(plain{1} << (sizeof(D) * 8 - 1))
                                            : D{0};
  S const r = to_integral<R>(x);
  S const high = std::ldexp(S{1}, std::numeric_limits<D>::digits);  // one past the largest
  if (r >= high) return std::numeric_limits<D>::max();
  if (r < (std::is_signed_v<D> ? -high : S{0})) return std::numeric_limits<D>::min();
  return static_cast<D>(r);
}
template <class D, class S, rounding R, bool Ftz> void to_integer(warp& w, op const& o) {
  std::byte* const d = w.row<std::byte>(o.d);
  S const* const a = w.row<S>(o.a);
  int const store = static_cast<int>(o.aux);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    S x = a[i];
    if (Ftz && std::fabs(x) < std::numeric_limits<S>::min()) x = 0;
    D const r = real_to_integer<D, S, R>(x);
    store_lane(d, store, i, static_cast<u64>(static_cast<s64>(r)));
  }
}
template <class D, class S> handler to_integer_by_rounding(builder& b) {
  bool const ftz = b.has("ftz") && sizeof(S) == 4;
  std::string_view const r = b.one_of({"rni", "rzi", "rmi", "rpi"});
  if (r == "rni") return ftz ? &to_integer<D, S, nearest, true> : &to_integer<D, S, nearest, false>;
  if (r == "rzi") return ftz ? &to_integer<D, S, zero, true> : &to_integer<D, S, zero, false>;
  if (r == "rmi") return ftz ? &to_integer<D, S, down, true> : &to_integer<D, S, down, false>;
  return ftz ? &to_integer<D, S, upward, true> : &to_integer<D, S, upward, false>;
}
template <class S> handler to_integer_from(builder& b, ptx::scalar d) {
  bool const is_signed = d.kind == 's';
  switch (d.bits) {
    case 8: return is_signed ? to_integer_by_rounding<s8, S>(b) : to_integer_by_rounding<u8, S>(b);
    case 16:
      return is_signed ? to_integer_by_rounding<s16, S>(b) : to_integer_by_rounding<u16, S>(b);
    case 32:
      return is_signed ? to_integer_by_rounding<s32, S>(b) : to_integer_by_rounding<u32, S>(b);
    default:
      return is_signed ? to_integer_by_rounding<s64, S>(b) : to_integer_by_rounding<u64, S>(b);
  }
}

// Integer to float, to nearest. Narrow sources are first widened by between_integers' reader.
template <class D> void from_integer(warp& w, op const& o) {
  narrow const from{int(o.aux & 15) * 8, (o.aux & 16) != 0};
  int const store = int(o.aux >> 8 & 255) * 8;
  D* const d = w.row<D>(o.d);
  std::byte const* const a = w.row<std::byte>(o.a);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    s64 const v = read_as(load_lane(a, store, i), from);
    D const r = from.is_signed ? static_cast<D>(v) : static_cast<D>(static_cast<u64>(v));
    d[i] = o.flags != 0 ? (r < 0 ? D{0} : r > 1 ? D{1} : r) : r;
  }
}

// Float to float of the same or the other width.
template <bool Ftz> constexpr f32 flush(f32 x) {
  return Ftz && std::fabs(x) < std::numeric_limits<f32>::min() ? std::copysign(0.0f, x) : x;
}
template <class T> constexpr T to_unit(T x) { return x > T{0} ? (x < T{1} ? x : T{1}) : T{0}; }
template <class T> constexpr T clean(T x) {
  if constexpr (sizeof(T) == 4)
    return x != x ? std::bit_cast<f32>(0x7fffffffu) : x;
  else
    return x;
}

template <int R, bool Ftz, bool Sat, class T>
constexpr auto round_real = [](T x) {
  if constexpr (sizeof(T) == 4) x = flush<Ftz>(x);
  if constexpr (R == 0) x = std::nearbyint(x);
  if constexpr (R == 1) x = std::trunc(x);
  if constexpr (R == 2) x = std::floor(x);
  if constexpr (R == 3) x = std::ceil(x);
  if constexpr (Sat) x = to_unit(x);
  return R == 4 && !Sat ? x : clean(x);
};
template <bool Ftz, bool Sat>
constexpr auto f64_to_f32 = [](f64 x) {
  f32 const r = flush<Ftz>(static_cast<f32>(x));
  return clean(Sat ? to_unit(r) : r);
};
template <bool Ftz, bool Sat>
constexpr auto f32_to_f64 = [](f32 x) {
  f64 const r = flush<Ftz>(x);
  return Sat ? to_unit(r) : r;
};

template <class T, int R> void same_width(builder& b) {
  bool const ftz = b.has("ftz") && sizeof(T) == 4, sat = b.has("sat");
  if (ftz && sat)
    emit1<round_real<R, true, true, T>, T, T>(b);
  else if (ftz)
    emit1<round_real<R, true, false, T>, T, T>(b);
  else if (sat)
    emit1<round_real<R, false, true, T>, T, T>(b);
  else
    emit1<round_real<R, false, false, T>, T, T>(b);
}
template <class T> void same_width_by_rounding(builder& b) {
  std::string_view const r = b.one_of({"rni", "rzi", "rmi", "rpi"});
  if (r == "rni")
    same_width<T, 0>(b);
  else if (r == "rzi")
    same_width<T, 1>(b);
  else if (r == "rmi")
    same_width<T, 2>(b);
  else if (r == "rpi")
    same_width<T, 3>(b);
  else
    same_width<T, 4>(b);
}
void build_real_real(builder& b) {
  int const d = b.type(1).bits, s = b.type(0).bits;
  bool const ftz = b.has("ftz"), sat = b.has("sat");
  if (d == s) return d == 64 ? same_width_by_rounding<f64>(b) : same_width_by_rounding<f32>(b);
  if (d == 32) {
    if (ftz && sat)
      emit1<f64_to_f32<true, true>, f32, f64>(b);
    else if (ftz)
      emit1<f64_to_f32<true, false>, f32, f64>(b);
    else if (sat)
      emit1<f64_to_f32<false, true>, f32, f64>(b);
    else
      emit1<f64_to_f32<false, false>, f32, f64>(b);
  } else {
    if (ftz && sat)
      emit1<f32_to_f64<true, true>, f64, f32>(b);
    else if (ftz)
      emit1<f32_to_f64<true, false>, f64, f32>(b);
    else if (sat)
      emit1<f32_to_f64<false, true>, f64, f32>(b);
    else
      emit1<f32_to_f64<false, false>, f64, f32>(b);
  }
}

/// A source's row and register width; an immediate has its type's width, 16 bits at least.
ref source(builder& b, ptx::scalar t, int& store) {
  ptx::operand const& from = b.operand(1);
  if (from.kind == ptx::operand_kind::reg) {
    ref const r = b.any_row(from, store);
    if (store < t.bits) b.fail("the source register is narrower than its type");
    return r;
  }
  store = t.bits < 16 ? 16 : t.bits;
  return b.input(from, {t.kind, store});
}
ref destination(builder& b, ptx::scalar t, int& store) {
  if (b.operand(0).kind == ptx::operand_kind::sink) return store = t.bits, b.scratch();
  ref const r = b.any_row(b.operand(0), store);
  if (store < t.bits) b.fail("the destination register is narrower than its type");
  return r;
}

void build_integer_integer(builder& b) {
  ptx::scalar const dt = b.type(1), st = b.type(0);
  int d_store = 0, s_store = 0;
  ref const d = destination(b, dt, d_store), a = source(b, st, s_store);
  op& o = b.emit(integer_cast(dt, d_store, st, s_store, b.has("sat")));
  o.d = d, o.a = a, o.flags = b.has("sat");
  o.aux = packed(st, s_store) | packed(dt, d_store) << 16;
}
void build_real_integer(builder& b) {
  ptx::scalar const dt = b.type(1), st = b.type(0);
  int d_store = 0;
  ref const d = destination(b, dt, d_store), a = b.input(1, st);
  op& o = b.emit(st.bits == 64 ? to_integer_from<f64>(b, dt) : to_integer_from<f32>(b, dt));
  o.d = d, o.a = a, o.aux = static_cast<u32>(d_store);
}
void build_integer_real(builder& b) {
  ptx::scalar const dt = b.type(1), st = b.type(0);
  int s_store = 0;
  ref const d = b.output(0, dt), a = source(b, st, s_store);
  handlers h;
  if (st.bits == 32 && s_store == 32 && !b.has("sat"))
    h = dt.bits == 32 ? (st.kind == 's' ? cast<f32, s32>() : cast<f32, u32>())
                      : (st.kind == 's' ? cast<f64, s32>() : cast<f64, u32>());
  else
    h.full = h.some = dt.bits == 32 ? &from_integer<f32> : &from_integer<f64>;
  op& o = b.emit(h);
  o.d = d, o.a = a, o.aux = packed(st, s_store), o.flags = b.has("sat");
}

// cvta: between a space's addresses and generic ones.
template <class T> constexpr auto identity = [](T a) { return a; };
constexpr auto to_shared_window = [](u64 a) { return a + map::shared_window; };
constexpr auto from_shared_window = [](u64 a) { return a - map::shared_window; };
constexpr auto to_local_window = [](u64 a) { return a + map::local_window; };
constexpr auto from_local_window = [](u64 a) { return a - map::local_window; };

void build_cvta(builder& b) {
  bool const back = b.has("to");
  if (b.type().bits != 64) b.fail("32-bit generic addresses are not supported");
  if (b.has("shared") || b.has("shared::cta"))
    back ? emit1<from_shared_window, u64, u64>(b) : emit1<to_shared_window, u64, u64>(b);
  else if (b.has("local"))
    back ? emit1<from_local_window, u64, u64>(b) : emit1<to_local_window, u64, u64>(b);
  else
    emit1<identity<u64>, u64, u64>(b);
}

constexpr form rows[] = {
    {"cvt{.sat}.u8|u16|u32|u64|s8|s16|s32|s64.u8|u16|u32|u64|s8|s16|s32|s64 d, a", kind::convert,
     build_integer_integer},
    {"cvt.rni|rzi|rmi|rpi{.ftz}{.sat}.u8|u16|u32|u64|s8|s16|s32|s64.f32|f64 d, a", kind::convert,
     build_real_integer},
    {"cvt.rn{.ftz}{.sat}.f32|f64.u8|u16|u32|u64|s8|s16|s32|s64 d, a", kind::convert,
     build_integer_real},
    {"cvt{.rni|rzi|rmi|rpi}{.ftz}{.sat}.f32.f32 d, a", kind::convert, build_real_real},
    {"cvt{.rni|rzi|rmi|rpi}{.ftz}{.sat}.f64.f64 d, a", kind::convert, build_real_real},
    {"cvt.rn{.ftz}{.sat}.f32.f64 d, a", kind::convert, build_real_real},
    {"cvt{.ftz}{.sat}.f64.f32 d, a", kind::convert, build_real_real},
    {"cvta{.to}.global|shared|shared::cta|local|const|param.u64|u32 d, a", kind::move, build_cvta},
};

}  // namespace

std::span<form const> convert() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
