#pragma once
#include "shunt/core/macros.hpp"

/// Copies from memory to shared memory that pass no register, in groups.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

__device__ inline unsigned shared_address(void const* p) noexcept {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
/// Four bytes, or four zero bytes.
__device__ inline void copy_float(float* to, void const* from, bool there) noexcept {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 4 : 0));
}
/// Sixteen bytes, or as many zero bytes; past the first cache, for the warps of a block share none.
__device__ inline void copy_word(void* to, void const* from, bool there) noexcept {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ inline void end_copy_group() noexcept {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits for all groups but the last `Left`.
template <int Left> __device__ void wait_for_groups() noexcept {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}
__device__ inline void wait_for_copies() noexcept {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
