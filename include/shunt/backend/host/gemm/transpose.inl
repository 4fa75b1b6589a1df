// No include guard: the transpositions of pack B and the conversions of pack A: floats, panels of 16 columns.

/// `count` elements widened to float.
template <class T>
SHUNT_INLINE void widen_row(T const* from, std::int64_t count, float* to) noexcept {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
}
template <class T>
SHUNT_INLINE void widen_row_scaled(T const* from, std::int64_t count, float scale,
                                   float* to) noexcept {
  vf const s = fill(scale);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i) * s);
  if (i < count) store_first(to + i, load_first(from + i, count - i) * s, count - i);
}
/// `count` floats, or what is there plus them, rounded to T.
template <class T>
SHUNT_INLINE void put_row(float const* from, std::int64_t count, bool add, T* to) noexcept {
  std::int64_t i = 0;
  if (add) {
    for (; i + lanes <= count; i += lanes) store(to + i, load(to + i) + load(from + i));
  } else {
    for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  }
  if (i == count) return;
  std::int64_t const left = count - i;
  vf const x = load_first(from + i, left);
  store_first(to + i, add ? load_first(to + i, left) + x : x, left);
}
/// The same times `scale`.
template <class T>
SHUNT_INLINE void put_row_scaled(float const* from, std::int64_t count, float scale, bool add,
                                 T* to) noexcept {
  vf const s = fill(scale);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    store(to + i, add ? fma(load(from + i), s, load(to + i)) : load(from + i) * s);
  }
  if (i == count) return;
  std::int64_t const left = count - i;
  vf const x = load_first(from + i, left);
  store_first(to + i, add ? fma(x, s, load_first(to + i, left)) : x * s, left);
}
SHUNT_INLINE void zero_row(float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = 0.0f;
}

/// Exchanges rows and columns of squares of four, one in every 16 bytes of the vectors.
SHUNT_INLINE void exchange(vf* r) noexcept {
#if SHUNT_REGION == 512
  constexpr __mmask16 all = 0xffff;
  __m512 const a = _mm512_maskz_unpacklo_ps(all, (__m512)r[0], (__m512)r[1]);
  __m512 const b = _mm512_maskz_unpackhi_ps(all, (__m512)r[0], (__m512)r[1]);
  __m512 const c = _mm512_maskz_unpacklo_ps(all, (__m512)r[2], (__m512)r[3]);
  __m512 const d = _mm512_maskz_unpackhi_ps(all, (__m512)r[2], (__m512)r[3]);
  r[0] = (vf)_mm512_maskz_shuffle_ps(all, a, c, 0x44);
  r[1] = (vf)_mm512_maskz_shuffle_ps(all, a, c, 0xee);
  r[2] = (vf)_mm512_maskz_shuffle_ps(all, b, d, 0x44);
  r[3] = (vf)_mm512_maskz_shuffle_ps(all, b, d, 0xee);
#elif SHUNT_REGION == 256
  __m256 const a = _mm256_unpacklo_ps((__m256)r[0], (__m256)r[1]);
  __m256 const b = _mm256_unpackhi_ps((__m256)r[0], (__m256)r[1]);
  __m256 const c = _mm256_unpacklo_ps((__m256)r[2], (__m256)r[3]);
  __m256 const d = _mm256_unpackhi_ps((__m256)r[2], (__m256)r[3]);
  r[0] = (vf)_mm256_shuffle_ps(a, c, 0x44);
  r[1] = (vf)_mm256_shuffle_ps(a, c, 0xee);
  r[2] = (vf)_mm256_shuffle_ps(b, d, 0x44);
  r[3] = (vf)_mm256_shuffle_ps(b, d, 0xee);
#else
  vf const a = r[0], b = r[1], c = r[2], d = r[3];
  r[0] = vf{a[0], b[0], c[0], d[0]};
  r[1] = vf{a[1], b[1], c[1], d[1]};
  r[2] = vf{a[2], b[2], c[2], d[2]};
  r[3] = vf{a[3], b[3], c[3], d[3]};
#endif
}

