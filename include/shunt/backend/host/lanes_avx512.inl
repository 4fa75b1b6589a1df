// No include guard: what the AVX-512 region does by intrinsics (zero-masking forms: g++
// warns of the undefined operand inside the plain ones).
using vf = float __attribute__((vector_size(64)));
using vu = unsigned __attribute__((vector_size(64)));
using vh = unsigned short __attribute__((vector_size(32)));

SHUNT_LANES vf fma(vf a, vf b, vf c) noexcept {
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
SHUNT_LANES vf sqrt(vf x) noexcept { return (vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
SHUNT_LANES vf widen_half(vh h) noexcept { return (vf)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h); }
SHUNT_LANES vh narrow_half(vf x) noexcept {
  return (vh)_mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
}
