// cudaMalloc and friends, memcpy, memset, symbols. All of it happens at once: see stream.cpp.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/registry.hpp"

namespace softgpu {
namespace {

cudaError_t allocate(void** out, std::size_t bytes, bool host_visible, char const* what) {
  if (out == nullptr) return record(cudaErrorInvalidValue);
  if (bytes == 0) return *out = nullptr, cudaSuccess;
  allocation kind;
  kind.host_visible = host_visible;
  kind.what = what;
  std::uint64_t const at = arena::allocate(bytes, kind);
  *out = reinterpret_cast<void*>(at);
  return at == 0 ? record(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t release(void* p, char const* call) {
  if (p == nullptr || arena::release(reinterpret_cast<std::uint64_t>(p))) return cudaSuccess;
  return refuse(cudaErrorInvalidValue, std::string(call) + " of an address that was not allocated");
}

/// Where the host finds a range the caller names by a device or a host address; null where a
/// device range is not wholly inside one allocation.
std::byte* reach(void const* p, std::size_t bytes) {
  auto const at = reinterpret_cast<std::uint64_t>(p);
  if (!map::in_arena(at)) return const_cast<std::byte*>(static_cast<std::byte const*>(p));
  return arena::covers(at, bytes) ? map::host(at) : nullptr;
}

bool is_device(void const* p) { return map::in_arena(reinterpret_cast<std::uint64_t>(p)); }

cudaError_t copy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (sticky() != cudaSuccess) return record(sticky());
  if (bytes == 0) return cudaSuccess;
  bool const to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool const from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault &&
      ((to_device && !is_device(to)) || (from_device && !is_device(from))))
    return refuse(cudaErrorInvalidValue,
                  "a copy's direction names device memory where there is none");
  std::byte *const d = reach(to, bytes), *const s = reach(from, bytes);
  if (d == nullptr || s == nullptr)
    return refuse(cudaErrorInvalidValue, "a copy of " + std::to_string(bytes) +
                                             " bytes exceeds the " +
                                             (d == nullptr ? "destination" : "source"));
  std::memmove(d, s, bytes);
  if (is_device(to)) {
    auto* const shadow = map::shadow_of(reinterpret_cast<std::uint64_t>(to));
    if (is_device(from))  // unwritten bytes stay unwritten
      std::memmove(shadow, map::shadow_of(reinterpret_cast<std::uint64_t>(from)), bytes);
    else
      std::memset(shadow, map::written, bytes);
  }
  return cudaSuccess;
}

cudaError_t fill(void* to, int value, std::size_t bytes) {
  if (sticky() != cudaSuccess) return record(sticky());
  if (bytes == 0) return cudaSuccess;
  if (!is_device(to) || reach(to, bytes) == nullptr) return record(cudaErrorInvalidValue);
  std::memset(reach(to, bytes), value, bytes);
  arena::mark_written(reinterpret_cast<std::uint64_t>(to), bytes);
  return cudaSuccess;
}

cudaError_t symbol(void const* name, registry::device_variable& out) {
  try {
    out = registry::find_variable(name);
  } catch (std::exception const& e) { return refuse(cudaErrorInvalidPtx, e.what()); }
  return out.address == 0 ? record(cudaErrorInvalidSymbol) : cudaSuccess;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  return allocate(out, bytes, false, "cudaMalloc");
}
cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t) {
  return allocate(out, bytes, false, "cudaMallocAsync");
}
cudaError_t cudaMallocManaged(void** out, size_t bytes, unsigned) {
  return allocate(out, bytes, true, "cudaMallocManaged");
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  return allocate(out, bytes, true, "cudaMallocHost");
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  return allocate(out, bytes, true, "cudaHostAlloc");
}
cudaError_t cudaFree(void* p) { return release(p, "cudaFree"); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return release(p, "cudaFreeAsync"); }
cudaError_t cudaFreeHost(void* p) { return release(p, "cudaFreeHost"); }

cudaError_t cudaMemcpy(void* to, void const* from, size_t bytes, cudaMemcpyKind kind) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return fill(to, value, bytes); }
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return fill(to, value, bytes);
}
cudaError_t cudaMemcpyToSymbol(void const* name, void const* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  registry::device_variable v;
  if (cudaError_t const e = symbol(name, v); e != cudaSuccess) return e;
  return copy(reinterpret_cast<void*>(v.address + offset), from, bytes, kind);
}
cudaError_t cudaMemcpyFromSymbol(void* to, void const* name, size_t bytes, size_t offset,
                                 cudaMemcpyKind kind) {
  registry::device_variable v;
  if (cudaError_t const e = symbol(name, v); e != cudaSuccess) return e;
  return copy(to, reinterpret_cast<void const*>(v.address + offset), bytes, kind);
}
cudaError_t cudaGetSymbolAddress(void** out, void const* name) {
  registry::device_variable v;
  if (cudaError_t const e = symbol(name, v); e != cudaSuccess) return e;
  *out = reinterpret_cast<void*>(v.address);
  return cudaSuccess;
}
cudaError_t cudaGetSymbolSize(size_t* out, void const* name) {
  registry::device_variable v;
  if (cudaError_t const e = symbol(name, v); e != cudaSuccess) return e;
  *out = v.bytes;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = arena::capacity;
  *available = arena::capacity - arena::bytes_in_use();
  return cudaSuccess;
}

}  // extern "C"
