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
/// Each to the upper half of a lane, and back.
SHUNT_LANES vu widen_upper(vh h) noexcept {
  return (vu)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)h) << 16;
}
SHUNT_LANES vh narrow_upper(vu x) noexcept {
  return (vh)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)(x >> 16));
}
/// Past the caches, to an aligned place; drain() before other threads may read it.
SHUNT_LANES void stream(float* to, vf x) noexcept { _mm512_stream_ps(to, (__m512)x); }
SHUNT_LANES void drain() noexcept { _mm_sfence(); }
