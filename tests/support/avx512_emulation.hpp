#pragma once
// AVX-512 by pairs of AVX2 vectors, for machines without it: included before everything else, it lets
// the AVX-512 region of the host backend run, slowly. Only what the region calls is here.
#include <immintrin.h>

#define SHUNT_EMULATE_AVX512 1
#define SHUNT_REGION_BEGIN_AVX512 SHUNT_REGION_BEGIN_AVX2

namespace shunt::test::emulated {

using f16 = float __attribute__((vector_size(64)));
using i16 = int __attribute__((vector_size(64)));
using h16 = unsigned short __attribute__((vector_size(32)));

#define SHUNT_EMULATED [[gnu::always_inline]] [[gnu::target("avx2,fma,f16c")]] inline

template <class V> union halves {
  V whole;
  __m256 part[2];
  __m256i bits[2];
};

SHUNT_EMULATED f16 fmadd(f16 a, f16 b, f16 c) {
  halves<f16> x{a}, y{b}, z{c};
  for (int i = 0; i < 2; ++i) z.part[i] = _mm256_fmadd_ps(x.part[i], y.part[i], z.part[i]);
  return z.whole;
}
SHUNT_EMULATED f16 sqrt(f16 a) {
  halves<f16> x{a};
  for (int i = 0; i < 2; ++i) x.part[i] = _mm256_sqrt_ps(x.part[i]);
  return x.whole;
}
SHUNT_EMULATED f16 widen(h16 h) {
  halves<f16> x{};
  for (int i = 0; i < 2; ++i) {
    x.part[i] = _mm256_cvtph_ps(_mm256_extractf128_si256((__m256i)h, 0));
    h = (h16)_mm256_permute2x128_si256((__m256i)h, (__m256i)h, 1);
  }
  return x.whole;
}
SHUNT_EMULATED h16 narrow(f16 a) {
  halves<f16> x{a};
  return (h16)_mm256_set_m128i(_mm256_cvtps_ph(x.part[1], _MM_FROUND_TO_NEAREST_INT),
                               _mm256_cvtps_ph(x.part[0], _MM_FROUND_TO_NEAREST_INT));
}
/// Eight lanes of the dot product of pairs: those of the upper halves, then those of the lower ones, with
/// the processor's own rule for what is too small (DAZ, FTZ), to nearest, whatever MXCSR says.
SHUNT_EMULATED __m256 dot(__m256 sum, __m256i a, __m256i b) {
  unsigned const small_is_zero = 0x9fc0;
  unsigned before = 0;
  __m256i const upper = _mm256_set1_epi32(-0x10000);
  __m256 const a1 = (__m256)_mm256_and_si256(a, upper), b1 = (__m256)_mm256_and_si256(b, upper);
  __m256 const a0 = (__m256)_mm256_slli_epi32(a, 16), b0 = (__m256)_mm256_slli_epi32(b, 16);
  __asm__(
      "stmxcsr %1\n\tldmxcsr %2\n\tvfmadd231ps %3, %4, %0\n\tvfmadd231ps %5, %6, %0\n\tldmxcsr %1"
      : "+x"(sum), "+m"(before)
      : "m"(small_is_zero), "x"(a1), "x"(b1), "x"(a0), "x"(b0));
  return sum;
}
SHUNT_EMULATED f16 dot(f16 sum, f16 a, f16 b) {
  halves<f16> x{sum}, y{a}, z{b};
  for (int i = 0; i < 2; ++i) x.part[i] = dot(x.part[i], y.bits[i], z.bits[i]);
  return x.whole;
}
SHUNT_EMULATED void stream(float* to, f16 a) {
  halves<f16> x{a};
  for (int i = 0; i < 2; ++i) _mm256_stream_ps(to + 8 * i, x.part[i]);
}
/// Within each of the four 128-bit parts: elements A, B of a, then C, D of b.
template <int A, int B, int C, int D> SHUNT_EMULATED f16 in_parts(f16 a, f16 b) {
  f16 r;
  for (int p = 0; p < 16; p += 4) {
    r[p] = a[p + A];
    r[p + 1] = b[p + B];
    r[p + 2] = a[p + C];
    r[p + 3] = b[p + D];
  }
  return r;
}
template <int Which> SHUNT_EMULATED f16 shuffle(f16 a, f16 b) {
  f16 r;
  for (int p = 0; p < 16; p += 4) {
    r[p] = a[p + (Which & 3)];
    r[p + 1] = a[p + (Which >> 2 & 3)];
    r[p + 2] = b[p + (Which >> 4 & 3)];
    r[p + 3] = b[p + (Which >> 6 & 3)];
  }
  return r;
}
/// Whole parts: two of a, then two of b.
template <int Which> SHUNT_EMULATED f16 shuffle_parts(f16 a, f16 b) {
  f16 r;
  for (int j = 0; j < 4; ++j) {
    r[j] = a[4 * (Which & 3) + j];
    r[4 + j] = a[4 * (Which >> 2 & 3) + j];
    r[8 + j] = b[4 * (Which >> 4 & 3) + j];
    r[12 + j] = b[4 * (Which >> 6 & 3) + j];
  }
  return r;
}
SHUNT_EMULATED f16 in_all_parts(__m128 part) {
  f16 to;
  for (int i = 0; i < 16; ++i) to[i] = part[i % 4];
  return to;
}
template <int Part> SHUNT_EMULATED f16 with_part(f16 a, __m128 part) {
  for (int i = 0; i < 4; ++i) a[4 * Part + i] = part[i];
  return a;
}
SHUNT_EMULATED unsigned signs(i16 a) {
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= unsigned(a[i] < 0) << i;
  return mask;
}
template <class Byte> SHUNT_EMULATED i16 widen_bytes(__m128i a) {
  Byte x[16];
  __builtin_memcpy(x, &a, sizeof x);
  i16 r = {};
  for (int i = 0; i < 16; ++i) r[i] = x[i];
  return r;
}
SHUNT_EMULATED i16 bytes_to_halves(__m256i a) {
  halves<i16> x{};
  x.bits[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(a));
  x.bits[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(a, 1));
  return x.whole;
}
SHUNT_EMULATED i16 with_upper(__m256i low, __m256i high) {
  halves<i16> x{};
  x.bits[0] = low;
  x.bits[1] = high;
  return x.whole;
}
SHUNT_EMULATED __m128i narrow_to_bytes(i16 a) {
  signed char x[16];
  for (int i = 0; i < 16; ++i) x[i] = static_cast<signed char>(a[i]);
  __m128i r;
  __builtin_memcpy(&r, x, sizeof r);
  return r;
}
SHUNT_EMULATED f16 look_up(i16 at, f16 table) {
  f16 r = {};
  for (int i = 0; i < 16; ++i) r[i] = table[at[i] & 15];
  return r;
}
/// 16 bits from each place that `at` names.
SHUNT_EMULATED i16 look_up_halves(i16 at, i16 table) {
  using w32 = unsigned short __attribute__((vector_size(64)));
  w32 const from = (w32)table, place = (w32)at;
  w32 r = {};
  for (int i = 0; i < 32; ++i) r[i] = from[place[i] & 31];
  return (i16)r;
}
/// By halves, with the instruction of AVX2.
#define SHUNT_BY_HALVES(name, instruction)                                         \
  SHUNT_EMULATED i16 name(i16 a, i16 b) {                                          \
    halves<i16> x{a}, y{b};                                                        \
    for (int i = 0; i < 2; ++i) { x.bits[i] = instruction(x.bits[i], y.bits[i]); } \
    return x.whole;                                                                \
  }
SHUNT_BY_HALVES(madd, _mm256_madd_epi16)
SHUNT_BY_HALVES(larger, _mm256_max_epi32)
SHUNT_BY_HALVES(shuffle_bytes, _mm256_shuffle_epi8)
SHUNT_BY_HALVES(bytes_low, _mm256_unpacklo_epi8)
SHUNT_BY_HALVES(bytes_high, _mm256_unpackhi_epi8)
SHUNT_BY_HALVES(words_low, _mm256_unpacklo_epi16)
SHUNT_BY_HALVES(words_high, _mm256_unpackhi_epi16)
#undef SHUNT_BY_HALVES
/// Four products of bytes, the first without a sign, to each sum: as the processor, without saturation.
SHUNT_EMULATED i16 dot_bytes(i16 sum, i16 a, i16 b) {
  unsigned char x[64];
  signed char y[64];
  __builtin_memcpy(x, &a, sizeof x);
  __builtin_memcpy(y, &b, sizeof y);
  for (int i = 0; i < 64; ++i) {
    sum[i / 4] =
        static_cast<int>(static_cast<unsigned>(sum[i / 4]) + static_cast<unsigned>(x[i] * y[i]));
  }
  return sum;
}
SHUNT_EMULATED i16 shift_right(i16 a, unsigned bits) {
  using u16 = unsigned __attribute__((vector_size(64)));
  return (i16)((u16)a >> bits);
}
SHUNT_EMULATED f16 set(float p, float o, float n, float m, float l, float k, float j, float i,
                       float h, float g, float f, float e, float d, float c, float b, float a) {
  return f16{a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
}
#undef SHUNT_EMULATED

}  // namespace shunt::test::emulated

#define __m512 ::shunt::test::emulated::f16
#define __m512i ::shunt::test::emulated::i16
#define _mm512_fmadd_ps(a, b, c) ::shunt::test::emulated::fmadd(a, b, c)
#define _mm512_maskz_sqrt_ps(k, a) ::shunt::test::emulated::sqrt(a)
#define _mm512_maskz_cvtph_ps(k, a) ::shunt::test::emulated::widen((::shunt::test::emulated::h16)a)
#define _mm512_maskz_cvtps_ph(k, a, r) ::shunt::test::emulated::narrow(a)
#define _mm512_maskz_cvtepu16_epi32(k, a) \
  __builtin_convertvector((::shunt::test::emulated::h16)a, ::shunt::test::emulated::i16)
#define _mm512_maskz_cvtepi32_epi16(k, a) __builtin_convertvector(a, ::shunt::test::emulated::h16)
#define _mm512_stream_ps(to, a) ::shunt::test::emulated::stream(to, a)
#define _mm512_maskz_unpacklo_ps(k, a, b) \
  ((void)(k), ::shunt::test::emulated::in_parts<0, 0, 1, 1>(a, b))
#define _mm512_maskz_unpackhi_ps(k, a, b) \
  ((void)(k), ::shunt::test::emulated::in_parts<2, 2, 3, 3>(a, b))
#define _mm512_maskz_shuffle_ps(k, a, b, which) \
  ((void)(k), ::shunt::test::emulated::shuffle<which>(a, b))
#define _mm512_maskz_shuffle_f32x4(k, a, b, which) \
  ((void)(k), ::shunt::test::emulated::shuffle_parts<which>(a, b))
#define _mm512_maskz_broadcast_f32x4(k, a) ((void)(k), ::shunt::test::emulated::in_all_parts(a))
#define _mm512_maskz_insertf32x4(k, a, part, which) \
  ((void)(k), ::shunt::test::emulated::with_part<which>(a, part))
#define _mm512_movepi32_mask(a) ::shunt::test::emulated::signs(a)
#define _mm512_maskz_cvtepi8_epi32(k, a) \
  ((void)(k), ::shunt::test::emulated::widen_bytes<signed char>(a))
#define _mm512_maskz_cvtepu8_epi32(k, a) \
  ((void)(k), ::shunt::test::emulated::widen_bytes<unsigned char>(a))
#define _mm512_maskz_cvtepi32_ps(k, a) __builtin_convertvector(a, ::shunt::test::emulated::f16)
#define _mm512_maskz_permutexvar_ps(k, at, table) \
  ((void)(k), ::shunt::test::emulated::look_up(at, table))
#define _mm512_maskz_permutexvar_epi16(k, at, table) \
  ((void)(k), ::shunt::test::emulated::look_up_halves(at, table))
#define _mm512_dpbf16_ps(sum, a, b) ::shunt::test::emulated::dot(sum, a, b)
#define _mm512_dpbusd_epi32(sum, a, b) ::shunt::test::emulated::dot_bytes(sum, a, b)
#define _mm512_maskz_shuffle_epi8(k, a, b) ((void)(k), ::shunt::test::emulated::shuffle_bytes(a, b))
#define _mm512_maskz_unpacklo_epi8(k, a, b) ((void)(k), ::shunt::test::emulated::bytes_low(a, b))
#define _mm512_maskz_unpackhi_epi8(k, a, b) ((void)(k), ::shunt::test::emulated::bytes_high(a, b))
#define _mm512_maskz_unpacklo_epi16(k, a, b) ((void)(k), ::shunt::test::emulated::words_low(a, b))
#define _mm512_maskz_unpackhi_epi16(k, a, b) ((void)(k), ::shunt::test::emulated::words_high(a, b))
#define _mm512_maskz_permutexvar_epi32(k, at, table)                          \
  ((void)(k), (::shunt::test::emulated::i16)::shunt::test::emulated::look_up( \
                  at, (::shunt::test::emulated::f16)table))
#define _mm512_maskz_shuffle_i32x4(k, a, b, which)                                         \
  ((void)(k), (::shunt::test::emulated::i16)::shunt::test::emulated::shuffle_parts<which>( \
                  (::shunt::test::emulated::f16)a, (::shunt::test::emulated::f16)b))
#define _mm512_maskz_srli_epi32(k, a, bits) \
  ((void)(k), ::shunt::test::emulated::shift_right(a, bits))
#define _mm512_maskz_madd_epi16(k, a, b) ((void)(k), ::shunt::test::emulated::madd(a, b))
#define _mm512_maskz_max_epi32(k, a, b) ((void)(k), ::shunt::test::emulated::larger(a, b))
#define _mm512_maskz_cvtepi8_epi16(k, a) ((void)(k), ::shunt::test::emulated::bytes_to_halves(a))
#define _mm512_maskz_cvtepi32_epi8(k, a) ((void)(k), ::shunt::test::emulated::narrow_to_bytes(a))
#define _mm512_castsi256_si512(a) (a)
#define _mm512_maskz_inserti64x4(k, a, b, which) \
  ((void)(k), ::shunt::test::emulated::with_upper(a, b))
#define _mm512_set_ps(...) ::shunt::test::emulated::set(__VA_ARGS__)
