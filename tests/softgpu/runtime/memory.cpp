// Device, managed and page-locked memory: allocating and freeing it.
#include <cuda_runtime_api.h>

#include "memory/arena.hpp"
#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "runtime/registry.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

allocation of_kind(memory_kind k, char const* call) {
  allocation a;
  a.host_visible = k != memory_kind::device;
  a.managed = k == memory_kind::managed;
  a.what = call;
  return a;
}

cudaError_t allocate(void** out, std::size_t bytes, memory_kind kind, char const* call) {
  if (out == nullptr) return record(cudaErrorInvalidValue);
  if (cudaError_t const e = enter_unsafe(); e != cudaSuccess) return e;
  if (bytes == 0) return *out = nullptr, cudaSuccess;
  std::uint64_t const at = arena::allocate(bytes, of_kind(kind, call));
  *out = reinterpret_cast<void*>(at);
  return at == 0 ? record(cudaErrorMemoryAllocation) : cudaSuccess;
}

/// The allocation that begins at an address and that a call may free.
std::optional<allocation> to_free(void* p, bool pinned) {
  auto const at = reinterpret_cast<std::uint64_t>(p);
  auto const a = map::in_arena(at) ? arena::find(at) : std::nullopt;
  bool const is_pinned = a && a->host_visible && !a->managed;
  if (!a || a->address != at || a->internal || a->retired || is_pinned != pinned)
    return std::nullopt;
  return a;
}

cudaError_t refuse_free(char const* call) {
  return refuse(cudaErrorInvalidValue,
                std::string(call) + " of an address that is not the start of such an allocation");
}

/// A free in a capture, of memory allocated in the same one.
cudaError_t capture_free(CUstream_st& s, void* p) {
  auto const address = reinterpret_cast<std::uint64_t>(p);
  std::shared_ptr<reservation const> memory;
  for (auto const& n : s.capturing->graph->nodes) {
    auto const* const o = std::get_if<open_action>(&n->what);
    auto const* const f = std::get_if<free_action>(&n->what);
    if (o != nullptr && o->address == address) memory = o->of_graph;
    if (f != nullptr && f->address == address) memory = nullptr;  // once is enough
  }
  if (memory != nullptr) return add_to_capture(s, free_action{address, memory});
  spoil(*s.capturing, cudaErrorInvalidValue);
  return refuse(cudaErrorInvalidValue,
                "cudaFreeAsync in a capture, of memory that was not allocated in it");
}

cudaError_t release(void* p, bool pinned, char const* call) {
  if (p == nullptr) return enter();
  if (in_host_function()) return record(cudaErrorNotPermitted);
  auto const a = to_free(p, pinned);
  if (!a) return refuse_free(call);
  {
    held_lock lock = lock_runtime();
    if (cudaError_t const e = check_unsafe(); e != cudaSuccess) return record(e);
    if (!a->stream_ordered) finish_all(lock);  // a free waits for the device
  }
  if (!arena::retire(a->address)) return refuse_free(call);
  arena::release(a->address);
  return record(sticky());
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  return allocate(out, bytes, memory_kind::device, "cudaMalloc");
}
cudaError_t cudaMallocManaged(void** out, size_t bytes, unsigned flags) {
  if (bytes == 0 || (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost))
    return record(cudaErrorInvalidValue);
  return allocate(out, bytes, memory_kind::managed, "cudaMallocManaged");
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  return allocate(out, bytes, memory_kind::pinned, "cudaMallocHost");
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned flags) {
  if ((flags & ~7u) != 0) return record(cudaErrorInvalidValue);
  return allocate(out, bytes, memory_kind::pinned, "cudaHostAlloc");
}
cudaError_t cudaMallocPitch(void** out, size_t* pitch, size_t width, size_t height) {
  if (pitch == nullptr) return record(cudaErrorInvalidValue);
  *pitch = (width + 511) / 512 * 512;
  return allocate(out, *pitch * height, memory_kind::device, "cudaMallocPitch");
}
cudaError_t cudaMalloc3D(cudaPitchedPtr* out, cudaExtent e) {
  if (out == nullptr) return record(cudaErrorInvalidValue);
  *out = {nullptr, (e.width + 511) / 512 * 512, e.width, e.height};
  return allocate(&out->ptr, out->pitch * e.height * e.depth, memory_kind::device, "cudaMalloc3D");
}

cudaError_t cudaFree(void* p) { return release(p, false, "cudaFree"); }
cudaError_t cudaFreeHost(void* p) { return release(p, true, "cudaFreeHost"); }

cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t stream) {
  if (out == nullptr) return record(cudaErrorInvalidValue);
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (bytes == 0) return *out = nullptr, cudaSuccess;
  allocation kind = of_kind(memory_kind::device, "cudaMallocAsync");
  kind.stream_ordered = kind.closed = true;
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  bool const captured = s->capturing != nullptr;
  kind.in_graph = kind.retired = captured;
  std::uint64_t const at = arena::allocate(bytes, kind);
  *out = reinterpret_cast<void*>(at);
  if (at == 0) return record(cudaErrorMemoryAllocation);
  if (captured)
    return record(add_to_capture(*s, open_action{at, std::make_shared<reservation const>(at)}));
  lock.unlock();
  cudaError_t const e = submit(stream, open_action{at});
  if (e != cudaSuccess) arena::release(at);
  return e;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  if (p == nullptr) return enter();
  {
    held_lock const lock = lock_runtime();
    stream_ref const s = find_stream(stream);
    if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
    if (s->capturing != nullptr) return record(capture_free(*s, p));
  }
  auto const a = to_free(p, false);
  if (!a || !arena::retire(a->address)) return refuse_free("cudaFreeAsync");
  cudaError_t const e = submit(stream, free_action{a->address});
  if (e != cudaSuccess) arena::release(a->address);
  return e;
}

cudaError_t cudaGetSymbolSize(size_t* out, void const* symbol) {
  try {
    registry::device_variable const v = registry::find_variable(symbol);
    if (v.address == 0) return record(cudaErrorInvalidSymbol);
    *out = v.bytes;
  } catch (std::exception const& e) { return refuse(cudaErrorInvalidPtx, e.what()); }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = arena::capacity;
  *available = arena::capacity - arena::bytes_in_use();
  return cudaSuccess;
}

}  // extern "C"
