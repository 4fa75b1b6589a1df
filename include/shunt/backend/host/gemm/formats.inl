// No include guard: packed panels of quantized weights, decoded into vectors of columns. One decoder
// for each format: begin(panel, i) takes the scales of piece i; each<Scaled>(k, half, body) calls
// body(s, w) with the vectors w of the columns at k + s, s = 0 .. step - 1; k is a multiple of step.
// Where scales are `powers` of two, they may be left out (Scaled false): see gemm/small_m_packed.inl. Where there
// are `halves`, halve(k, half) comes before, and leaves the numbers of these k as fp16. One k at a time,
// so that vectors are used where they come up and registers suffice.
inline constexpr int panel_vectors = panel_columns / lanes;

/// 16 bytes as numbers, `lanes` in each vector.
#if SHUNT_REGION == 512
SHUNT_INLINE void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  __m128i const x = _mm_loadu_si128((__m128i const*)from);
  to[0] = (vf)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, x));
}
SHUNT_INLINE void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  to[0] = (vu)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((__m128i const*)from));
}
#elif SHUNT_REGION == 256
SHUNT_INLINE void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  __m128i const low = _mm_loadl_epi64((__m128i const*)from);
  __m128i const high = _mm_loadl_epi64((__m128i const*)(from + 8));
  to[0] = (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
  to[1] = (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
}
SHUNT_INLINE void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  to[0] = (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((__m128i const*)from));
  to[1] = (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((__m128i const*)(from + 8)));
}
#else
SHUNT_INLINE void widen_signed(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  for (int i = 0; i < panel_columns; ++i) {
    to[i / lanes][i % lanes] = static_cast<float>(static_cast<signed char>(from[i]));
  }
}
SHUNT_INLINE void widen_unsigned(unsigned char const* from, vu (&to)[panel_vectors]) noexcept {
  for (int i = 0; i < panel_columns; ++i) to[i / lanes][i % lanes] = from[i];
}
#endif

SHUNT_INLINE void load_scales(unsigned char const* from, vf (&to)[panel_vectors]) noexcept {
  unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
    __builtin_memcpy(&to[v.value], from + v.value * lanes * 4, sizeof(vf));
  });
}

template <class F> struct decoder;

template <> struct decoder<int8_channel> : format_place<int8_channel> {
  static constexpr bool powers = false;
  static constexpr std::int64_t block = 128;  // one scale for all k: any number will do
  static constexpr int step = 1, halves = 0;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel, scale);
    number = panel + packing::head + piece * block * packing::piece_bytes;
  }
  template <bool Scaled, class Body>
  SHUNT_INLINE void each(std::int64_t k, fp16 const*, Body&& body) const noexcept {
    vf w[panel_vectors];
    widen_signed(number + k * panel_columns, w);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      w[v.value] = w[v.value] * scale[v.value];
    });
    body(std::integral_constant<int, 0>{}, w);
  }
};

/// Sign, and the other seven bits one place lower: an fp16, 256 times too small.
template <> struct decoder<fp8_block> : format_place<fp8_block> {
  static constexpr bool powers = false;
  static constexpr int step = SHUNT_REGION >= 256 ? 4 : 1;
  static constexpr int halves = SHUNT_REGION >= 256 ? step * panel_columns : 0;
  vf scale[panel_vectors];
  unsigned char const* number;

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel + piece * packing::piece_bytes, scale);
    number = panel + piece * packing::piece_bytes + panel_columns * sizeof(float);
  }
#if SHUNT_REGION >= 256
  /// Widening an fp16 that comes from memory takes half the operations of one in a register.
  SHUNT_INLINE void halve(std::int64_t k, fp16* half) const noexcept {
    unroll<step>([&](auto s) __attribute__((always_inline)) {
      __m256i const pairs =
          _mm256_loadu_si256((__m256i const*)(number + (k + s.value / 2 * 2) * panel_columns));
      __m256i const times = _mm256_set1_epi16(s.value % 2 == 0 ? 0x0080 : -0x8000);  // one's 128
      __m256i const x =
          _mm256_and_si256(_mm256_maddubs_epi16(times, pairs), _mm256_set1_epi16(-0x4001));
      _mm256_store_si256((__m256i*)(half + s.value * panel_columns), x);
    });
  }
