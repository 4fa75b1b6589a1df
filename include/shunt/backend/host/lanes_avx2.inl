// No include guard: what the AVX2 region does by intrinsics.
using vf = float __attribute__((vector_size(32)));
using vu = unsigned __attribute__((vector_size(32)));
using vh = unsigned short __attribute__((vector_size(16)));

SHUNT_LANES vf fma(vf a, vf b, vf c) noexcept {
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
SHUNT_LANES vf sqrt(vf x) noexcept { return (vf)_mm256_sqrt_ps((__m256)x); }
SHUNT_LANES vf widen_half(vh h) noexcept { return (vf)_mm256_cvtph_ps((__m128i)h); }
SHUNT_LANES vh narrow_half(vf x) noexcept {
  return (vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
}
