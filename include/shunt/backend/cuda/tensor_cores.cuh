#pragma once
#include <cstdint>

#include "shunt/backend/cuda/lanes.cuh"

/// The instructions of tensor cores. A step has 16 terms of bf16 or fp16, or 8 of float (tf32): 32 bytes
/// of each row and column, so that the fragments of all three lie alike.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Four matrices of eight rows of 16 bytes; lane l gives the address of row l % 8 of matrix l / 8.
/// Across: the matrices of 16-bit elements come transposed.
template <bool Across>
__device__ void load_fragments(unsigned from, std::uint32_t (&to)[4]) noexcept {
  if constexpr (Across) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  }
}

/// Floats to tf32, to nearest; the others are what they are.
template <class T> __device__ void round_fragments(std::uint32_t (&x)[4]) noexcept {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(x[i]) : "f"(__uint_as_float(x[i])));
  }
}

#define SHUNT_MMA(SHAPE)                                       \
  asm("mma.sync.aligned." SHAPE                                \
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "        \
      "{%0, %1, %2, %3};"                                      \
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(first), "r"(second))

/// One step of 16 × 8 sums.
template <class T>
__device__ void add_step(std::uint32_t const (&left)[4], std::uint32_t first, std::uint32_t second,
                         float (&sum)[4]) noexcept {
  if constexpr (std::is_same_v<T, bf16>) {
    SHUNT_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  } else if constexpr (std::is_same_v<T, fp16>) {
    SHUNT_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  } else {
    SHUNT_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  }
}
#undef SHUNT_MMA

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
