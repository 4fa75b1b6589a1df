// No include guard: products of rows in int8 by dot products of four bytes, for processors of isa::avx512_vnni.
// Their instruction takes weights without a sign: they are made too large, and a row's sums too large by
// as many times the sum of its numbers, which is taken off at the end.
SHUNT_INLINE vu fill_four(void const* numbers) noexcept {
  unsigned bits;
  __builtin_memcpy(&bits, numbers, sizeof bits);
  return vu{} + bits;
}

/// int8_channel: four neighboring k, see gemm/int8.inl.
struct by_fours {
  static SHUNT_INLINE void add(float const* at, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
    vu first = as_bits(sum0), second = as_bits(sum1);
    add_fours(first, second, as_bits(b0), as_bits(b1), at);
    sum0 = as_float(first);
    sum1 = as_float(second);
  }
};
/// Four to a part: columns of 4 bytes, then in each part bytes. The second is read from memory, as a tile leaves
/// no register.
alignas(64) inline constexpr unsigned columns_in_parts[] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                            2, 6, 10, 14, 3, 7, 11, 15};
alignas(64) inline constexpr unsigned bytes_in_parts[] = {
    0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703, 0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703,
    0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703, 0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703};
inline constexpr unsigned sign_bits = 0x80808080;

struct int8_vnni {
  static constexpr int k_per_word = 4;
  using sums = by_fours;
  /// Vector V of a tile, of the bytes of four k that lie behind each other in a panel, 128 too large.
  template <int V>
  static SHUNT_INLINE vf weights(unsigned char const* from, std::int64_t panel_stride) noexcept {
    using bytes = unsigned char[sizeof(vu)];
    auto const& packed = *reinterpret_cast<bytes const*>(from + V * panel_stride);
    vu columns, x;
    __builtin_memcpy(&columns, columns_in_parts, sizeof columns);
#if defined(SHUNT_EMULATE_AVX512)
    __builtin_memcpy(&x, packed, sizeof x);
    x = (vu)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)columns, (__m512i)x);
    vu pattern;
    __builtin_memcpy(&pattern, bytes_in_parts, sizeof pattern);
    x = (vu)_mm512_maskz_shuffle_epi8(~__mmask64{0}, (__m512i)x, (__m512i)pattern) ^ sign_bits;
#else
    __asm__(
        "vpermd {%2, %1, %0|%0, %1, %2}\n\t"
        "vpshufb {%3, %0, %0|%0, %0, %3}\n\t"
        "vpxord {%4%{1to16%}, %0, %0|%0, %0, %4%{1to16%}}"
        : "=&v"(x)
        : "v"(columns), "m"(packed), "m"(bytes_in_parts), "m"(sign_bits));
#endif
    return as_float(x);
  }
  static SHUNT_INLINE __m128i narrow(vu numbers) noexcept {
    return _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)numbers);
  }
  static SHUNT_INLINE void count(vu numbers, vu& sum) noexcept {
    sum = sum + (vu)((vi)(numbers << 16) >> 16);
  }
  static constexpr unsigned too_much = 128;
};

/// mxfp4: see gemm/int8_sums.inl. Of eight k what the first four hold, then the others; of a column k, k + 2,
/// k + 1, k + 3; columns 0, 8, 1, 9, 4, 12, 5, 13, then each 2 more.
struct eight_k {
  vu four[2];
};
static_assert(sizeof(eight_k) == 128);
SHUNT_INLINE eight_k decode_eight(unsigned char const* packed) noexcept {
  constexpr __mmask16 all = 0xffff;
  constexpr __mmask64 each = ~__mmask64{0};
  vu const halves = {0x0f0e0d0c, 0x18141210, 0x090a0b0c, 0x00040608, 0x0f0e0d0c, 0x18141210,
                     0x090a0b0c, 0x00040608, 0x0f0e0d0c, 0x18141210, 0x090a0b0c, 0x00040608,
                     0x0f0e0d0c, 0x18141210, 0x090a0b0c, 0x00040608};
  vu both;
  __builtin_memcpy(&both, packed, sizeof both);
  auto const look_up = [&](vu at) __attribute__((always_inline)) {
    return _mm512_maskz_shuffle_epi8(each, (__m512i)halves, (__m512i)(at & 0x0f0f0f0fu));
  };
  __m512i const first = look_up(both), last = look_up(both >> 4);
  __m512i const even = _mm512_maskz_unpacklo_epi8(each, first, last);
  __m512i const odd = _mm512_maskz_unpackhi_epi8(each, first, last);
  __m512i const low = _mm512_maskz_unpacklo_epi16(0xffffffff, even, odd);
  __m512i const high = _mm512_maskz_unpackhi_epi16(0xffffffff, even, odd);
  return {{(vu)_mm512_maskz_shuffle_i32x4(all, low, high, 0x44),
           (vu)_mm512_maskz_shuffle_i32x4(all, low, high, 0xee)}};
}
struct groups_by_fours {
  static constexpr int rows = 8, bytes = panel_columns * int8_group;
  static constexpr unsigned char order[16] = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15};
  struct packed {
    unsigned char const* at;
    SHUNT_INLINE explicit packed(decoder<mxfp4> const& weights) noexcept : at(weights.number) {}
    SHUNT_INLINE eight_k get(int i) const noexcept { return decode_eight(at + 64 * i); }
  };
  struct decoded {
    unsigned char const* at;
    SHUNT_INLINE eight_k get(int i) const noexcept {
      eight_k w;
      __builtin_memcpy(&w, at + 128 * i, sizeof w);
      return w;
    }
  };
  static SHUNT_INLINE void decode(decoder<mxfp4> const& weights, unsigned char* to) noexcept {
    for (int i = 0; i < int8_group / 8; ++i) {
      eight_k const w = decode_eight(weights.number + 64 * i);
      __builtin_memcpy(to + 128 * i, &w, sizeof w);
    }
  }
  static SHUNT_INLINE int place(signed char const* number, signed char* to) noexcept {
    __m128i shuffle;
    __builtin_memcpy(&shuffle, order, sizeof shuffle);
    for (int i = 0; i < int8_group; i += 16) {
      __m128i const x = _mm_loadu_si128((__m128i const*)(number + i));
      _mm_storeu_si128((__m128i*)(to + i), _mm_shuffle_epi8(x, shuffle));
    }
    return sum_of_numbers(number);
  }
  template <int Rows, class Weights>
  static SHUNT_INLINE void add(row_group const* a, Weights const& weights,
                               vf const (&scale)[panel_vectors], float* c,
                               std::int64_t c_row) noexcept {
    vu sum[Rows] = {};
    unroll<int8_group / 8>([&](auto i) __attribute__((always_inline)) {
      eight_k const w = weights.get(i.value);
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        signed char const* const number = a[r.value].number + 8 * i.value;
        add_fours(sum[r.value], w.four[0], fill_four(number));
        add_fours(sum[r.value], w.four[1], fill_four(number + 4));
      });
    });
    vu const in_order = {0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15};
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      vf const x = to_float_lanes(
          (vu)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)in_order, (__m512i)sum[r.value]));
      add_scaled_group(a[r.value], {x}, scale, c + r.value * c_row);
    });
  }
};
