// The one device: its properties, and waiting for it. Work has been done by the time a call that
// enqueues it returns, so there is nothing to wait for.
#include <cuda_runtime_api.h>

#include "runtime/error.hpp"

using namespace softgpu;

extern "C" {

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : record(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceSynchronize() { return record(sticky()); }
cudaError_t cudaDeviceReset() { return heal(), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return record(sticky()); }

}  // extern "C"
