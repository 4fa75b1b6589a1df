// No include guard: packed panels of quantised weights, decoded into vectors of columns. One decoder
// for each format: begin(panel, i) takes the scales of piece i, decode(k, out) the rows' numbers of
// `step` k of it from k on, a multiple of `step`.
inline constexpr int panel_vectors = panel_columns / lanes;

/// 16 bytes as numbers, `lanes` in each vector.
#if SHUNT_REGION == 512
SHUNT_LANES void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  __m128i const x = _mm_loadu_si128((__m128i const*)from);
  to[0] = (vf)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, x));
}
SHUNT_LANES void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  to[0] = (vu)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((__m128i const*)from));
}
#elif SHUNT_REGION == 256
SHUNT_LANES void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  __m128i const low = _mm_loadl_epi64((__m128i const*)from);
  __m128i const high = _mm_loadl_epi64((__m128i const*)(from + 8));
  to[0] = (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
  to[1] = (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
}
SHUNT_LANES void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  to[0] = (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((__m128i const*)from));
  to[1] = (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((__m128i const*)(from + 8)));
}
#else
SHUNT_LANES void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  for (int i = 0; i < panel_columns; ++i) {
    to[i / lanes][i % lanes] = static_cast<float>(static_cast<signed char>(from[i]));
  }
}
SHUNT_LANES void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  for (int i = 0; i < panel_columns; ++i) to[i / lanes][i % lanes] = from[i];
}
#endif

SHUNT_LANES void load_scales(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  for (int v = 0; v < panel_vectors; ++v) {
    __builtin_memcpy(&to[v], from + v * lanes * 4, sizeof(vf));
  }
}

template <class F> struct decoder;

template <> struct decoder<int8_channel> : format_place<int8_channel> {
  static constexpr std::int64_t block = 128;  // one scale for all k: any number will do
  static constexpr int step = 1;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel, scale);
    number = panel + packing::head + piece * block * packing::piece_bytes;
  }
  SHUNT_LANES void decode(std::int64_t k, vf (&out)[step][panel_vectors]) const noexcept {
    widen_signed(number + k * panel_columns, out[0]);
    for (int v = 0; v < panel_vectors; ++v) out[0][v] = out[0][v] * scale[v];
  }
};

template <> struct decoder<fp8_block> : format_place<fp8_block> {
  static constexpr int step = 1;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel + piece * packing::piece_bytes, scale);
    number = panel + piece * packing::piece_bytes + panel_columns * sizeof(float);
  }
  /// Sign, and the other seven bits one place lower: an fp16, 256 times too small.
  SHUNT_LANES void decode(std::int64_t k, vf (&out)[step][panel_vectors]) const noexcept {
    unsigned char const* const from = number + k * panel_columns;
#if SHUNT_REGION >= 256
    __m256i const wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((__m128i const*)from));
    __m256i const half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(-0x4001));
#if SHUNT_REGION == 512
    out[0][0] = widen_half((vh)half) * scale[0];
#else
    out[0][0] = widen_half((vh)_mm256_castsi256_si128(half)) * scale[0];
    out[0][1] = widen_half((vh)_mm256_extracti128_si256(half, 1)) * scale[1];
#endif
#else
    for (int v = 0; v < panel_vectors; ++v) {
      vh half = {};
      for (int i = 0; i < panel_columns / panel_vectors; ++i) {
        unsigned const x = from[v * lanes + i];
        half[i] = static_cast<unsigned short>((x & 0x80u) << 8 | (x & 0x7fu) << 7);
      }
      out[0][v] = widen_half(half) * scale[v];
    }
#endif
  }
};

template <> struct decoder<mxfp4> : format_place<mxfp4> {
  static constexpr int step = 4;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + piece * packing::piece_bytes;
    vu bits[panel_vectors];
    widen_unsigned(from, bits);
    for (int v = 0; v < panel_vectors; ++v) {  // 0: 2^-127, 255: no number
      vu const edge = (vu)((bits[v] == 0) | (bits[v] == 255)) & 0x400000u;
      scale[v] = as_float(bits[v] << 23 | edge);
    }
    number = from + panel_columns;
  }

