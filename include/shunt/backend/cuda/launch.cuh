#pragma once
#include <algorithm>
#include <cstddef>

#include "shunt/backend/cuda/policy.cuh"
#include "shunt/backend/cuda/tuning.cuh"
#include "shunt/core/shape.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Threads of a block of `warps` warps, or of as many as it may have.
inline int threads_for(offset_t warps) noexcept {
  return static_cast<int>(std::clamp<offset_t>(warps, 1, tuning::lone_block / 32)) * 32;
}

/// The one place where kernels are launched. Every kernel loops over its work by the size of the
/// grid, so that more blocks than a grid can have are no error. No blocks: nothing to do. `shared`: a
/// block's bytes of dynamic shared memory; `most`: those of any launch of this kernel. The attribute is
/// the kernel's, not the launch's: it is set to `most` always, so that a host thread with a smaller
/// launch cannot lower it between the two calls of another.
template <class... Parameters, class... Arguments>
[[nodiscard]] status launch_shared(on_cuda const& on, char const* who, offset_t blocks, int threads,
                                   std::size_t shared, std::size_t most,
                                   void (*kernel)(Parameters...),
                                   Arguments const&... arguments) noexcept {
  if (blocks <= 0) return {};
  cudaLaunchConfig_t where{};
  where.gridDim = dim3(static_cast<unsigned>(std::min<offset_t>(blocks, 0x7fffffff)));
  where.blockDim = dim3(static_cast<unsigned>(threads));
  where.dynamicSmemBytes = shared;
  where.stream = on.stream;
  cudaError_t e = cudaSuccess;
  if (shared > 48 * 1024) {  // what a kernel has unasked
    e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(most));
  }
  if (e == cudaSuccess) e = cudaLaunchKernelEx(&where, kernel, Parameters(arguments)...);
  if (e == cudaSuccess) return {};
  (void)cudaGetLastError();  // clear the error, which is reported below
  return status::fail(error::backend, "%s: the kernel was not launched: %s", who,
                      cudaGetErrorString(e));
}

template <class... Parameters, class... Arguments>
[[nodiscard]] status launch(on_cuda const& on, char const* who, offset_t blocks, int threads,
                            void (*kernel)(Parameters...), Arguments const&... arguments) noexcept {
  return launch_shared(on, who, blocks, threads, 0, 0, kernel, arguments...);
}

/// The same for `items` pieces of work, one a warp.
template <class... Parameters, class... Arguments>
[[nodiscard]] status launch_warps(on_cuda const& on, char const* who, offset_t items,
                                  void (*kernel)(Parameters...),
                                  Arguments const&... arguments) noexcept {
  constexpr int warps = tuning::threads / 32;
  return launch(on, who, (items + warps - 1) / warps, tuning::threads, kernel, arguments...);
}

/// The same for `items` pieces of work, one a thread.
template <class... Parameters, class... Arguments>
[[nodiscard]] status launch_threads(on_cuda const& on, char const* who, offset_t items,
                                    void (*kernel)(Parameters...),
                                    Arguments const&... arguments) noexcept {
  return launch(on, who, (items + tuning::threads - 1) / tuning::threads, tuning::threads, kernel,
                arguments...);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
