// No include guard: what the portable region does in its own way. 16 bytes: SSE2, NEON.
using vf = float __attribute__((vector_size(16)));
using vu = unsigned __attribute__((vector_size(16)));
using vh = unsigned short __attribute__((vector_size(8)));

#if !defined(__aarch64__) && !defined(__FMA__)
/// A fused multiply-add without the instruction, exact: the product of two floats is exact in double;
/// the sum is rounded to odd there, so that the last rounding is the only one. A call, not inlined:
/// forty instructions at each use would make the portable kernels huge and slow to compile.
__attribute__((noinline)) inline vf fma_by_doubles(vf a, vf b, vf c) noexcept {
  using vd = double __attribute__((vector_size(32)));
  using vl = long long __attribute__((vector_size(32)));
  vd const product = __builtin_convertvector(a, vd) * __builtin_convertvector(b, vd);
  vd const addend = __builtin_convertvector(c, vd);
  vd const sum = product + addend;
  vd const back = sum - product;
  vd const lost = (product - (sum - back)) + (addend - back);
  vl const bits = (vl)sum, even = (bits & 1) == 0;
  vl const inexact = (lost > 0.0) | (lost < 0.0);
  vl const outward = (lost > 0.0) == (sum > 0.0);  // away from zero: one more in the last place
  vl const step = (outward & 1) * 2 - 1;
  return __builtin_convertvector((vd)(bits + (step & inexact & even)), vf);
}
#endif

SHUNT_INLINE vf fma(vf a, vf b, vf c) noexcept {
#if defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(__FMA__)
  return (vf)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#else
  return fma_by_doubles(a, b, c);
#endif
}
/// a · b, rounded, for a product that feeds an addition: see math::product.
SHUNT_INLINE vf product(vf a, vf b) noexcept {
#if defined(__aarch64__) || defined(__FMA__)
  return fma(a, b, vf{});
#else
  return a * b + vf{};  // nothing to fuse it with
#endif
}

SHUNT_INLINE vf sqrt(vf x) noexcept {
  vf y = x;
  for (int i = 0; i < 4; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

SHUNT_INLINE vf widen_half(vh h) noexcept {
  vf y = {};
  for (int i = 0; i < 4; ++i) y[i] = ::shunt::to_float(fp16{h[i]});
  return y;
}

SHUNT_INLINE vh narrow_half(vf x) noexcept {
  vh y = {};
  for (int i = 0; i < 4; ++i) y[i] = ::shunt::from_float<fp16>(x[i]).bits;
  return y;
}

/// Each to the upper half of a lane, and back.
SHUNT_INLINE vu widen_upper(vh h) noexcept { return __builtin_convertvector(h, vu) << 16; }
SHUNT_INLINE vh narrow_upper(vu x) noexcept { return __builtin_convertvector(x >> 16, vh); }

/// Past the caches where there is a way: here not.
SHUNT_INLINE void store_nontemporal(float* to, vf x) noexcept {
  __builtin_memcpy(to, &x, sizeof x);
}
SHUNT_INLINE void store_fence() noexcept {}
