// No include guard: packed panels of quantised weights, decoded into vectors of columns. One decoder
// for each format: begin(panel, i) takes the scales of piece i; each<Scaled>(k, body) calls body(s, w)
// with the vectors w of the columns at k + s, s = 0 .. step - 1; k is a multiple of step. Where scales
// are `powers` of two, they may be left out (Scaled false): see gemm_few.inl. One k at a time, so that
// vectors are used where they come up and registers suffice.
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
  unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
    __builtin_memcpy(&to[v.value], from + v.value * lanes * 4, sizeof(vf));
  });
}

template <class F> struct decoder;

template <> struct decoder<int8_channel> : format_place<int8_channel> {
  static constexpr bool powers = false;
  static constexpr std::int64_t block = 128;  // one scale for all k: any number will do
  static constexpr int step = 1;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel, scale);
    number = panel + packing::head + piece * block * packing::piece_bytes;
  }
  template <bool Scaled, class Body>
  SHUNT_LANES void each(std::int64_t k, Body&& body) const noexcept {
    vf w[panel_vectors];
    widen_signed(number + k * panel_columns, w);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      w[v.value] = w[v.value] * scale[v.value];
    });
    body(std::integral_constant<int, 0>{}, w);
  }
};

template <> struct decoder<fp8_block> : format_place<fp8_block> {
  static constexpr bool powers = false;
  static constexpr int step = 1;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel + piece * packing::piece_bytes, scale);
    number = panel + piece * packing::piece_bytes + panel_columns * sizeof(float);
  }
  /// Sign, and the other seven bits one place lower: an fp16, 256 times too small.
  template <bool Scaled, class Body>
  SHUNT_LANES void each(std::int64_t k, Body&& body) const noexcept {
    unsigned char const* const from = number + k * panel_columns;
    vf w[panel_vectors];
#if SHUNT_REGION >= 256
    __m256i const wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((__m128i const*)from));
    __m256i const half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(-0x4001));
#if SHUNT_REGION == 512
    w[0] = widen_half((vh)half) * scale[0];
#else
    w[0] = widen_half((vh)_mm256_castsi256_si128(half)) * scale[0];
    w[1] = widen_half((vh)_mm256_extracti128_si256(half, 1)) * scale[1];
#endif
#else
    for (int v = 0; v < panel_vectors; ++v) {
      vh half = {};
      for (int i = 0; i < lanes; ++i) {
        unsigned const x = from[v * lanes + i];
        half[i] = static_cast<unsigned short>((x & 0x80u) << 8 | (x & 0x7fu) << 7);
      }
      w[v] = widen_half(half) * scale[v];
    }
#endif
    body(std::integral_constant<int, 0>{}, w);
  }
};

template <> struct decoder<mxfp4> : format_place<mxfp4> {
  static constexpr bool powers = true;
  static constexpr int step = 4;
  vu exponent[panel_vectors];  ///< of the scales, as stored
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_LANES void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + piece * packing::piece_bytes;
    widen_unsigned(from, exponent);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      vu const x = exponent[v.value];  // 0: 2^-127, 255: no number
      scale[v.value] = as_float(x << 23 | ((vu)((x == 0) | (x == 255)) & 0x400000u));
    });
    number = from + panel_columns;
  }
  template <bool Scaled, class Body>
  SHUNT_LANES void each(std::int64_t k, Body&& body) const noexcept {
    numbers(
        number + k * (panel_columns / 2), [&](auto s, vf(&w)[panel_vectors]) __attribute__((
                                              always_inline)) {
          if constexpr (Scaled) {
            unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
              w[v.value] = w[v.value] * scale[v.value];
            });
          }
          body(s, w);
        });
  }

 private:
#if SHUNT_REGION == 512
  template <class Body>
  static SHUNT_LANES void numbers(unsigned char const* from, Body&& body) noexcept {
    constexpr __mmask16 all = 0xffff;
    __m512 const table = _mm512_set_ps(-6.0f, -4.0f, -3.0f, -2.0f, -1.5f, -1.0f, -0.5f, -0.0f, 6.0f,
                                       4.0f, 3.0f, 2.0f, 1.5f, 1.0f, 0.5f, 0.0f);
    __m256i const group = _mm256_loadu_si256((__m256i const*)from);
    // Four bytes are four rows: first those of one k, then those of the next.
    __m256i const order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i const rows = _mm256_permutevar8x32_epi32(group, order);
    __m512i const two[2] = {_mm512_maskz_cvtepu8_epi32(all, _mm256_castsi256_si128(rows)),
                            _mm512_maskz_cvtepu8_epi32(all, _mm256_extracti128_si256(rows, 1))};
    unroll<step>([&](auto s) __attribute__((always_inline)) {
      __m512i const at =
          s.value < 2 ? two[s.value % 2] : _mm512_maskz_srli_epi32(all, two[s.value % 2], 4);
      vf w[1] = {(vf)_mm512_maskz_permutexvar_ps(all, at, table)};
      body(s, w);
    });
  }
#elif SHUNT_REGION == 256
  /// The upper half of each number's float from two tables of bytes.
  template <class Body>
  static SHUNT_LANES void numbers(unsigned char const* from, Body&& body) noexcept {
    __m256i const high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41,
                      -0x40, -0x40, -0x40, -0x40));
    __m256i const low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x00, -0x80, -0x40, 0x00, 0x40, -0x80, -0x40, 0x00, 0x00, -0x80, -0x40,
                      0x00, 0x40, -0x80, -0x40));
    __m256i const mask = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    unroll<2>([&](auto half) __attribute__((always_inline)) {
      __m256i const group = _mm256_loadu_si256((__m256i const*)from);
      __m256i const at =
          _mm256_and_si256(half.value == 0 ? group : _mm256_srli_epi16(group, 4), mask);
      __m256i const h = _mm256_shuffle_epi8(high, at), l = _mm256_shuffle_epi8(low, at);
      unroll<2>([&](auto odd) __attribute__((always_inline)) {
        __m256i const x = odd.value == 0 ? _mm256_unpacklo_epi8(l, h) : _mm256_unpackhi_epi8(l, h);
        vf w[2] = {(vf)_mm256_unpacklo_epi16(zero, x), (vf)_mm256_unpackhi_epi16(zero, x)};
        body(std::integral_constant<int, 2 * half.value + odd.value>{}, w);
      });
    });
  }
#else
  template <class Body>
  static SHUNT_LANES void numbers(unsigned char const* from, Body&& body) noexcept {
    unroll<step>([&](auto s) __attribute__((always_inline)) {
      vf w[panel_vectors] = {};
      for (int r = 0; r < panel_columns; ++r) {
        int const at = (r >> 2 & 1) * 16 + (s.value & 1) * 8 + (r >> 3) * 4 + (r & 3);
        w[r / lanes][r % lanes] = ::shunt::detail::e2m1[from[at] >> (s.value & 2) * 2 & 15];
      }
      body(s, w);
    });
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
      from.template each<true>(
          j, [&](auto s, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
            unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
              store(to + (i + j + s.value) * panel_columns + v.value * lanes, w[v.value]);
            });
          });
    }
  }
}
