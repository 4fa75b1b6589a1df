// No include guard: the innermost loop, a tile of sums held in registers.
#if SHUNT_REGION == 512
inline constexpr int tile_rows = 12;
#elif SHUNT_REGION == 256
inline constexpr int tile_rows = 6;
#else
inline constexpr int tile_rows = 4;
#endif
inline constexpr int tile_vectors = 2;
inline constexpr int tile_columns = tile_vectors * lanes;
inline constexpr int panel_columns = 16;

template <class Body, int... I>
SHUNT_LANES void unrolled(Body&& body, std::integer_sequence<int, I...>) noexcept {
  (body(std::integral_constant<int, I>{}), ...);
}
/// body(0), ..., body(N - 1) with constants: the compilers keep arrays indexed so in registers.
template <int N, class Body> SHUNT_LANES void unroll(Body&& body) noexcept {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

/// Where a tile's operands lie, in floats: a(m, k) at a + m * a_stride + k, or (across) at
/// a + m + k * a_stride; vector v of row k of the panel at b + k * panel_columns + v * b_vector, the
/// sums at c + m * c_row.
struct tile_at {
  float const* a;
  std::int64_t a_stride;
  bool across;
  float const* b;
  std::int64_t b_vector;
  std::int64_t depth;
  float* c;
  std::int64_t c_row;
  bool resume;
};

/// c[m][:] continued by fma over k ascending; from 0 where it is not resumed.
template <int Rows, int Vectors, bool Across> void tile(tile_at const& at) noexcept {
  vf sum[Rows][Vectors];
  float const* b = at.b;
  float const* a = at.a;
  constexpr bool one_panel = Vectors * lanes <= panel_columns;
  std::int64_t const b_vector = one_panel ? lanes : at.b_vector;
  std::int64_t const a_stride = at.a_stride, c_row = at.c_row;
  float* const c = at.c;
  if (at.resume) {
    unroll<Rows>([&](auto m) __attribute__((always_inline)) {
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
        sum[m.value][v.value] = load(c + m.value * c_row + v.value * lanes);
      });
    });
  } else {
    unroll<Rows>([&](auto m) __attribute__((always_inline)) {
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) { sum[m.value][v.value] = vf{}; });
    });
  }
  auto const step = [&](auto u) __attribute__((always_inline)) {
    constexpr int k = decltype(u)::value;
    vf right[Vectors];
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      right[v.value] = load(b + k * panel_columns + v.value * b_vector);
    });
    unroll<Rows>([&](auto m) __attribute__((always_inline)) {
      vf const left = fill(Across ? a[m.value + k * a_stride] : a[m.value * a_stride + k]);
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
        sum[m.value][v.value] = fma(left, right[v.value], sum[m.value][v.value]);
      });
    });
  };
  constexpr int together = 2;  // more gains nothing, and g++ then moves registers about
  std::int64_t left = at.depth;
  for (; left >= together; left -= together) {
    unroll<together>(step);
    a += together * (Across ? a_stride : 1);
    b += together * panel_columns;
  }
  for (; left > 0; --left) {
    step(std::integral_constant<int, 0>{});
    a += Across ? a_stride : 1;
    b += panel_columns;
  }
  unroll<Rows>([&](auto m) __attribute__((always_inline)) {
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      store(c + m.value * c_row + v.value * lanes, sum[m.value][v.value]);
    });
  });
}
