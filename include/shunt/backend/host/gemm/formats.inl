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

/// Signed bytes, 16 for each k.
template <class F> struct byte_numbers : format_place<F> {
  static constexpr bool powers = false;
  static constexpr int step = 1, halves = 0;
  vf scale[panel_vectors];
  unsigned char const* number;

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

template <> struct decoder<int8_channel> : byte_numbers<int8_channel> {
  static constexpr std::int64_t block = 128;  // one scale for all k: any number will do

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    load_scales(panel, scale);
    number = panel + packing::head + piece * block * packing::piece_bytes;
  }
};
template <int Group> struct decoder<int8_group<Group>> : byte_numbers<int8_group<Group>> {
  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + piece * decoder::packing::piece_bytes;
    load_scales(from, this->scale);
    this->number = from + panel_columns * sizeof(float);
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
