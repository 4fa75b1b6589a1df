#pragma once
#include "shunt/core/compiler.hpp"

/// The widest instruction-set region that is compiled: 512, 256 or 0 (portable only). Everything by
/// default; a build that will never meet a wider processor can define less and compiles faster. The
/// results are the same bits.
#if !defined(SHUNT_WIDEST_REGION)
#define SHUNT_WIDEST_REGION 512
#endif

/// A name that tells apart what the host backend's inline functions were compiled for. Two
/// translation units of one program, one with -march=native and one without, then keep a copy each:
/// the linker cannot hand the older machine's path the newer machine's code.
#if defined(__AVX512F__)
#define SHUNT_BUILT_FOR_ built_for_avx512
#elif defined(__AVX2__)
#define SHUNT_BUILT_FOR_ built_for_avx2
#elif defined(__AVX__)
#define SHUNT_BUILT_FOR_ built_for_avx
#else
#define SHUNT_BUILT_FOR_ built_for_any
#endif
#define SHUNT_ABI_JOIN_(built, widest) built##_##widest
#define SHUNT_ABI_NAME_(built, widest) SHUNT_ABI_JOIN_(built, widest)
#define SHUNT_ABI_TEXT_(name) #name
#define SHUNT_ABI_TEXT_OF_(name) SHUNT_ABI_TEXT_(name)
#define SHUNT_ABI SHUNT_ABI_NAME_(SHUNT_BUILT_FOR_, SHUNT_WIDEST_REGION)
#define SHUNT_HOST_ABI_TAG SHUNT_ABI_TEXT_OF_(SHUNT_ABI)
