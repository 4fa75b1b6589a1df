// No include guard: the vectors and the math that every region starts with.
#if SHUNT_REGION == 512
#include "shunt/backend/host/simd/lanes_avx512.inl"
#elif SHUNT_REGION == 256
#include "shunt/backend/host/simd/lanes_avx2.inl"
#else
#include "shunt/backend/host/simd/lanes_portable.inl"
#endif
#include "shunt/backend/host/simd/lanes.inl"
#define SHUNT_MATH SHUNT_INLINE
#include "shunt/core/math_functions.inl"
#undef SHUNT_MATH
