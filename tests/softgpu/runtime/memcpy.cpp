// cudaMemcpy and its forms, each with the one that takes the thread's own default stream.
#include <cuda_runtime_api.h>

#include "runtime/copy.hpp"
#include "runtime/error.hpp"

namespace softgpu {
namespace {

copy_request linear(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                    char const* call) {
  return {plane_at(to), plane_at(from), {bytes}, kind, call};
}

copy_request rows(void* to, std::size_t to_pitch, void const* from, std::size_t from_pitch,
                  std::size_t width, std::size_t height, cudaMemcpyKind kind, char const* call) {
  return {plane_at(to, to_pitch), plane_at(from, from_pitch), {width, height}, kind, call};
}

cudaError_t to_symbol(void const* symbol, void const* from, std::size_t bytes, std::size_t offset,
                      cudaMemcpyKind kind, char const* call, copy_request& out) {
  out = {{}, plane_at(from), {bytes}, kind, call};
  return symbol_range(symbol, bytes, offset, out.to.address);
}
cudaError_t from_symbol(void* to, void const* symbol, std::size_t bytes, std::size_t offset,
                        cudaMemcpyKind kind, char const* call, copy_request& out) {
  out = {plane_at(to), {}, {bytes}, kind, call};
  return symbol_range(symbol, bytes, offset, out.from.address);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaMemcpy(void* to, void const* from, size_t n, cudaMemcpyKind kind) {
  return copy_now(linear(to, from, n, kind, "cudaMemcpy"), cudaStreamLegacy);
}
cudaError_t cudaMemcpy_ptds(void* to, void const* from, size_t n, cudaMemcpyKind kind) {
  return copy_now(linear(to, from, n, kind, "cudaMemcpy"), cudaStreamPerThread);
}
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s) {
  return copy_async(linear(to, from, n, kind, "cudaMemcpyAsync"), s);
}
cudaError_t cudaMemcpyAsync_ptsz(void* to, void const* from, size_t n, cudaMemcpyKind kind,
                                 cudaStream_t s) {
  return cudaMemcpyAsync(to, from, n, kind, per_thread(s));
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, void const* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind) {
  return copy_now(rows(to, to_pitch, from, from_pitch, width, height, kind, "cudaMemcpy2D"),
                  cudaStreamLegacy);
}
cudaError_t cudaMemcpy2D_ptds(void* to, size_t to_pitch, void const* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind) {
  return copy_now(rows(to, to_pitch, from, from_pitch, width, height, kind, "cudaMemcpy2D"),
                  cudaStreamPerThread);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, void const* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t s) {
  return copy_async(rows(to, to_pitch, from, from_pitch, width, height, kind, "cudaMemcpy2DAsync"),
                    s);
}
cudaError_t cudaMemcpy2DAsync_ptsz(void* to, size_t to_pitch, void const* from, size_t from_pitch,
                                   size_t width, size_t height, cudaMemcpyKind kind,
                                   cudaStream_t s) {
  return cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, per_thread(s));
}

cudaError_t cudaMemcpy3D(cudaMemcpy3DParms const* p) {
  copy_request c;
  cudaError_t const e = box_request(p, "cudaMemcpy3D", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamLegacy);
}
cudaError_t cudaMemcpy3D_ptds(cudaMemcpy3DParms const* p) {
  copy_request c;
  cudaError_t const e = box_request(p, "cudaMemcpy3D", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamPerThread);
}
cudaError_t cudaMemcpy3DAsync(cudaMemcpy3DParms const* p, cudaStream_t s) {
  copy_request c;
  cudaError_t const e = box_request(p, "cudaMemcpy3DAsync", c);
  return e != cudaSuccess ? e : copy_async(c, s);
}
cudaError_t cudaMemcpy3DAsync_ptsz(cudaMemcpy3DParms const* p, cudaStream_t s) {
  return cudaMemcpy3DAsync(p, per_thread(s));
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, void const* from, int from_device, size_t n) {
  if (to_device != 0 || from_device != 0) return record(cudaErrorInvalidDevice);
  return copy_now(linear(to, from, n, cudaMemcpyDeviceToDevice, "cudaMemcpyPeer"),
                  cudaStreamLegacy);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, void const* from, int from_device,
                                size_t n, cudaStream_t s) {
  if (to_device != 0 || from_device != 0) return record(cudaErrorInvalidDevice);
  return copy_async(linear(to, from, n, cudaMemcpyDeviceToDevice, "cudaMemcpyPeerAsync"), s);
}

cudaError_t cudaMemcpyToSymbol(void const* symbol, void const* from, size_t n, size_t offset,
                               cudaMemcpyKind kind) {
  copy_request c;
  cudaError_t const e = to_symbol(symbol, from, n, offset, kind, "cudaMemcpyToSymbol", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamLegacy);
}
cudaError_t cudaMemcpyToSymbol_ptds(void const* symbol, void const* from, size_t n, size_t offset,
                                    cudaMemcpyKind kind) {
  copy_request c;
  cudaError_t const e = to_symbol(symbol, from, n, offset, kind, "cudaMemcpyToSymbol", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamPerThread);
}
cudaError_t cudaMemcpyToSymbolAsync(void const* symbol, void const* from, size_t n, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t s) {
  copy_request c;
  cudaError_t const e = to_symbol(symbol, from, n, offset, kind, "cudaMemcpyToSymbolAsync", c);
  return e != cudaSuccess ? e : copy_async(c, s);
}
cudaError_t cudaMemcpyToSymbolAsync_ptsz(void const* symbol, void const* from, size_t n,
                                         size_t offset, cudaMemcpyKind kind, cudaStream_t s) {
  return cudaMemcpyToSymbolAsync(symbol, from, n, offset, kind, per_thread(s));
}
cudaError_t cudaMemcpyFromSymbol(void* to, void const* symbol, size_t n, size_t offset,
                                 cudaMemcpyKind kind) {
  copy_request c;
  cudaError_t const e = from_symbol(to, symbol, n, offset, kind, "cudaMemcpyFromSymbol", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamLegacy);
}
cudaError_t cudaMemcpyFromSymbol_ptds(void* to, void const* symbol, size_t n, size_t offset,
                                      cudaMemcpyKind kind) {
  copy_request c;
  cudaError_t const e = from_symbol(to, symbol, n, offset, kind, "cudaMemcpyFromSymbol", c);
  return e != cudaSuccess ? e : copy_now(c, cudaStreamPerThread);
}
cudaError_t cudaMemcpyFromSymbolAsync(void* to, void const* symbol, size_t n, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t s) {
  copy_request c;
  cudaError_t const e = from_symbol(to, symbol, n, offset, kind, "cudaMemcpyFromSymbolAsync", c);
  return e != cudaSuccess ? e : copy_async(c, s);
}
cudaError_t cudaMemcpyFromSymbolAsync_ptsz(void* to, void const* symbol, size_t n, size_t offset,
                                           cudaMemcpyKind kind, cudaStream_t s) {
  return cudaMemcpyFromSymbolAsync(to, symbol, n, offset, kind, per_thread(s));
}

cudaError_t cudaGetSymbolAddress(void** out, void const* symbol) {
  std::uint64_t address = 0;
  if (cudaError_t const e = symbol_range(symbol, 0, 0, address); e != cudaSuccess) return e;
  *out = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

}  // extern "C"
