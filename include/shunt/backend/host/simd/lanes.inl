// No include guard: what every region shares. `vf` is this region's vector of floats, `vu` as many
// uint32, `strip` 32 floats, the unit of row reductions. Operators + - * / < > == | & << >> and ?:
// are the compiler's own on these types; a comparison gives a lane mask of ints.
inline constexpr int lanes = static_cast<int>(sizeof(vf) / sizeof(float));
inline constexpr int strip_width = 32;
inline constexpr int strip_vectors = strip_width / lanes;

template <class Body, int... I>
SHUNT_INLINE void unrolled(Body&& body, std::integer_sequence<int, I...>) noexcept {
  (body(std::integral_constant<int, I>{}), ...);
}
/// body(0), ..., body(N - 1) with constants, at any optimization level: the compilers keep arrays indexed
/// so in registers.
template <int N, class Body> SHUNT_INLINE void unroll(Body&& body) noexcept {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

SHUNT_INLINE vf fill(float x) noexcept { return x - vf{}; }  // of -0.0f too
SHUNT_INLINE vu as_bits(vf x) noexcept { return (vu)x; }
SHUNT_INLINE vf as_float(vu x) noexcept { return (vf)x; }
/// Of integers below 2^31.
SHUNT_INLINE vf to_float_lanes(vu x) noexcept {
  using vi = int __attribute__((vector_size(sizeof(vu))));
  return __builtin_convertvector((vi)x, vf);
}
template <class Mask> SHUNT_INLINE vf select(Mask which, vf yes, vf no) noexcept {
  return which ? yes : no;
}

SHUNT_INLINE vf load(float const* from) noexcept {
  vf x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}
SHUNT_INLINE vf load(bf16 const* from) noexcept {
  vh x;
  __builtin_memcpy(&x, from, sizeof x);
  return (vf)widen_upper(x);
}
SHUNT_INLINE vf load(fp16 const* from) noexcept {
  vh x;
  __builtin_memcpy(&x, from, sizeof x);
  return widen_half(x);
}

SHUNT_INLINE void store(float* to, vf x) noexcept { __builtin_memcpy(to, &x, sizeof x); }
SHUNT_INLINE void store(bf16* to, vf x) noexcept {
  vu const bits = as_bits(x);
  vu const even = bits + 0x7fffu + ((bits >> 16) & 1u);
  vu const kept = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : even;
  vh const narrow = narrow_upper(kept);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}
SHUNT_INLINE void store(fp16* to, vf x) noexcept {
  vh const narrow = narrow_half(x);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

/// The first `count` (< lanes) elements, the other lanes `rest`; nothing behind them is touched.
template <class T>
SHUNT_INLINE vf load_first(T const* from, std::int64_t count, float rest = 0.0f) noexcept {
  vf x = fill(rest);
  if constexpr (sizeof(T) == sizeof(float)) {
    __builtin_memcpy(&x, from, static_cast<std::size_t>(count) * sizeof(T));
    return x;
  } else {
    T part[lanes] = {};
    __builtin_memcpy(part, from, static_cast<std::size_t>(count) * sizeof(T));
    vf const y = load(part);
    float whole[lanes];
    store(whole, y);
    for (std::int64_t i = count; i < lanes; ++i) whole[i] = rest;
    return load(whole);
  }
}
template <class T> SHUNT_INLINE void store_first(T* to, vf x, std::int64_t count) noexcept {
  T part[lanes];
  store(part, x);
  __builtin_memcpy(to, part, static_cast<std::size_t>(count) * sizeof(T));
}

/// 32 running values of a row reduction: value j takes the elements j, j + 32, j + 64, ...
struct strip {
  vf part[strip_vectors];
};

SHUNT_INLINE strip strip_of(float x) noexcept {
  strip s;
  for (int i = 0; i < strip_vectors; ++i) s.part[i] = fill(x);
  return s;
}

/// Lane j of the result is lane I[j] of x. A constructor of constant lanes, not a compiler's builtin: g++ 11 has no
/// __builtin_shufflevector, clang no __builtin_shuffle, and each compiler makes one shuffle of this.
template <int... I> SHUNT_INLINE vf permute(vf x) noexcept { return vf{x[I]...}; }

template <int Half, class Op, int... I>
SHUNT_INLINE float halve_lanes(vf x, Op op, std::integer_sequence<int, I...> all) noexcept {
  if constexpr (Half == 0) {
    return x[0];
  } else {
    x = op(x, permute<(I < Half ? I + Half : I)...>(x));
    return halve_lanes<Half / 2>(x, op, all);
  }
}
/// Combines the 32 values by halves: 16 with 16, 8 with 8, 4, 2, 1. The order on every backend.
template <class Op> SHUNT_INLINE float halve(strip s, Op op) noexcept {
  for (int half = strip_vectors / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) s.part[i] = op(s.part[i], s.part[i + half]);
  }
  return halve_lanes<lanes / 2>(s.part[0], op, std::make_integer_sequence<int, lanes>{});
}

// Types, not lambdas: g++ gives a lambda without captures a plain function too, outside the region.
struct add_lanes {
  SHUNT_INLINE vf operator()(vf a, vf b) const noexcept { return a + b; }
};
struct larger_lanes {
  SHUNT_INLINE vf operator()(vf a, vf b) const noexcept { return a < b ? b : a; }
};
SHUNT_INLINE float sum_of(strip s) noexcept { return halve(s, add_lanes{}); }
SHUNT_INLINE float max_of(strip s) noexcept { return halve(s, larger_lanes{}); }

/// Calls step(s.part[i], vector i of this strip of the row) over a row of n elements, in order; in
/// the last strip the missing lanes read as `rest`.
template <class T, class Step>
SHUNT_INLINE void for_strips(T const* row, std::int64_t n, float rest, Step step) noexcept {
  std::int64_t at = 0;
  for (; at + strip_width <= n; at += strip_width) {
    for (int i = 0; i < strip_vectors; ++i) step(i, load(row + at + i * lanes));
  }
  for (int i = 0; at < n; ++i, at += lanes) {
    step(i, n - at >= lanes ? load(row + at) : load_first(row + at, n - at, rest));
  }
}

/// Sum and dot product of rows in the order that every backend keeps.
template <class T> SHUNT_INLINE float row_sum(T const* row, std::int64_t n) noexcept {
  strip s = strip_of(0.0f);
  for_strips(row, n, 0.0f, [&](int i, vf x) { s.part[i] = s.part[i] + x; });
  return sum_of(s);
}
template <class A, class B>
SHUNT_INLINE float row_dot(A const* a, B const* b, std::int64_t n) noexcept {
  strip s = strip_of(0.0f);
  std::int64_t at = 0;
  for (; at + strip_width <= n; at += strip_width) {
    for (int i = 0; i < strip_vectors; ++i) {
      s.part[i] = fma(load(a + at + i * lanes), load(b + at + i * lanes), s.part[i]);
    }
  }
  for (int i = 0; at < n; ++i, at += lanes) {
    std::int64_t const left = n - at;
    s.part[i] = left >= lanes ? fma(load(a + at), load(b + at), s.part[i])
                              : fma(load_first(a + at, left), load_first(b + at, left), s.part[i]);
  }
  return sum_of(s);
}
