// No include guard: the sums of a group of 32, of rows in int8 with mxfp4 weights, as instruction sets have them.
// Weights are integers: halves of their numbers, 12 of them too large, so that none is below zero. Groups say
// how rows' numbers are `place`d and weights are `decode`d (or read `packed`), and `add` the sums of Rows rows
// with one panel to the rows' sums in floats; `rows`: added together at most.

/// A group of a row, its numbers in the order that Groups want. `offset`: what the sum is too large by.
struct row_group {
  signed char number[2 * int8_group];
  float half_scale, offset;
};

/// The sum of a group in integers, as floats, to a row's sums.
SHUNT_INLINE void add_scaled_group(row_group const& a, vf const (&sum)[panel_vectors],
                                   vf const (&scale)[panel_vectors], float* c) noexcept {
  vf const half_scale = fill(a.half_scale), offset = fill(a.offset);
  unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
    float* const at = c + v.value * lanes;
    store(at, fma(sum[v.value] - offset, half_scale * scale[v.value], load(at)));
  });
}

#if SHUNT_REGION >= 256
SHUNT_INLINE int sum_of_numbers(signed char const* number) noexcept {
  __m256i sums = _mm256_setzero_si256();
  for (int i = 0; i < int8_group; i += 16) {
    sums =
        _mm256_add_epi16(sums, _mm256_cvtepi8_epi16(_mm_loadu_si128((__m128i const*)(number + i))));
  }
  __m256i const wide = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

/// Of each four k 32 bytes for k and k + 2, then 32 for the others. Of rows r and r + 8 two bytes each, side by side,
/// in the order in which they lie packed.
struct four_k {
  __m256i even, odd;
};
SHUNT_INLINE four_k decode_four(unsigned char const* packed) noexcept {
  __m256i const halves = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  __m256i const low = _mm256_set1_epi8(15), both = _mm256_loadu_si256((__m256i const*)packed);
  __m256i const first = _mm256_shuffle_epi8(halves, _mm256_and_si256(both, low));
  __m256i const last =
      _mm256_shuffle_epi8(halves, _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
  return {_mm256_unpacklo_epi8(first, last), _mm256_unpackhi_epi8(first, last)};
}

/// Two vectors of 8 integers as vectors of columns.
SHUNT_INLINE void join_columns(__m256i low, __m256i high, vf (&to)[panel_vectors]) noexcept {
#if SHUNT_REGION == 512
  __m512i const both = _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);
  to[0] = to_float_lanes((vu)both);
#else
  to[0] = to_float_lanes((vu)low);
  to[1] = to_float_lanes((vu)high);
#endif
}

/// Pairs of bytes, their sums in 16 bits. A row's numbers of k, k + 2 and of k + 1, k + 3 stand side by side, for each
/// four k, and each pair twice, as a vector is filled with them.
struct groups_by_bytes {
  static constexpr int rows = 4, bytes = panel_columns * int8_group;
  struct packed {
    unsigned char const* at;
    SHUNT_INLINE explicit packed(decoder<mxfp4> const& weights) noexcept : at(weights.number) {}
    SHUNT_INLINE four_k get(int i) const noexcept { return decode_four(at + 32 * i); }
  };
  struct decoded {
    unsigned char const* at;
    SHUNT_INLINE four_k get(int i) const noexcept {
      auto const* const from = (__m256i const*)(at + 64 * i);
      return {_mm256_load_si256(from), _mm256_load_si256(from + 1)};
    }
  };
  static SHUNT_INLINE void decode(decoder<mxfp4> const& weights, unsigned char* to) noexcept {
    for (int i = 0; i < int8_group / 4; ++i) {
      four_k const w = decode_four(weights.number + 32 * i);
      _mm256_store_si256((__m256i*)(to + 64 * i), w.even);
      _mm256_store_si256((__m256i*)(to + 64 * i + 32), w.odd);
    }
  }
  static SHUNT_INLINE int place(signed char const* number, signed char* to) noexcept {
    __m256i const in_fours = _mm256_setr_epi8(0, 2, 0, 2, 1, 3, 1, 3, 4, 6, 4, 6, 5, 7, 5, 7, 8, 10,
                                              8, 10, 9, 11, 9, 11, 12, 14, 12, 14, 13, 15, 13, 15);
    for (int i = 0; i < int8_group; i += 16) {
      __m128i const half = _mm_loadu_si128((__m128i const*)(number + i));
      _mm256_storeu_si256((__m256i*)(to + 2 * i),
                          _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), in_fours));
    }
    return sum_of_numbers(number);
  }
  template <int Rows, class Weights>
  static SHUNT_INLINE void add(row_group const* a, Weights const& weights,
                               vf const (&scale)[panel_vectors], float* c,
                               std::int64_t c_row) noexcept {
    __m256i low[Rows], high[Rows];
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      low[r.value] = high[r.value] = _mm256_setzero_si256();
    });
    __m256i const lower = _mm256_set1_epi32(1);
    for (int i = 0; i < int8_group / 4;
         i += 2) {  // four products of at most 2 * 24 * 127 fit 16 bits
      four_k const w0 = weights.get(i), w1 = weights.get(i + 1);
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        auto const times = [&](__m256i w, int at) __attribute__((always_inline)) {
          int pairs;
          __builtin_memcpy(&pairs, a[r.value].number + 4 * at, sizeof pairs);
          return _mm256_maddubs_epi16(w, _mm256_set1_epi32(pairs));
        };
        __m256i const sum =
            _mm256_add_epi16(_mm256_add_epi16(times(w0.even, 2 * i), times(w0.odd, 2 * i + 1)),
                             _mm256_add_epi16(times(w1.even, 2 * i + 2), times(w1.odd, 2 * i + 3)));
        low[r.value] = _mm256_add_epi32(low[r.value], _mm256_madd_epi16(sum, lower));
        high[r.value] = _mm256_add_epi32(high[r.value], _mm256_srai_epi32(sum, 16));
      });
    }
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      vf x[panel_vectors];
      join_columns(low[r.value], high[r.value], x);
      add_scaled_group(a[r.value], x, scale, c + r.value * c_row);
    });
  }
};
using groups_of_region = groups_by_bytes;
#else
/// Floats, in which all sums are exact too; numbers in order.
struct groups_by_floats {
  static constexpr int rows = 1, bytes = panel_columns * int8_group * sizeof(float);
  struct decoded {
    unsigned char const* at;
  };
  struct packed {
    unsigned char at[bytes];
    explicit packed(decoder<mxfp4> const& weights) noexcept { decode(weights, at); }
  };
  static SHUNT_INLINE void decode(decoder<mxfp4> const& weights, unsigned char* to) noexcept {
    for (int k = 0; k < int8_group; ++k) {
      weights.each<false>(
          k, nullptr, [&](auto, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
            for (vf const& x : w) {
              vf const halves = x + x + 12.0f;  // exact
              __builtin_memcpy(to, &halves, sizeof halves);
              to += sizeof halves;
            }
          });
    }
  }
  static SHUNT_INLINE int place(signed char const* number, signed char* to) noexcept {
    int sum = 0;
    for (int k = 0; k < int8_group; ++k) sum += to[k] = number[k];
    return sum;
  }
  template <int Rows, class Weights>
  static SHUNT_INLINE void add(row_group const* a, Weights const& weights,
                               vf const (&scale)[panel_vectors], float* c, std::int64_t) noexcept {
    static_assert(Rows == 1);
    vf sum[panel_vectors] = {};
    for (int k = 0; k < int8_group; ++k) {
      vf const number = fill(a->number[k]);
      for (int v = 0; v < panel_vectors; ++v) {
        vf w;
        __builtin_memcpy(&w, weights.at + (k * panel_columns + v * lanes) * 4, sizeof w);
        sum[v] = sum[v] + product(w, number);
      }
    }
    add_scaled_group(*a, sum, scale, c);
  }
};
using groups_of_region = groups_by_floats;
#endif
