// No include guard: operands brought into the form that the tile reads: floats, panels of 16 columns.

/// `count` elements widened to float.
template <class T>
SHUNT_LANES void widen_row(T const* from, std::int64_t count, float* to) noexcept {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
}
template <class T>
SHUNT_LANES void widen_row_scaled(T const* from, std::int64_t count, float scale,
                                  float* to) noexcept {
  vf const s = fill(scale);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i) * s);
  if (i < count) store_first(to + i, load_first(from + i, count - i) * s, count - i);
}
/// `count` floats, or what is there plus them, rounded to T.
template <class T>
SHUNT_LANES void put_row(float const* from, std::int64_t count, bool add, T* to) noexcept {
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
SHUNT_LANES void put_row_scaled(float const* from, std::int64_t count, float scale, bool add,
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
SHUNT_LANES void zero_row(float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = 0.0f;
}

SHUNT_LANES bool in_place(gemm_rows const& rows) noexcept {
  return rows.type == stored::f32 && rows.slot == nullptr && rows.scale.factor == nullptr;
}

/// Elements [first, first + count) of rows [row, row + rows), as floats, one row each `to_stride`.
template <class Rows>
void copy_rows(Rows const& from, std::int64_t row, std::int64_t rows, std::int64_t first,
               std::int64_t count, float* to, std::int64_t to_stride) noexcept {
  with_stored(from.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const* const at = row_of<element>(from, row + r);
      float* const out = to + r * to_stride;
      if (at == nullptr) {
        zero_row(out, count);
      } else if (from.scale.factor != nullptr) {
        widen_row_scaled(at + first, count, scale_of(from.scale, row + r), out);
      } else {
        widen_row(at + first, count, out);
      }
    }
  });
}

/// Exchanges rows and columns of a square block. Unrolled: g++ at -O2 would keep the arrays in memory.
#if SHUNT_REGION == 256
SHUNT_LANES void transpose(vf (&r)[8]) noexcept {
  __m256 t[8], u[8];
  unroll<4>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = 2 * decltype(h)::value;
    t[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  });
  unroll<2>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = 4 * decltype(h)::value;
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  });
  unroll<4>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = decltype(h)::value;
    r[i] = (vf)_mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = (vf)_mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  });
}
#elif SHUNT_REGION == 512
SHUNT_LANES void transpose(vf (&r)[16]) noexcept {
  constexpr __mmask16 all = 0xffff;
  __m512 t[16], u[16];
  unroll<8>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = 2 * decltype(h)::value;
    t[i] = _mm512_maskz_unpacklo_ps(all, (__m512)r[i], (__m512)r[i + 1]);
    t[i + 1] = _mm512_maskz_unpackhi_ps(all, (__m512)r[i], (__m512)r[i + 1]);
  });
  unroll<4>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = 4 * decltype(h)::value;
    u[i] = _mm512_maskz_shuffle_ps(all, t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_maskz_shuffle_ps(all, t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_maskz_shuffle_ps(all, t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_maskz_shuffle_ps(all, t[i + 1], t[i + 3], 0xee);
  });
  // u[4 q + i] holds, in its 128-bit part p, column 4 p + i of rows 4 q to 4 q + 3.
  unroll<4>([&](auto h) __attribute__((always_inline)) {
    constexpr int i = decltype(h)::value;
    __m512 const a = _mm512_maskz_shuffle_f32x4(all, u[i], u[i + 4], 0x88);       // q01, p 0 2
    __m512 const b = _mm512_maskz_shuffle_f32x4(all, u[i], u[i + 4], 0xdd);       // q01, p 1 3
    __m512 const c = _mm512_maskz_shuffle_f32x4(all, u[i + 8], u[i + 12], 0x88);  // q23, p 0 2
    __m512 const d = _mm512_maskz_shuffle_f32x4(all, u[i + 8], u[i + 12], 0xdd);  // q23, p 1 3
    r[i] = (vf)_mm512_maskz_shuffle_f32x4(all, a, c, 0x88);
    r[i + 4] = (vf)_mm512_maskz_shuffle_f32x4(all, b, d, 0x88);
    r[i + 8] = (vf)_mm512_maskz_shuffle_f32x4(all, a, c, 0xdd);
    r[i + 12] = (vf)_mm512_maskz_shuffle_f32x4(all, b, d, 0xdd);
  });
}
#else
SHUNT_LANES void transpose(vf (&r)[4]) noexcept {
  vf const a = r[0], b = r[1], c = r[2], d = r[3];
  r[0] = vf{a[0], b[0], c[0], d[0]};
  r[1] = vf{a[1], b[1], c[1], d[1]};
  r[2] = vf{a[2], b[2], c[2], d[2]};
  r[3] = vf{a[3], b[3], c[3], d[3]};
}
#endif

/// Eight (or as many as there are lanes) elements of as many columns, from k on, to a panel.
template <class T>
SHUNT_LANES void pack_square(T const* const* column, std::int64_t k, float* panel) noexcept {
  vf block[lanes];
  unroll<lanes>([&](auto i)
                    __attribute__((always_inline)) { block[i.value] = load(column[i.value] + k); });
  transpose(block);
  unroll<lanes>([&](auto i) __attribute__((always_inline)) {
    store(panel + i.value * panel_columns, block[i.value]);
  });
}
/// bf16 are exchanged in pairs, as if two made one float, and widened behind that.
SHUNT_LANES void pack_square(bf16 const* const* column, std::int64_t k, float* panel) noexcept {
  vf block[lanes];
  unroll<lanes>([&](auto i) __attribute__((always_inline)) {
    __builtin_memcpy(&block[i.value], column[i.value] + k, sizeof(vf));
  });
  transpose(block);
  unroll<lanes>([&](auto i) __attribute__((always_inline)) {
    vu const pair = as_bits(block[i.value]);
    store(panel + 2 * i.value * panel_columns, as_float(pair << 16));
    store(panel + (2 * i.value + 1) * panel_columns, as_float(pair & 0xffff0000u));
  });
}

/// A panel of 16 columns, each of which lies contiguous in memory: panel[k][j] = column[j][k].
template <class T>
void pack_across(T const* const (&column)[panel_columns], std::int64_t depth,
                 float* panel) noexcept {
  constexpr std::int64_t square = std::is_same_v<T, bf16> ? 2 * lanes : lanes;
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

/// One row of neighbouring panels: columns [0, count) of a row that lies contiguous in memory (null:
/// zeros), panels `panel_stride` apart. What lies behind `count` in the last panel is zero.
template <class T>
SHUNT_LANES void pack_along(T const* row, std::int64_t count, float* to,
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