/// 16 bytes from each fourth of `lanes` columns, from the first on.
template <class T> SHUNT_INLINE vf load_fourths(T const* const* column, std::int64_t k) noexcept {
#if SHUNT_REGION == 512
  constexpr __mmask16 all = 0xffff;
  auto const part = [&](int j) __attribute__((always_inline)) {
    return _mm_loadu_ps(reinterpret_cast<float const*>(column[j] + k));
  };
  __m512 x = _mm512_maskz_broadcast_f32x4(all, part(0));
  x = _mm512_maskz_insertf32x4(all, x, part(4), 1);
  x = _mm512_maskz_insertf32x4(all, x, part(8), 2);
  return (vf)_mm512_maskz_insertf32x4(all, x, part(12), 3);
#elif SHUNT_REGION == 256
  __m128 const low = _mm_loadu_ps(reinterpret_cast<float const*>(column[0] + k));
  __m128 const high = _mm_loadu_ps(reinterpret_cast<float const*>(column[4] + k));
  return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
#else
  vf x;
  __builtin_memcpy(&x, column[0] + k, sizeof x);
  return x;
#endif
}

/// What two neighboring k of a column hold, moved about as one element.
struct element_pair {
  bf16 k[2];
};

/// Numbers of type T in the place of one float.
template <class T> inline constexpr int words = static_cast<int>(sizeof(float) / sizeof(T));

/// body(s, y) for each of them as floats. Those of 16 bits have been moved about in pairs, as if two made
/// one float.
template <class T, class Body> SHUNT_INLINE void widened(vf x, Body&& body) noexcept {
  if constexpr (words<T> == 1) {
    body(std::integral_constant<int, 0>{}, x);
  } else {
    vu const first = as_bits(x) << 16, second = as_bits(x) & 0xffff0000u;
    bool constexpr half = std::is_same_v<T, fp16>;
    body(std::integral_constant<int, 0>{},
         half ? widen_half(narrow_upper(first)) : as_float(first));
    body(std::integral_constant<int, 1>{},
         half ? widen_half(narrow_upper(second)) : as_float(second));
  }
}

/// body(s, y) for `quad` k: y are the elements at k + s of as many columns as there are lanes, each of
/// which lies contiguous in memory.
template <class T> inline constexpr int quad = 4 * words<T>;
template <class T, class Body>
SHUNT_INLINE void each_across(T const* const* column, std::int64_t k, Body&& body) noexcept {
  vf x[4];
  unroll<4>([&](auto i)
                __attribute__((always_inline)) { x[i.value] = load_fourths(column + i.value, k); });
  exchange(x);
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    widened<T>(
        x[i.value], [&](auto s, vf y) __attribute__((always_inline)) {
          body(std::integral_constant<int, words<T> * i.value + s.value>{}, y);
        });
  });
}

/// Exchanges rows and columns of a square block.
SHUNT_INLINE void transpose(vf (&r)[lanes]) noexcept {
  unroll<lanes / 4>([&](auto q) __attribute__((always_inline)) { exchange(r + 4 * q.value); });
#if SHUNT_REGION == 512
  // r[4 q + i] holds, in its 16-byte part p, column 4 p + i of rows 4 q to 4 q + 3.
  constexpr __mmask16 all = 0xffff;
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    auto const row = [&](int q) __attribute__((always_inline)) {
      return (__m512)r[4 * q + i.value];
    };
    __m512 const a = _mm512_maskz_shuffle_f32x4(all, row(0), row(1), 0x88);  // q 0 1, p 0 2
    __m512 const b = _mm512_maskz_shuffle_f32x4(all, row(0), row(1), 0xdd);  // q 0 1, p 1 3
    __m512 const c = _mm512_maskz_shuffle_f32x4(all, row(2), row(3), 0x88);  // q 2 3, p 0 2
    __m512 const d = _mm512_maskz_shuffle_f32x4(all, row(2), row(3), 0xdd);  // q 2 3, p 1 3
    r[i.value] = (vf)_mm512_maskz_shuffle_f32x4(all, a, c, 0x88);
    r[4 + i.value] = (vf)_mm512_maskz_shuffle_f32x4(all, b, d, 0x88);
    r[8 + i.value] = (vf)_mm512_maskz_shuffle_f32x4(all, a, c, 0xdd);
    r[12 + i.value] = (vf)_mm512_maskz_shuffle_f32x4(all, b, d, 0xdd);
  });
