#pragma once
/// A name that tells apart what the host backend's inline functions were compiled for. Two
/// translation units of one program, one with -march=native and one without, then keep a copy each:
/// the linker cannot hand the older machine's path the newer machine's code.
#if defined(__AVX512F__)
#define SHUNT_HOST_ABI built_for_avx512
#define SHUNT_HOST_ABI_TAG "built_for_avx512"
#elif defined(__AVX2__)
#define SHUNT_HOST_ABI built_for_avx2
#define SHUNT_HOST_ABI_TAG "built_for_avx2"
#elif defined(__AVX__)
#define SHUNT_HOST_ABI built_for_avx
#define SHUNT_HOST_ABI_TAG "built_for_avx"
#else
#define SHUNT_HOST_ABI built_for_any
#define SHUNT_HOST_ABI_TAG "built_for_any"
#endif
