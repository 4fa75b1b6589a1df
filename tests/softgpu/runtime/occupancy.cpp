// How many blocks fit.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "runtime/error.hpp"
#include "runtime/launch.hpp"
#include "runtime/limits.hpp"

namespace softgpu {

int limits::registers_of(kernel const& k) {
  // ptxas keeps a block of the kernel's largest size launchable.
  int const most = std::min(255, registers_per_sm / k.max_threads / 8 * 8);
  return std::clamp(k.entry->frame_bytes / (4 * lanes_per_warp), 16, most);
}

int limits::resident_blocks(kernel const& k, int threads, std::size_t dynamic_shared) {
  int const warps = (threads + lanes_per_warp - 1) / lanes_per_warp;
  std::size_t const shared =
      static_cast<std::size_t>(k.shared_static) + dynamic_shared + shared_reserved;
  int const by_registers = registers_per_sm / (registers_of(k) * warps * lanes_per_warp);
  return std::min({blocks_per_sm, threads_per_sm / lanes_per_warp / warps, by_registers,
                   static_cast<int>(shared_per_sm / shared)});
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void const* f,
                                                                   int threads, size_t dynamic,
                                                                   unsigned) {
  kernel const* k = nullptr;
  if (cudaError_t const e = by_host_function(f, k); e != cudaSuccess) return e;
  if (blocks == nullptr || threads < 1) return record(cudaErrorInvalidValue);
  *blocks = threads > k->max_threads ? 0 : limits::resident_blocks(*k, threads, dynamic);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void const* f, int threads,
                                                          size_t dynamic) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, dynamic, 0);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* out, void const* f, int blocks,
                                                      int threads) {
  kernel const* k = nullptr;
  if (cudaError_t const e = by_host_function(f, k); e != cudaSuccess) return e;
  if (out == nullptr || blocks < 1 || threads < 1 ||
      blocks > limits::resident_blocks(*k, threads, 0))
    return record(cudaErrorInvalidValue);
  auto const fixed = static_cast<std::size_t>(k->shared_static) + limits::shared_reserved;
  std::size_t const each = static_cast<std::size_t>(limits::shared_per_sm / blocks) / 128 * 128;
  std::size_t const most = static_cast<std::size_t>(limits::shared_opt_in - k->shared_static);
  *out = std::min(each - std::min(each, fixed), most);
  return cudaSuccess;
}

}  // extern "C"
