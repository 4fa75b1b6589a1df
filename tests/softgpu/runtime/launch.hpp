#pragma once
// From a launch's arguments to a run of the machine.

#include <cuda_runtime_api.h>

#include <cstddef>

#include "machine/code.hpp"

namespace softgpu {

struct launch_request {
  kernel const* what = nullptr;
  void const* function = nullptr;  // the host's
  dim3 grid, block;
  std::size_t dynamic_shared = 0;
  bool cooperative = false;
};

/// The kernel behind a host function's address, or what CUDA says where there is none (recorded).
cudaError_t by_host_function(void const* f, kernel const*& out);
/// Checks the configuration against the device's limits. Success, or what CUDA would return.
cudaError_t check(launch_request const& r);
/// Copies the arguments' bytes as the kernel's parameter block lays them out.
std::vector<std::byte> pack_arguments(kernel const& k, void* const* arguments);
/// Runs a checked launch to its end, now. A fault in it makes the device's error sticky.
void execute(launch_request const& r, std::vector<std::byte> const& parameters);

/// Everything a launch call does, for the calls below it: check, and enqueue on its stream.
cudaError_t launch_kernel(launch_request const& r, void* const* arguments, cudaStream_t stream);

}  // namespace softgpu