#endif
  template <bool Scaled, class Body>
  SHUNT_INLINE void each([[maybe_unused]] std::int64_t k, [[maybe_unused]] fp16 const* half,
                         Body&& body) const noexcept {
    unroll<step>([&](auto s) __attribute__((always_inline)) {
      vf w[panel_vectors];
      unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
#if SHUNT_REGION >= 256
        w[v.value] = load(half + s.value * panel_columns + v.value * lanes) * scale[v.value];
#else
        unsigned char const* const from = number + k / 2 * (2 * panel_columns) + k % 2;
        vh x = {};
        for (int i = 0; i < lanes; ++i) {
          unsigned const bits = from[2 * (v.value * lanes + i)];
          x[i] = static_cast<unsigned short>((bits & 0x80u) << 8 | (bits & 0x7fu) << 7);
        }
        w[v.value] = widen_half(x) * scale[v.value];
#endif
      });
      body(s, w);
    });
  }
};

/// Numbers of e2m1, without their scales.
template <class F> struct e2m1_numbers : format_place<F> {
  static constexpr int step = SHUNT_REGION >= 256 ? 4 : 1, halves = 0;
  unsigned char const* number;

#if SHUNT_REGION >= 256
  /// A byte for each number of two k, in its low half: body(i, bytes) for the k of 2 i and 2 i + 1.
  template <class Body> SHUNT_INLINE void two_k(std::int64_t k, Body&& body) const noexcept {
    unroll<2>([&](auto i) __attribute__((always_inline)) {
      __m256i const four = _mm256_loadu_si256((__m256i const*)(number + k * (panel_columns / 2)));
      body(i, _mm256_and_si256(i.value == 0 ? four : _mm256_srli_epi16(four, 4),
                               _mm256_set1_epi8(15)));
    });
  }
#endif
#if SHUNT_REGION == 512
  template <class Body> SHUNT_INLINE void numbers(std::int64_t k, Body&& body) const noexcept {
    constexpr __mmask16 all = 0xffff;
    __m512 const table = _mm512_set_ps(-6.0f, -4.0f, -3.0f, -2.0f, -1.5f, -1.0f, -0.5f, -0.0f, 6.0f,
                                       4.0f, 3.0f, 2.0f, 1.5f, 1.0f, 0.5f, 0.0f);
    __m256i const in_order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    two_k(
        k, [&](auto i, __m256i at) __attribute__((always_inline)) {
          __m256i const rows = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(at, 0xd8), in_order);
          unroll<2>([&](auto odd) __attribute__((always_inline)) {
            __m128i const bytes =
                odd.value == 0 ? _mm256_castsi256_si128(rows) : _mm256_extracti128_si256(rows, 1);
            __m512i const which = _mm512_maskz_cvtepu8_epi32(all, bytes);
            vf w[1] = {(vf)_mm512_maskz_permutexvar_ps(all, which, table)};
            body(std::integral_constant<int, 2 * i.value + odd.value>{}, w);
          });
        });
  }
#elif SHUNT_REGION == 256
  /// The upper half of each number's float from two tables of bytes.
  template <class Body> SHUNT_INLINE void numbers(std::int64_t k, Body&& body) const noexcept {
    __m256i const high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41,
                      -0x40, -0x40, -0x40, -0x40));
    __m256i const low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x00, -0x80, -0x40, 0x00, 0x40, -0x80, -0x40, 0x00, 0x00, -0x80, -0x40,
                      0x00, 0x40, -0x80, -0x40));
    two_k(
        k, [&](auto i, __m256i at) __attribute__((always_inline)) {
          __m256i const h = _mm256_shuffle_epi8(high, at), l = _mm256_shuffle_epi8(low, at);
          unroll<2>([&](auto odd) __attribute__((always_inline)) {
            vu const x =
                (vu)(odd.value == 0 ? _mm256_unpacklo_epi8(l, h) : _mm256_unpackhi_epi8(l, h));
            vf w[2] = {as_float(x << 16), as_float(x & 0xffff0000u)};
            body(std::integral_constant<int, 2 * i.value + odd.value>{}, w);
          });
        });
  }
