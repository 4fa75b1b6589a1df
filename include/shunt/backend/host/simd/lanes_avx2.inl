// No include guard: what the AVX2 region does by intrinsics.
using vf = float __attribute__((vector_size(32)));
using vu = unsigned __attribute__((vector_size(32)));
using vh = unsigned short __attribute__((vector_size(16)));

SHUNT_INLINE vf fma(vf a, vf b, vf c) noexcept {
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
/// a · b, rounded, for a product that feeds an addition: see math::product.
SHUNT_INLINE vf product(vf a, vf b) noexcept { return fma(a, b, vf{}); }
SHUNT_INLINE vf sqrt(vf x) noexcept { return (vf)_mm256_sqrt_ps((__m256)x); }
SHUNT_INLINE vf widen_half(vh h) noexcept { return (vf)_mm256_cvtph_ps((__m128i)h); }
SHUNT_INLINE vh narrow_half(vf x) noexcept {
  return (vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
}
/// Each to the upper half of a lane, and back. What g++ 12 makes of __builtin_convertvector takes four
/// times as long.
SHUNT_INLINE vu widen_upper(vh h) noexcept { return (vu)_mm256_cvtepu16_epi32((__m128i)h) << 16; }
SHUNT_INLINE vh narrow_upper(vu x) noexcept {
  __m256i const halves = (__m256i)(x >> 16);
  __m256i const packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0x08);
  return (vh)_mm256_castsi256_si128(packed);
}
/// A non-temporal store to an aligned place; store_fence() before other threads may read it.
SHUNT_INLINE void store_nontemporal(float* to, vf x) noexcept { _mm256_stream_ps(to, (__m256)x); }
SHUNT_INLINE void store_fence() noexcept { _mm_sfence(); }