#if SHUNT_REGION == 512
  SHUNT_LANES void decode(std::int64_t k, vf (&out)[step][panel_vectors]) const noexcept {
    constexpr __mmask16 all = 0xffff;
    __m512 const table = _mm512_set_ps(-6.0f, -4.0f, -3.0f, -2.0f, -1.5f, -1.0f, -0.5f, -0.0f, 6.0f,
                                       4.0f, 3.0f, 2.0f, 1.5f, 1.0f, 0.5f, 0.0f);
    __m256i const group = _mm256_loadu_si256((__m256i const*)(number + k * (panel_columns / 2)));
    // Four bytes are four rows: first those of one k, then those of the next.
    __m256i const order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i const rows = _mm256_permutevar8x32_epi32(group, order);
    __m512i const even = _mm512_maskz_cvtepu8_epi32(all, _mm256_castsi256_si128(rows));
    __m512i const odd = _mm512_maskz_cvtepu8_epi32(all, _mm256_extracti128_si256(rows, 1));
    out[0][0] = (vf)_mm512_maskz_permutexvar_ps(all, even, table) * scale[0];
    out[1][0] = (vf)_mm512_maskz_permutexvar_ps(all, odd, table) * scale[0];
    out[2][0] = (vf)_mm512_maskz_permutexvar_ps(all, _mm512_maskz_srli_epi32(all, even, 4), table) *
                scale[0];
    out[3][0] = (vf)_mm512_maskz_permutexvar_ps(all, _mm512_maskz_srli_epi32(all, odd, 4), table) *
                scale[0];
  }
#elif SHUNT_REGION == 256
  SHUNT_LANES void decode(std::int64_t k, vf (&out)[step][panel_vectors]) const noexcept {
    __m256i const group = _mm256_loadu_si256((__m256i const*)(number + k * (panel_columns / 2)));
    __m256i const mask = _mm256_set1_epi8(15);
    decode_two(_mm256_and_si256(group, mask), out[0], out[1]);
    decode_two(_mm256_and_si256(_mm256_srli_epi16(group, 4), mask), out[2], out[3]);
  }

 private:
  /// The upper half of each number's float from two tables of bytes.
  SHUNT_LANES void decode_two(__m256i numbers, vf (&first)[panel_vectors],
                              vf (&second)[panel_vectors]) const noexcept {
    __m256i const high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41,
                      -0x40, -0x40, -0x40, -0x40));
    __m256i const low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x00, -0x80, -0x40, 0x00, 0x40, -0x80, -0x40, 0x00, 0x00, -0x80, -0x40,
                      0x00, 0x40, -0x80, -0x40));
    __m256i const h = _mm256_shuffle_epi8(high, numbers), l = _mm256_shuffle_epi8(low, numbers);
    __m256i const zero = _mm256_setzero_si256();
    __m256i const a = _mm256_unpacklo_epi8(l, h), b = _mm256_unpackhi_epi8(l, h);
    first[0] = (vf)_mm256_unpacklo_epi16(zero, a) * scale[0];
    first[1] = (vf)_mm256_unpackhi_epi16(zero, a) * scale[1];
    second[0] = (vf)_mm256_unpacklo_epi16(zero, b) * scale[0];
    second[1] = (vf)_mm256_unpackhi_epi16(zero, b) * scale[1];
  }
#else
  SHUNT_LANES void decode(std::int64_t k, vf (&out)[step][panel_vectors]) const noexcept {
    unsigned char const* const group = number + k * (panel_columns / 2);
    for (int i = 0; i < step; ++i) {
      for (int r = 0; r < panel_columns; ++r) {
        int const at = (r >> 2 & 1) * 16 + (i & 1) * 8 + (r >> 3) * 4 + (r & 3);
        out[i][r / lanes][r % lanes] = ::shunt::detail::e2m1[group[at] >> (i & 2) * 2 & 15];
      }
      for (int v = 0; v < panel_vectors; ++v) out[i][v] = out[i][v] * scale[v];
    }
  }
#endif
};

/// The k that pieces of every format divide.
inline constexpr std::int64_t format_pieces = 128;

/// The k of [k, k + depth) of a panel as floats, depth rounded up to the decoder's step; k begins a
/// piece.
template <class F>
SHUNT_LANES void decode_panel(unsigned char const* panel, std::int64_t k, std::int64_t depth,
                              float* to) noexcept {
  using d = decoder<F>;
  static_assert(format_pieces % d::block == 0);
  d from;
  for (std::int64_t i = 0; i < depth; i += d::block) {
    from.begin(panel, (k + i) / d::block);
    std::int64_t const end = depth - i < d::block ? depth - i : d::block;
    for (std::int64_t j = 0; j < end; j += d::step) {
      vf rows[d::step][panel_vectors];
      from.decode(j, rows);
      unroll<d::step * panel_vectors>([&](auto at) __attribute__((always_inline)) {
        constexpr int s = decltype(at)::value / panel_vectors;
        constexpr int v = decltype(at)::value % panel_vectors;
        store(to + (i + j + s) * panel_columns + v * lanes, rows[s][v]);
      });
    }
  }
}