#else
  template <class Body> SHUNT_INLINE void numbers(std::int64_t k, Body&& body) const noexcept {
    unsigned char const* const from = number + k / 4 * (2 * panel_columns) + k % 2 * 8;
    vf w[panel_vectors] = {};
    for (int r = 0; r < panel_columns; ++r) {
      int const at = (r >> 2 & 1) * 16 + (r & 3) * 2 + (r >> 3);
      w[r / lanes][r % lanes] = ::shunt::detail::e2m1[from[at] >> (k & 2) * 2 & 15];
    }
    body(std::integral_constant<int, 0>{}, w);
  }
#endif
};

template <> struct decoder<mxfp4> : e2m1_numbers<mxfp4> {
  static constexpr bool powers = true;
  vu exponent[panel_vectors];  ///< of the scales, as stored
  vf scale[panel_vectors];

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + piece * packing::piece_bytes;
    widen_unsigned(from, exponent);
    number = from + panel_columns;
  }
  SHUNT_INLINE void take_scales() noexcept {
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      vu const x = exponent[v.value];  // 0: 2^-127, 255: no number
      scale[v.value] = as_float(x << 23 | ((vu)((x == 0) | (x == 255)) & 0x400000u));
    });
  }
  template <bool Scaled, class Body>
  SHUNT_INLINE void each(std::int64_t k, fp16 const*, Body&& body) const noexcept {
    numbers(
        k, [&](auto s, vf(&w)[panel_vectors]) __attribute__((always_inline)) {
          if constexpr (Scaled) {
            unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
              w[v.value] = w[v.value] * scale[v.value];
            });
          }
          body(s, w);
        });
  }
};

template <> struct decoder<nvfp4> : e2m1_numbers<nvfp4> {
  static constexpr bool powers = false;
  vf scale[panel_vectors];  ///< of a group: its e4m3 times its row's float

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + packing::head + piece * packing::piece_bytes;
    vu bits[panel_vectors];
    widen_unsigned(from, bits);
    load_scales(panel, scale);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      vu const x = bits[v.value], size = x & 0x7fu;
      vf const e4m3 = as_float(size << 20 | (x & 0x80u) << 24) * fill(0x1p120f);
      vu const none = (vu)(size == 0x7fu) & 0x7fc00000u;
      scale[v.value] = as_float(as_bits(e4m3) | none) * scale[v.value];
    });
    number = from + panel_columns;
  }
  template <bool Scaled, class Body>
  SHUNT_INLINE void each(std::int64_t k, fp16 const*, Body&& body) const noexcept {
    numbers(
        k, [&](auto s, vf(&w)[panel_vectors]) __attribute__((always_inline)) {
          unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
            w[v.value] = w[v.value] * scale[v.value];
          });
          body(s, w);
        });
  }
};

/// The k that pieces of every format divide.
inline constexpr std::int64_t format_pieces = 128;

/// The k of [k, k + depth) of a panel as floats, depth rounded up to the decoder's step; k begins a
/// piece.
template <class F>
SHUNT_INLINE void decode_panel(unsigned char const* panel, std::int64_t k, std::int64_t depth,
                               float* to) noexcept {
  using d = decoder<F>;
  static_assert(format_pieces % d::block == 0);
  d from;
  alignas(64) fp16 half[d::halves > 0 ? d::halves : 1];
  for (std::int64_t i = 0; i < depth; i += d::block) {
    from.begin(panel, (k + i) / d::block);
    if constexpr (d::powers) from.take_scales();
    std::int64_t const end = depth - i < d::block ? depth - i : d::block;
    for (std::int64_t j = 0; j < end; j += d::step) {
      if constexpr (d::halves > 0) from.halve(j, half);
      from.template each<true>(
          j, half, [&](auto s, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
            unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
              store(to + (i + j + s.value) * panel_columns + v.value * lanes, w[v.value]);
            });
          });
    }
  }
}
