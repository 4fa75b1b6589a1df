#pragma once
#include <cuda_runtime.h>

#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"

/// A kernel. Static, so that each of several translation units and shared libraries that include Shunt
/// launches its own.
#define SHUNT_KERNEL static __global__

namespace shunt {
inline namespace SHUNT_HOST_ABI {

/// The CUDA backend: every primitive enqueues its kernels on the stream and returns. Results never
/// depend on the device. The memory of views, plans and arenas is the device's.
struct on_cuda {
  static constexpr space memory = space::device;
  cudaStream_t stream{};
};

/// Any stream will do; a bad one is the runtime's to tell, when something is enqueued.
[[nodiscard]] inline status check_policy(on_cuda const&) noexcept { return {}; }

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt
