// No include guard: products of rows rounded to int8 with int8_channel weights. What some neighboring k hold lies in
// the place of one float, and Numbers says how: two as 16-bit integers (below), or four bytes
// (gemm/int8_vnni.inl). So panels, tiles and the order of pieces are those of floats, half or a quarter as
// deep, and a tile's sums are integers.

/// To each sum the products of a pair with the pairs that are the lanes of b0 and b1.
SHUNT_INLINE void add_pairs(float const* pair, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
#if SHUNT_REGION == 256
  // In assembly: 16 registers hold all of a tile, which g++ does not find. nvcc finds these two unused.
  [[maybe_unused]] vf first;
  [[maybe_unused]] vf second;
  __asm__(
      "vpbroadcastd {%4, %2|%2, %4}\n\t"
      "vpmaddwd {%6, %2, %3|%3, %2, %6}\n\t"
      "vpmaddwd {%5, %2, %2|%2, %2, %5}\n\t"
      "vpaddd {%3, %1, %1|%1, %1, %3}\n\t"
      "vpaddd {%2, %0, %0|%0, %0, %2}"
      : "+x"(sum0), "+x"(sum1), "=&x"(first), "=&x"(second)
      : "m"(*pair), "x"(b0), "x"(b1));
#else
  unsigned bits;
  __builtin_memcpy(&bits, pair, sizeof bits);
  auto const add = [left = (vi)(vu{} + bits)](vf pairs, vf sum) __attribute__((always_inline)) {
#if SHUNT_REGION == 512
    return (vf)((vi)sum + (vi)_mm512_maskz_madd_epi16(0xffff, (__m512i)left, (__m512i)pairs));
#else
    vi const b = (vi)pairs;
    return (vf)((vi)sum + (left << 16 >> 16) * (b << 16 >> 16) + (left >> 16) * (b >> 16));
#endif
  };
  sum0 = add(b0, sum0);
  sum1 = add(b1, sum1);
#endif
}
struct by_pairs {
  static SHUNT_INLINE void add(float const* at, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
    add_pairs(at, b0, b1, sum0, sum1);
  }
};

struct int8_pairs {
  static constexpr int k_per_word = 2;
  using sums = by_pairs;
  /// Vector V of a tile's pairs, of the bytes of two k that lie behind each other in a panel; see vector_at.
  template <int V>
  static SHUNT_INLINE vf weights(unsigned char const* from,
                                 [[maybe_unused]] std::int64_t panel_stride) noexcept {
#if SHUNT_REGION == 512
    __m128i const* const at = (__m128i const*)(from + V * panel_stride);
    __m128i const first = _mm_loadu_si128(at), second = _mm_loadu_si128(at + 1);
    __m256i const both =
        _mm256_set_m128i(_mm_unpackhi_epi8(first, second), _mm_unpacklo_epi8(first, second));
    return (vf)_mm512_maskz_cvtepi8_epi16(0xffffffff, both);
#elif SHUNT_REGION == 256
    __m128i const* const at = (__m128i const*)from;
    __m128i const first = _mm_loadu_si128(at), second = _mm_loadu_si128(at + 1);
    return (vf)_mm256_cvtepi8_epi16(V == 0 ? _mm_unpacklo_epi8(first, second)
                                           : _mm_unpackhi_epi8(first, second));
#else
    from += V * lanes;
    vu x = {};
    for (int i = 0; i < lanes; ++i) {
      auto const first = static_cast<signed char>(from[i]);
      auto const second = static_cast<signed char>(from[i + panel_columns]);
      x[i] = (static_cast<unsigned>(first) & 0xffffu) | static_cast<unsigned>(second) << 16;
    }
    return as_float(x);
#endif
  }
  /// A vector of numbers of a row, in the lower bits of each.
  static SHUNT_INLINE vh narrow(vu numbers) noexcept { return narrow_upper(numbers << 16); }
  static SHUNT_INLINE void count(vu, vu&) noexcept {}
  static constexpr unsigned too_much = 0;  ///< what all sums are too large by, times `count`
};

/// Packed panels as they lie, and a place for their numbers; see right_packed.
template <class Numbers> struct right_packed_int8 {
  using sums = typename Numbers::sums;
  static constexpr bool runs_across = false;
  static constexpr bool pairs = false;
  unsigned char const* b;
  std::int64_t stride;
  float* keep;
  std::int64_t keep_stride, keep_row;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    vf const x = Numbers::template weights<V>(b + Numbers::k_per_word * K * panel_columns, stride);
    store(keep + K * keep_row + vector_at<V>(keep_stride), x);
    return x;
  }
  SHUNT_INLINE void advance(int k) noexcept {
    b += Numbers::k_per_word * k * panel_columns;
    keep += k * keep_row;
  }
};

/// What the rows of a block are rounded with.
inline void scales_of_rows(gemm_format_job const& job, gemm_segment const& segment,
                           std::int64_t row, std::int64_t rows, int8_scale* scale) noexcept {
  with_element_type(job.a.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < rows; ++r) {
      element const* const at = row_of<element>(job.a, segment.first + row + r);
      scale[r] = at == nullptr ? int8_scale{} : int8_scale_of(largest_magnitude(at, job.k));
    }
  });
}

