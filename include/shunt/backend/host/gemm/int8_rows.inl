// No include guard: rows of the left operand as integers, for products with int8 or mxfp4 weights whose sums
// are then exact. A group of a row (int8_channel: all of it, mxfp4: each 32) has one scale, its largest
// magnitude / 127; a number is the integer nearest to element * (127 / largest), ties to even.
using vi = int __attribute__((vector_size(sizeof(vf))));
inline constexpr int int8_group = 32;  ///< numbers rounded together

struct int8_scale {
  float scale, inverse;
  unsigned offset = 0;  ///< what sums of the row are too large by; see int8_vnni
};

struct larger_bits {
  SHUNT_INLINE vf operator()(vf a, vf b) const noexcept {
#if SHUNT_REGION == 512
    return (vf)_mm512_maskz_max_epi32(0xffff, (__m512i)a, (__m512i)b);
#elif SHUNT_REGION == 256
    return (vf)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    return (vi)a > (vi)b ? a : b;
#endif
  }
};
/// The largest magnitude, or what is no number or infinite: its bits are larger than all others.
template <class T>
SHUNT_INLINE float largest_magnitude(T const* from, std::int64_t count) noexcept {
  vf most = {};
  for (std::int64_t k = 0; k < count; k += lanes) {
    vf const x = count - k < lanes ? load_first(from + k, count - k) : load(from + k);
    most = larger_bits{}(most, as_float(as_bits(x) & 0x7fffffffu));
  }
  return halve_lanes<lanes / 2>(most, larger_bits{}, std::make_integer_sequence<int, lanes>{});
}
/// Of a group whose largest is below 2^-100 all are zeros.
SHUNT_INLINE int8_scale int8_scale_of(float largest) noexcept {
  constexpr float infinite = __builtin_inff();
  if (!(largest < infinite)) return {__builtin_nanf(""), 0.0f};
  if (largest < 0x1p-100f) return {0.0f, 0.0f};
  return {largest / 127.0f, 127.0f / largest};
}

/// x * inverse, to the nearest integer: its lower 16 bits.
SHUNT_INLINE vu rounded(vf x, vf inverse) noexcept {
  constexpr float room = 0x1.8p23f;  // leaves none for a fraction
  return as_bits(fma(x, inverse, fill(room)));
}

/// Vectors of a group to bytes, in order.
SHUNT_INLINE void store_bytes(vi const (&x)[int8_group / lanes], signed char* to) noexcept {
#if SHUNT_REGION == 512
  constexpr __mmask16 all = 0xffff;
  for (int i = 0; i < 2; ++i) {
    _mm_storeu_si128((__m128i*)(to + 16 * i), _mm512_maskz_cvtepi32_epi8(all, (__m512i)x[i]));
  }
#elif SHUNT_REGION == 256
  __m256i const low = _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
  __m256i const high = _mm256_packs_epi32((__m256i)x[2], (__m256i)x[3]);
  __m256i const order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256((__m256i*)to,
                      _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
#else
  for (int i = 0; i < int8_group; ++i) to[i] = static_cast<signed char>(x[i / lanes][i % lanes]);
#endif
}

/// The numbers of the first `count` of a group, zeros behind them. Of one that is not finite nothing is said:
/// its scale makes them NaN.
template <class T>
SHUNT_INLINE void round_group(T const* from, std::int64_t count, float inverse,
                              signed char* to) noexcept {
  vi number[int8_group / lanes];
  for (int i = 0; i < int8_group / lanes; ++i) {
    std::int64_t const left = count - i * lanes;
    vf const x = left >= lanes ? load(from + i * lanes)
                 : left > 0    ? load_first(from + i * lanes, left)
                               : vf{};
    number[i] = (vi)(rounded(x, fill(inverse)) << 16) >> 16;
  }
  store_bytes(number, to);
}
