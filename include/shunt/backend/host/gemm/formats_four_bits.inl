// No include guard: decoders of the formats whose numbers have four bits, and lie alike; see formats.inl.

/// Numbers of four bits, without their scales: e2m1's; or integers 0 to 15 and `over`, in whose float they
/// are the last bits.
template <class F> struct four_bit_numbers : format_place<F> {
  static constexpr int step = SHUNT_REGION >= 256 ? 4 : 1, halves = 0;
  static constexpr bool integers = ::shunt::detail::is_int4<F>;
  static constexpr float over = SHUNT_REGION == 512 ? 0x1p23f : SHUNT_REGION == 256 ? 128.0f : 0.0f;
  unsigned char const* number;

#if SHUNT_REGION == 512
  /// The four k of a row side by side in 16 bits of its lane: k, k + 2, k + 1, k + 3.
  template <class Body> SHUNT_INLINE void numbers(std::int64_t k, Body&& body) const noexcept {
    constexpr __mmask16 all = 0xffff;
    __m512 const table = _mm512_set_ps(-6.0f, -4.0f, -3.0f, -2.0f, -1.5f, -1.0f, -0.5f, -0.0f, 6.0f,
                                       4.0f, 3.0f, 2.0f, 1.5f, 1.0f, 0.5f, 0.0f);
    __m256i const by_rows = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15));
    __m256i const four = _mm256_loadu_si256((__m256i const*)(number + k * (panel_columns / 2)));
    __m256i const rows = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(four, by_rows), 0xd8);
    vu const which = (vu)_mm512_maskz_cvtepu16_epi32(all, rows);
    unroll<4>([&](auto s) __attribute__((always_inline)) {
      vu const from = which >> (s.value % 2 * 8 + s.value / 2 * 4);
      vf w[1];
      if constexpr (integers) {
        w[0] = as_float((from & 15u) | 0x4b000000u);
      } else {  // the last four bits say which
        w[0] = (vf)_mm512_maskz_permutexvar_ps(all, (__m512i)from, table);
      }
      body(s, w);
    });
  }
#elif SHUNT_REGION == 256
  /// A byte for each number of two k, in its low half: body(i, bytes) for the k of 2 i and 2 i + 1.
  template <class Body> SHUNT_INLINE void two_k(std::int64_t k, Body&& body) const noexcept {
    unroll<2>([&](auto i) __attribute__((always_inline)) {
      __m256i const four = _mm256_loadu_si256((__m256i const*)(number + k * (panel_columns / 2)));
      body(i, _mm256_and_si256(i.value == 0 ? four : _mm256_srli_epi16(four, 4),
                               _mm256_set1_epi8(15)));
    });
  }
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
          __m256i const h = integers ? _mm256_set1_epi8(0x43) : _mm256_shuffle_epi8(high, at);
          __m256i const l = integers ? at : _mm256_shuffle_epi8(low, at);
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
      int const bits = from[at] >> (k & 2) * 2 & 15;
      w[r / lanes][r % lanes] = integers ? static_cast<float>(bits) : ::shunt::detail::e2m1[bits];
    }
    body(std::integral_constant<int, 0>{}, w);
  }
#endif
};

template <> struct decoder<mxfp4> : four_bit_numbers<mxfp4> {
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

template <> struct decoder<nvfp4> : four_bit_numbers<nvfp4> {
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

template <int Group> struct decoder<int4_group<Group>> : four_bit_numbers<int4_group<Group>> {
  using four_bit_numbers<int4_group<Group>>::number, four_bit_numbers<int4_group<Group>>::over;
  static constexpr bool powers = false;
  vf scale[panel_vectors], zero[panel_vectors];  ///< zero points, and `over`

  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    unsigned char const* const from = panel + piece * decoder::packing::piece_bytes;
    load_scales(from, scale);
    vu bits[panel_vectors];
    widen_unsigned(from + 4 * panel_columns, bits);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      zero[v.value] = to_float_lanes(bits[v.value]) + fill(over);
    });
    number = from + 5 * panel_columns;
  }
  template <bool Scaled, class Body>
  SHUNT_INLINE void each(std::int64_t k, fp16 const*, Body&& body) const noexcept {
    this->numbers(
        k, [&](auto s, vf(&w)[panel_vectors]) __attribute__((always_inline)) {
          unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
            w[v.value] = (w[v.value] - zero[v.value]) * scale[v.value];  // the difference is exact
          });
          body(s, w);
        });
  }
};