/// Numbers [k, k + depth) of rows [row, row + rows) of the left operand, in the place of floats; see
/// scales_of_rows.
template <class Numbers>
void pack_a_int8(gemm_format_job const& job, gemm_segment const& segment, std::int64_t row,
                 std::int64_t rows, std::int64_t k, std::int64_t depth, int8_scale* scale,
                 float* block, tile_at& at) noexcept {
  constexpr int k_per_word = Numbers::k_per_word;
  std::int64_t const first = k_per_word * k, all = k_per_word * depth,
                     there = job.k - first < all ? job.k - first : all;
  with_element_type(job.a.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < rows; ++r) {
      element const* const from = row_of<element>(job.a, segment.first + row + r);
      float* const to = block + r * depth;
      if (there < all || from == nullptr) zero_row(to, depth);
      if (from == nullptr) continue;
      vf const inverse = fill(scale[r].inverse);
      vu sum = {};
      for (std::int64_t i = 0; i < there; i += lanes) {
        std::int64_t const left = there - i;
        vf const x = left < lanes ? load_first(from + first + i, left) : load(from + first + i);
        vu const number = rounded(x, inverse);
        Numbers::count(number, sum);
        auto const narrow = Numbers::narrow(number);
        auto* const out = reinterpret_cast<char*>(to) + i * 4 / k_per_word;
        if (left < lanes) {
          __builtin_memcpy(out, &narrow, static_cast<std::size_t>(left * 4 / k_per_word));
        } else {
          __builtin_memcpy(out, &narrow, sizeof narrow);
        }
      }
      if constexpr (Numbers::too_much != 0) {
        for (int i = 0; i < lanes; ++i) scale[r].offset += Numbers::too_much * sum[i];
      }
    }
  });
  at.across = false;
  at.a = block;
  at.a_stride = depth;
}

/// All rows of a block times a piece of the right operand, packed weights as they lie; where the last k fill no
/// float's place there is nothing behind them, so panels are made first.
template <class Numbers>
void multiply_int8(gemm_format_job const& job, gemm_segment const& segment, std::int64_t rows,
                   gemm_piece const& piece, float* keep, tile_at const& at,
                   prefetch_cursor& next) noexcept {
  using place = format_place<int8_channel>;
  using ready = right_ready<typename Numbers::sums>;
  constexpr std::int64_t k_per_word = Numbers::k_per_word, one = k_per_word * panel_columns;
  std::int64_t const n = piece.half * (job.n / 2) + piece.column;
  std::int64_t const stride = place::panel_bytes(job.k);
  unsigned char const* const from = expert_of<unsigned char const>(job.w, segment.expert) +
                                    packed_panel(job.w.pairs, n) * stride +
                                    place::place(k_per_word * piece.k);
  packed_b right{};
  right.panels = (piece.columns + panel_columns - 1) / panel_columns;
  right.data = keep;
  right.stride = piece.depth * panel_columns;
  if (job.k % k_per_word == 0) {
    std::int64_t const keep_row = rows > tile_rows ? panel_columns : 0;
    auto const first = [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
      return right_packed_int8<Numbers>{from + p * stride + v, last ? 0 : stride, keep + v,
                                        right.stride, keep_row};
    };
    auto const kept = [&](std::int64_t, int v, bool) __attribute__((always_inline)) {
      return ready{keep + v, right.stride};
    };
    tile_panels_of<1, tile_rows>(rows, right, at, next, first, kept);
    return;
  }
  for (std::int64_t p = 0; p < right.panels; ++p) {
    for (std::int64_t i = 0; i < piece.depth; ++i) {
      std::int64_t const k = k_per_word * (piece.k + i), left = job.k - k;
      unsigned char bytes[one] = {};
      __builtin_memcpy(
          bytes, from + p * stride + i * one,
          static_cast<std::size_t>((left < k_per_word ? left : k_per_word) * panel_columns));
      unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
        store(keep + p * right.stride + i * panel_columns + v.value * lanes,
              Numbers::template weights<v.value>(bytes, 0));
      });
    }
  }
  auto const made = [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
    return ready{keep + p * right.stride + v, last ? 0 : right.stride};
  };
  tile_panels_of<1, tile_rows>(rows, right, at, next, made, made);
}

/// body(Numbers) of a job's.
template <class Body> void with_numbers(gemm_format_job const& job, Body&& body) noexcept {
#if SHUNT_REGION == 512
  if (job.k_per_word == 4) return body(int8_vnni{});
#endif
  static_cast<void>(job);
  body(int8_pairs{});
}

/// Sums of integers to what they mean: times the row's scale times the column's, rounded in that order.
inline void sums_from_integers(gemm_format_job const& job, gemm_segment const& segment,
                               std::int64_t rows, std::int64_t column, std::int64_t columns,
                               int8_scale const* scale, float* sums,
                               std::int64_t half_stride) noexcept {
  std::int64_t const bytes = format_place<int8_channel>::panel_bytes(job.k);
  int const halves = job.paired ? 2 : 1;
  for (int half = 0; half < halves; ++half) {
    unsigned char const* panel = expert_of<unsigned char const>(job.w, segment.expert) +
                                 packed_panel(job.w.pairs, half * (job.n / 2) + column) * bytes;
    for (std::int64_t j = 0; j < columns; j += panel_columns, panel += bytes) {
      vf of_column[panel_vectors];
      load_scales(panel, of_column);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* const at = sums + r * halves * half_stride + half * half_stride + j;
        unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
          vf const factor = fill(scale[r].scale) * of_column[v.value];
          vf const x = to_float_lanes(as_bits(load(at + v.value * lanes)) - scale[r].offset);
          store(at + v.value * lanes, fma(x, factor, vf{}));
        });
      }
    }
  }
}
