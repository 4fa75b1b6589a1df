// cudaMemset and its forms, each with the one that takes the thread's own default stream.
#include <cuda_runtime_api.h>

#include "runtime/copy.hpp"

namespace softgpu {
namespace {

fill_action rows(void* to, std::size_t pitch, int value, std::size_t width, std::size_t height,
                 char const* call) {
  return {plane_at(to, pitch), {width, height}, static_cast<std::uint8_t>(value), 1, call};
}

fill_action boxes(cudaPitchedPtr const& p, int value, cudaExtent const& e, char const* call) {
  return {plane_at(p.ptr, p.pitch, p.pitch * p.ysize),
          {e.width, e.height, e.depth},
          static_cast<std::uint8_t>(value),
          1,
          call};
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaMemset(void* to, int value, size_t n) {
  return fill_now(rows(to, 0, value, n, 1, "cudaMemset"), cudaStreamLegacy);
}
cudaError_t cudaMemset_ptds(void* to, int value, size_t n) {
  return fill_now(rows(to, 0, value, n, 1, "cudaMemset"), cudaStreamPerThread);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t n, cudaStream_t s) {
  return fill_async(rows(to, 0, value, n, 1, "cudaMemsetAsync"), s);
}
cudaError_t cudaMemsetAsync_ptsz(void* to, int value, size_t n, cudaStream_t s) {
  return cudaMemsetAsync(to, value, n, per_thread(s));
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return fill_now(rows(to, pitch, value, width, height, "cudaMemset2D"), cudaStreamLegacy);
}
cudaError_t cudaMemset2D_ptds(void* to, size_t pitch, int value, size_t width, size_t height) {
  return fill_now(rows(to, pitch, value, width, height, "cudaMemset2D"), cudaStreamPerThread);
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t s) {
  return fill_async(rows(to, pitch, value, width, height, "cudaMemset2DAsync"), s);
}
cudaError_t cudaMemset2DAsync_ptsz(void* to, size_t pitch, int value, size_t width, size_t height,
                                   cudaStream_t s) {
  return cudaMemset2DAsync(to, pitch, value, width, height, per_thread(s));
}

cudaError_t cudaMemset3D(cudaPitchedPtr p, int value, cudaExtent e) {
  return fill_now(boxes(p, value, e, "cudaMemset3D"), cudaStreamLegacy);
}
cudaError_t cudaMemset3D_ptds(cudaPitchedPtr p, int value, cudaExtent e) {
  return fill_now(boxes(p, value, e, "cudaMemset3D"), cudaStreamPerThread);
}
cudaError_t cudaMemset3DAsync(cudaPitchedPtr p, int value, cudaExtent e, cudaStream_t s) {
  return fill_async(boxes(p, value, e, "cudaMemset3DAsync"), s);
}
cudaError_t cudaMemset3DAsync_ptsz(cudaPitchedPtr p, int value, cudaExtent e, cudaStream_t s) {
  return cudaMemset3DAsync(p, value, e, per_thread(s));
}

}  // extern "C"
