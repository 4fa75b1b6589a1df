#pragma once
// The runtime's error state, as CUDA's: the last error of a host thread, and a sticky one of the
// device after a fault in a kernel.

#include <cuda_runtime_api.h>

#include <string>

namespace softgpu {

/// Records an error as the thread's last one and returns it. Success is not recorded.
cudaError_t record(cudaError_t e);
/// Records an error of wrong use, and says why on stderr.
cudaError_t refuse(cudaError_t e, std::string const& sentence);
/// A call this device does not have: says so and fails.
cudaError_t unsupported(std::string const& call, std::string const& what = {});
/// The device's sticky error: every later call returns it.
void poison(cudaError_t e);
cudaError_t sticky();
/// Forgets the sticky error (cudaDeviceReset).
void heal();

}  // namespace softgpu
