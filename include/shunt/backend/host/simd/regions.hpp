#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/numeric.hpp"

// Instruction-set regions: a module writes its kernels once, in a file that ends in _kernels.inl, and
//   #define SHUNT_REGION_FILE "shunt/backend/host/<module>_kernels.inl"
//   #include "shunt/backend/host/simd/for_each_region.inl"
// compiles it into shunt::host::portable, ::avx2 and ::avx512, whatever flags the user gave. A kernel
// there uses the region's vectors (lanes.inl), its math (math_functions.inl), always-inline helpers
// and types, and calls no inline function from outside: that one would be compiled for this region
// and shared with all others. SHUNT_ISA_PICK takes the one to run:
//   auto* kernel = SHUNT_ISA_PICK(on, sum_rows<T>);
#define SHUNT_INLINE inline __attribute__((always_inline))

// The kernels that no user's type enters (<module>_once.inl), and the layer of each storage type
// (layer/once.inl), can be compiled in one translation unit of a program: that one defines
// SHUNT_KERNELS_HERE before it includes shunt.hpp; all others define SHUNT_KERNELS_ELSEWHERE. CMake's
// target shunt::kernels does both. Units of another SHUNT_WIDEST_REGION or -march do not link with it:
// see abi.hpp.
#if defined(SHUNT_KERNELS_HERE)
#define SHUNT_ONCE
#elif defined(SHUNT_KERNELS_ELSEWHERE)
#define SHUNT_ONCE extern
#endif

#if defined(__clang__)
#define SHUNT_REGION_BEGIN_(features) \
  SHUNT_PRAGMA_(clang attribute push(__attribute__((target(features))), apply_to = function))
#define SHUNT_REGION_END SHUNT_PRAGMA_(clang attribute pop)
#else
#define SHUNT_REGION_BEGIN_(features) \
  SHUNT_PRAGMA_(GCC push_options) SHUNT_PRAGMA_(GCC target(features))
#define SHUNT_REGION_END SHUNT_PRAGMA_(GCC pop_options)
#endif
#define SHUNT_PRAGMA_(text) _Pragma(#text)
#define SHUNT_REGION_BEGIN_AVX2 SHUNT_REGION_BEGIN_("avx2,fma,f16c,bmi,bmi2")
#if !defined(SHUNT_REGION_BEGIN_AVX512)  // tests run that region without the instructions
#define SHUNT_REGION_BEGIN_AVX512 \
  SHUNT_REGION_BEGIN_("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#if defined(__x86_64__) && SHUNT_WIDEST_REGION >= 512
#define SHUNT_ISA_PICK(on, ...)                                                 \
  ::shunt::host::pick((on).instructions, &::shunt::host::portable::__VA_ARGS__, \
                      &::shunt::host::avx2::__VA_ARGS__, &::shunt::host::avx512::__VA_ARGS__)
#elif defined(__x86_64__) && SHUNT_WIDEST_REGION >= 256
#define SHUNT_ISA_PICK(on, ...)                                                 \
  ::shunt::host::pick((on).instructions, &::shunt::host::portable::__VA_ARGS__, \
                      &::shunt::host::avx2::__VA_ARGS__)
#else
#define SHUNT_ISA_PICK(on, ...) \
  ::shunt::host::pick((on).instructions, &::shunt::host::portable::__VA_ARGS__)
#endif

namespace shunt::host {
inline namespace SHUNT_ABI {
template <class Kernel>
Kernel* pick(isa asked, Kernel* plain, Kernel* avx2, Kernel* avx512 = nullptr) noexcept {
  isa const which = resolve(asked);
  return which >= isa::avx512 ? avx512 : which == isa::avx2 ? avx2 : plain;
}
template <class Kernel> Kernel* pick(isa, Kernel* plain) noexcept { return plain; }
}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/simd/region_prelude.inl"
#include "shunt/backend/host/simd/for_each_region.inl"
