// No include guard: the micro-kernel, an MR x NR tile of sums held in registers. MR is tile_rows, NR
// tile_columns.
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
inline constexpr std::int64_t tile_stretch = 32;  ///< k between two requests for what comes next

/// Where a tile's left operand and its sums lie, in floats: a(m, k) at a + m * a_stride + k, or
/// (across) at a + m + k * a_stride; the sums at c + m * c_row.
struct tile_at {
  float const* a;
  std::int64_t a_stride;
  bool across;
  std::int64_t depth;
  float* c;
  std::int64_t c_row;
  bool resume;
};

/// What a tile does with a number of the left operand and a row of the right one.
struct by_fma {
  static SHUNT_INLINE void add(float const* at, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
    vf const left = fill(*at);
    sum0 = fma(left, b0, sum0);
    sum1 = fma(left, b1, sum1);
  }
};

// Where a tile's right operand comes from. The vectors of row k lie in one panel, or (a tile as wide
// as two) vector v in panel v. right_packed and right_rows are for the first tile of several: what it has
// widened it leaves in a panel for the others, while it multiplies. `pairs`: the first vector
// is the even columns, the second the odd ones.
inline constexpr bool one_panel = tile_columns <= panel_columns;
inline constexpr int tile_panels = one_panel ? 1 : tile_columns / panel_columns;
template <int V> SHUNT_INLINE std::int64_t vector_at(std::int64_t panel_stride) noexcept {
  return one_panel ? V * lanes : V * panel_stride;
}

/// Panels that are ready, `stride` apart: of floats, or of pairs in the place of floats, which Sums says.
template <class Sums> struct right_ready {
  using sums = Sums;
  static constexpr bool runs_across = std::is_same_v<Sums, by_fma>;  ///< with left operands that do
  static constexpr bool pairs = false;
  float const* b;
  std::int64_t stride;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    return load(b + K * panel_columns + vector_at<V>(stride));
  }
  SHUNT_INLINE void advance(int k) noexcept { b += k * panel_columns; }
};
using right_panel = right_ready<by_fma>;

/// Packed panels of a narrower type, and a place for their floats, or (keep_row 0) a scratch line that is never read.
template <class T> struct right_packed {
  using sums = by_fma;
  static constexpr bool runs_across = false;
  static constexpr bool pairs = false;
  T const* b;
  std::int64_t stride;
  float* keep;
  std::int64_t keep_stride, keep_row;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    vf const x = load(b + K * panel_columns + vector_at<V>(stride));
    store(keep + K * keep_row + vector_at<V>(keep_stride), x);
    return x;
  }
  SHUNT_INLINE void advance(int k) noexcept {
    b += k * panel_columns;
    keep += k * keep_row;
  }
};

/// Columns of rows that lie apart: row[k] + column, panels `stride` apart.
template <class T> struct right_rows {
  using sums = by_fma;
  static constexpr bool runs_across = true;
  static constexpr bool pairs = false;
  void const* const* row;
  std::int64_t column, stride;
  float* keep;
  std::int64_t keep_stride;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    vf const x = load(static_cast<T const*>(row[K]) + column + vector_at<V>(stride));
    store(keep + K * panel_columns + vector_at<V>(keep_stride), x);
    return x;
  }
  SHUNT_INLINE void advance(int k) noexcept {
    row += k;
    keep += k * panel_columns;
  }
};