#elif SHUNT_REGION == 256
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    __m256 const a = (__m256)r[i.value], b = (__m256)r[4 + i.value];
    r[i.value] = (vf)_mm256_permute2f128_ps(a, b, 0x20);
    r[4 + i.value] = (vf)_mm256_permute2f128_ps(a, b, 0x31);
  });
#endif
}

/// `lanes` elements of as many columns, or twice as many of 16 bits, from k on, to a panel.
template <class T> inline constexpr std::int64_t square_depth = lanes * sizeof(float) / sizeof(T);
template <class T>
SHUNT_INLINE void pack_square(T const* const* column, std::int64_t k, float* panel) noexcept {
  vf x[lanes];
  unroll<lanes>([&](auto i) __attribute__((always_inline)) {
    __builtin_memcpy(&x[i.value], column[i.value] + k, sizeof(vf));
  });
  transpose(x);
  unroll<lanes>([&](auto i) __attribute__((always_inline)) {
    widened<T>(
        x[i.value], [&](auto s, vf y) __attribute__((always_inline)) {
          store(panel + (words<T> * i.value + s.value) * panel_columns, y);
        });
  });
}

/// A panel of 16 columns, each of which lies contiguous in memory: panel[k][j] = column[j][k].
template <class T>
void pack_across(T const* const (&column)[panel_columns], std::int64_t depth,
                 float* panel) noexcept {
  constexpr std::int64_t square = square_depth<T>;
  // Whole cache lines of a few columns at a time, or, where columns half a page apart share few sets of
  // the caches, half the columns at a time.
  std::int64_t const apart =
      reinterpret_cast<char const*>(column[1]) - reinterpret_cast<char const*>(column[0]);
  std::int64_t const line = apart % 2048 == 0 ? depth / square * square : 16 > square ? 16 : square;
  std::int64_t k = 0;
  for (std::int64_t end = 0; k + square <= depth; k = end) {
    end = k + line <= depth ? k + line : k + (depth - k) / square * square;
    for (int j = 0; j < panel_columns; j += lanes) {
      for (std::int64_t at = k; at < end; at += square) {
        pack_square(column + j, at, panel + at * panel_columns + j);
      }
    }
  }
  for (int j = 0; k < depth && j < panel_columns; ++j) {
    float rest[2 * lanes];
    for (std::int64_t i = k; i < depth; i += lanes) {
      std::int64_t const left = depth - i < lanes ? depth - i : lanes;
      store(rest + (i - k), load_first(column[j] + i, left));
    }
    for (std::int64_t i = k; i < depth; ++i) panel[i * panel_columns + j] = rest[i - k];
  }
}

/// One row of neighboring panels: columns [0, count) of a row that lies contiguous in memory (null:
/// zeros), panels `panel_stride` apart. What lies behind `count` in the last panel is zero.
template <class T>
SHUNT_INLINE void pack_along(T const* row, std::int64_t count, float* to,
                             std::int64_t panel_stride) noexcept {
  if (row == nullptr) count = -count;
  std::int64_t j = 0;
  for (; j + panel_columns <= count; j += panel_columns, to += panel_stride) {
    unroll<panel_columns / lanes>([&](auto v) __attribute__((always_inline)) {
      store(to + v.value * lanes, load(row + j + v.value * lanes));
    });
  }
  if (count < 0) {
    for (; j < -count; j += panel_columns, to += panel_stride) zero_row(to, panel_columns);
  } else if (j < count) {
    zero_row(to, panel_columns);
    widen_row(row + j, count - j, to);
  }
}
