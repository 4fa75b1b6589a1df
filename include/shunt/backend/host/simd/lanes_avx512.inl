// No include guard: what the AVX-512 region does by intrinsics (zero-masking forms: g++
// warns of the undefined operand inside the plain ones).
using vf = float __attribute__((vector_size(64)));
using vu = unsigned __attribute__((vector_size(64)));
using vh = unsigned short __attribute__((vector_size(32)));

SHUNT_INLINE vf fma(vf a, vf b, vf c) noexcept {
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
/// a · b, rounded, for a product that feeds an addition: see math::product.
SHUNT_INLINE vf product(vf a, vf b) noexcept { return fma(a, b, vf{}); }
/// A pair of bf16, in the place of one float, with the pairs that are the lanes of b0 and b1: to each sum
/// the product of the upper halves, then that of the lower ones, each a fused multiply-add to nearest; what
/// is smaller than 2^-126 counts as zero, as operand, sum and result. For processors of isa::avx512_bf16
/// alone. In assembly: the intrinsic asks for functions that the compiler may fill with other instructions
/// of that set, which the tile's code for all other processors must not have.
SHUNT_INLINE void add_dots(float const* pair, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
#if defined(SHUNT_EMULATE_AVX512)
  unsigned bits;
  __builtin_memcpy(&bits, pair, sizeof bits);
  vf const left = (vf)(vu{} + bits);
  sum0 = (vf)_mm512_dpbf16_ps((__m512)sum0, (__m512)left, (__m512)b0);
  sum1 = (vf)_mm512_dpbf16_ps((__m512)sum1, (__m512)left, (__m512)b1);
#else
  [[maybe_unused]] vf left;  // nvcc finds it unused
  __asm__(
      "vpbroadcastd {%3, %2|%2, %3}\n\t"
      "vdpbf16ps {%4, %2, %0|%0, %2, %4}\n\t"
      "vdpbf16ps {%5, %2, %1|%1, %2, %5}"
      : "+v"(sum0), "+v"(sum1), "=&v"(left)
      : "m"(*pair), "v"(b0), "v"(b1));
#endif
}
/// The same for one sum.
SHUNT_INLINE void add_dot(float const* pair, vf b, vf& sum) noexcept {
#if defined(SHUNT_EMULATE_AVX512)
  unsigned bits;
  __builtin_memcpy(&bits, pair, sizeof bits);
  sum = (vf)_mm512_dpbf16_ps((__m512)sum, (__m512)(vu{} + bits), (__m512)b);
#else
  [[maybe_unused]] vf left;  // nvcc finds it unused
  __asm__(
      "vpbroadcastd {%2, %1|%1, %2}\n\t"
      "vdpbf16ps {%3, %1, %0|%0, %1, %3}"
      : "+v"(sum), "=&v"(left)
      : "m"(*pair), "v"(b));
#endif
}
/// To each 32 bits of the sum the four products of its bytes, of weights 0 to 255 and rows' numbers -128 to 127. For
/// processors of isa::avx512_vnni alone, and in assembly, as above.
SHUNT_INLINE void add_fours(vu& sum, vu weights, vu numbers) noexcept {
#if defined(SHUNT_EMULATE_AVX512)
  sum = (vu)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)numbers);
#else
  __asm__("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(sum) : "v"(weights), "v"(numbers));
#endif
}
/// The same of two sums with the row's four numbers that are at `numbers`. The broadcast is in the assembly of its
/// products: clang hoists the broadcasts of all rows otherwise, and spills them.
SHUNT_INLINE void add_fours(vu& sum0, vu& sum1, vu weights0, vu weights1,
                            float const* numbers) noexcept {
#if defined(SHUNT_EMULATE_AVX512)
  unsigned bits;
  __builtin_memcpy(&bits, numbers, sizeof bits);
  vu const row = vu{} + bits;
  add_fours(sum0, weights0, row);
  add_fours(sum1, weights1, row);
#else
  [[maybe_unused]] vu row;  // nvcc sees no use of it in the assembly
  __asm__(
      "vpbroadcastd {%5, %2|%2, %5}\n\t"
      "vpdpbusd {%2, %3, %0|%0, %3, %2}\n\t"
      "vpdpbusd {%2, %4, %1|%1, %4, %2}"
      : "+v"(sum0), "+v"(sum1), "=&v"(row)
      : "v"(weights0), "v"(weights1), "m"(*numbers));
#endif
}
SHUNT_INLINE vf sqrt(vf x) noexcept { return (vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
SHUNT_INLINE vf widen_half(vh h) noexcept { return (vf)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h); }
SHUNT_INLINE vh narrow_half(vf x) noexcept {
  return (vh)_mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
}
/// Each to the upper half of a lane, and back.
SHUNT_INLINE vu widen_upper(vh h) noexcept {
  return (vu)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)h) << 16;
}
SHUNT_INLINE vh narrow_upper(vu x) noexcept {
  return (vh)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)(x >> 16));
}
/// A non-temporal store to an aligned place; store_fence() before other threads may read it.
SHUNT_INLINE void store_nontemporal(float* to, vf x) noexcept { _mm512_stream_ps(to, (__m512)x); }
SHUNT_INLINE void store_fence() noexcept { _mm_sfence(); }