/// A packed panel of bf16 on AVX2: neighboring columns are widened together, by one operation for each
/// vector. Their sums are brought into the columns' order once, at the end.
template <class T>
inline constexpr bool widened_in_pairs = SHUNT_REGION == 256 && std::is_same_v<T, bf16>;
struct right_even_odd {
  using sums = by_fma;
  static constexpr bool runs_across = false;
  static constexpr bool pairs = true;
  bf16 const* b;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    vu both;
    __builtin_memcpy(&both, b + K * panel_columns, sizeof both);
    return as_float(V == 0 ? both << 16 : both & 0xffff0000u);
  }
  SHUNT_INLINE void advance(int k) noexcept { b += k * panel_columns; }
};
/// Two vectors of columns to the even and the odd ones, and back.
SHUNT_INLINE void split_pairs([[maybe_unused]] vf& low, [[maybe_unused]] vf& high) noexcept {
#if SHUNT_REGION == 256
  __m256d const even = (__m256d)_mm256_shuffle_ps((__m256)low, (__m256)high, 0x88);
  __m256d const odd = (__m256d)_mm256_shuffle_ps((__m256)low, (__m256)high, 0xdd);
  low = (vf)_mm256_permute4x64_pd(even, 0xd8);
  high = (vf)_mm256_permute4x64_pd(odd, 0xd8);
#endif
}
SHUNT_INLINE void join_pairs([[maybe_unused]] vf& even, [[maybe_unused]] vf& odd) noexcept {
#if SHUNT_REGION == 256
  __m256 const low = _mm256_unpacklo_ps((__m256)even, (__m256)odd);
  __m256 const high = _mm256_unpackhi_ps((__m256)even, (__m256)odd);
  even = (vf)_mm256_permute2f128_ps(low, high, 0x20);
  odd = (vf)_mm256_permute2f128_ps(low, high, 0x31);
#endif
}

/// c[m][:] continued over k ascending, as Right::sums says; from 0 where it is not resumed. Over every stretch,
/// `lines` cache lines of what comes next are asked for, at most 32 a panel: evenly, and without a
/// branch, as a core waits where many are under way at once.
template <int Rows, bool Across, class Right>
void tile(tile_at const& at, Right right, prefetch_cursor& next, std::int64_t lines) noexcept {
  static_assert(tile_vectors == 2);
  vf low[Rows],
      high[Rows];  // the sums of row m: two names, as a second index would cost compile time
  float const* a = at.a;
  std::int64_t const a_stride = at.a_stride, c_row = at.c_row;
  float* const c = at.c;
  bool const resume = at.resume;
  unroll<Rows>([&](auto m) __attribute__((always_inline)) {
    low[m.value] = resume ? load(c + m.value * c_row) : vf{};
    high[m.value] = resume ? load(c + m.value * c_row + lanes) : vf{};
    if constexpr (Right::pairs) split_pairs(low[m.value], high[m.value]);
  });
  auto const step = [&](auto k) __attribute__((always_inline)) {
    vf const b0 = right.template get<k.value, 0>(), b1 = right.template get<k.value, 1>();
    unroll<Rows>([&](auto m) __attribute__((always_inline)) {
      Right::sums::add(a + (Across ? m.value + k.value * a_stride : m.value * a_stride + k.value),
                       b0, b1, low[m.value], high[m.value]);
    });
  };
  constexpr int k_unroll = 2;  // more gains nothing, and g++ then moves registers about
  for (std::int64_t left = at.depth; left > 0; left -= tile_stretch) {
    prefetch_batch ask = next_prefetch_batch(next, lines, tile_stretch / k_unroll, c);
    std::int64_t now = left < tile_stretch ? left : tile_stretch;
    for (; now >= k_unroll; now -= k_unroll) {
      unroll<prefetch_width>([&](auto i) __attribute__((always_inline)) {
        __builtin_prefetch(ask.at + i.value * ask.apart, 0, 2);
      });
      ask.at += ask.step;
      unroll<k_unroll>(step);
      a += k_unroll * (Across ? a_stride : 1);
      right.advance(k_unroll);
    }
    if (now > 0) {
      step(std::integral_constant<int, 0>{});
      a += Across ? a_stride : 1;
      right.advance(1);
    }
  }
  unroll<Rows>([&](auto m) __attribute__((always_inline)) {
    if constexpr (Right::pairs) join_pairs(low[m.value], high[m.value]);
    store(c + m.value * c_row, low[m.value]);
    store(c + m.value * c_row + lanes, high[m.value]);
  });
}
