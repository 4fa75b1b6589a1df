#pragma once
#include "shunt/backend/cuda/requirements.cuh"

#include <cuda_runtime.h>

#include <cstdint>

#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"

/// A kernel. Static, so that each of several translation units and shared libraries that include Shunt
/// launches its own.
#define SHUNT_KERNEL static __global__

namespace shunt {
inline namespace SHUNT_ABI {

/// What matrix products are made of.
enum class arithmetic : std::uint8_t {
  best,   ///< tensor cores where both operands are bf16, or both fp16; else as exact
  exact,  ///< the host's bits, whatever the types
  tf32    ///< as best, and two float operands on tensor cores, rounded to 11 bits
};

/// The CUDA backend: every primitive enqueues its kernels on the stream and returns. Results never
/// depend on the device, those of tensor cores apart: in which order the terms of one instruction are
/// added is the device's. The memory of views, plans and arenas is the device's.
struct on_cuda {
  static constexpr space memory = space::device;  ///< where views must point
  cudaStream_t stream{};                   ///< kernels are enqueued here; null: the default stream
  arithmetic products = arithmetic::best;  ///< what matrix products are made of
};

/// Any stream will do; a bad one is the runtime's to tell, when something is enqueued.
[[nodiscard]] inline status check_policy(on_cuda const&) noexcept { return {}; }

}  // namespace SHUNT_ABI
}  // namespace shunt
