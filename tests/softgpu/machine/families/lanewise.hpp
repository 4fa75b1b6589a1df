#pragma once
// Instructions that do the same to every lane: a function of one, two or three values becomes the
// two handlers of an op. The loops are written so that the compiler turns them into vectors.

#include <cstdint>
#include <type_traits>

#include "machine/builder.hpp"
#include "machine/warp.hpp"

#ifndef SOFTGPU_ISA
#define SOFTGPU_ISA baseline
#endif

namespace softgpu {
inline namespace words {
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;
__extension__ using u128 = unsigned __int128;
__extension__ using s128 = __int128;
}  // namespace words

namespace SOFTGPU_ISA {

template <class T> constexpr ptx::scalar scalar_of() {
  constexpr int bits = int{sizeof(T)} * 8;
  if constexpr (std::is_floating_point_v<T>)
    return {'f', bits};
  else if constexpr (std::is_signed_v<T>)
    return {'s', bits};
  else
    return {'u', bits};
}

/// Whether T is how a PTX type is computed with; b32 counts as u32.
template <class T> constexpr bool matches(ptx::scalar t) {
  constexpr ptx::scalar own = scalar_of<T>();
  return t.bits == own.bits && (t.kind == 'b' ? 'u' : t.kind) == own.kind;
}

template <auto F, class D, class A> struct lanes1 {
  static void full(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) d[i] = static_cast<D>(F(a[i]));
  }
  static void some(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
    lane_mask const m = w.mask;
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) {
      D const r = static_cast<D>(F(a[i]));
      d[i] = (m >> i & 1) != 0 ? r : d[i];
    }
  }
};

template <auto F, class D, class A, class B> struct lanes2 {
  static void full(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
    B const* const b = w.row<B>(o.b);
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) d[i] = static_cast<D>(F(a[i], b[i]));
  }
  static void some(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
    B const* const b = w.row<B>(o.b);
    lane_mask const m = w.mask;
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) {
      D const r = static_cast<D>(F(a[i], b[i]));
      d[i] = (m >> i & 1) != 0 ? r : d[i];
    }
  }
};

template <auto F, class D, class A, class B, class C> struct lanes3 {
  static void full(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
    B const* const b = w.row<B>(o.b);
    C const* const c = w.row<C>(o.c);
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) d[i] = static_cast<D>(F(a[i], b[i], c[i]));
  }
  static void some(warp& w, op const& o) {
    D* const d = w.row<D>(o.d);
    A const* const a = w.row<A>(o.a);
    B const* const b = w.row<B>(o.b);
    C const* const c = w.row<C>(o.c);
    lane_mask const m = w.mask;
#pragma GCC ivdep
    for (int i = 0; i < lanes_per_warp; ++i) {
      D const r = static_cast<D>(F(a[i], b[i], c[i]));
      d[i] = (m >> i & 1) != 0 ? r : d[i];
    }
  }
};

template <class Lanes> constexpr handlers both() { return {&Lanes::full, &Lanes::some}; }

/// Emits d = F(a), with these types.
template <auto F, class D, class A> void emit1(builder& b) {
  ref const d = b.output(0, scalar_of<D>()), a = b.input(1, scalar_of<A>());
  op& o = b.emit(both<lanes1<F, D, A>>());
  o.d = d, o.a = a;
}

template <auto F, class D, class A, class B> void emit2(builder& b) {
  ref const d = b.output(0, scalar_of<D>()), a = b.input(1, scalar_of<A>());
  ref const second = b.input(2, scalar_of<B>());
  op& o = b.emit(both<lanes2<F, D, A, B>>());
  o.d = d, o.a = a, o.b = second;
}

template <auto F, class D, class A, class B, class C> void emit3(builder& b) {
  ref const d = b.output(0, scalar_of<D>()), a = b.input(1, scalar_of<A>());
  ref const second = b.input(2, scalar_of<B>()), third = b.input(3, scalar_of<C>());
  op& o = b.emit(both<lanes3<F, D, A, B, C>>());
  o.d = d, o.a = a, o.b = second, o.c = third;
}

[[noreturn]] inline void no_such_type(builder& b) {
  b.fail("type " + std::string(b.type_word()) + " is not supported here");
}

/// Rows for instructions whose operands all have the instruction's type: the types it comes in.
template <auto F, class... Ts> void unary(builder& b) {
  ptx::scalar const t = b.type();
  if (!((matches<Ts>(t) && (emit1<F, Ts, Ts>(b), true)) || ...)) no_such_type(b);
}
template <auto F, class... Ts> void binary(builder& b) {
  ptx::scalar const t = b.type();
  if (!((matches<Ts>(t) && (emit2<F, Ts, Ts, Ts>(b), true)) || ...)) no_such_type(b);
}
template <auto F, class... Ts> void ternary(builder& b) {
  ptx::scalar const t = b.type();
  if (!((matches<Ts>(t) && (emit3<F, Ts, Ts, Ts, Ts>(b), true)) || ...)) no_such_type(b);
}

}  // namespace SOFTGPU_ISA
}  // namespace softgpu
