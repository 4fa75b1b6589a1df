// Host memory as the device knows it: registered ranges, and what a pointer points to.
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "memory/arena.hpp"
#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

struct registered {
  std::size_t bytes;
  unsigned flags;
};
struct register_table {
  std::mutex mutex;
  std::map<std::uint64_t, registered> ranges;  // by their beginning
  /// The range that holds an address, or the end.
  auto find(std::uint64_t address) {
    auto after = ranges.upper_bound(address);
    if (after == ranges.begin()) return ranges.end();
    --after;
    return address - after->first < after->second.bytes ? after : ranges.end();
  }
};
register_table& table() {
  static auto* const t = new register_table;
  return *t;
}

std::uint64_t address_of(void const* p) { return reinterpret_cast<std::uint64_t>(p); }

}  // namespace

memory_kind kind_of(std::uint64_t address) {
  if (map::in_arena(address)) {
    auto const a = arena::find(address);
    if (!a || !a->host_visible) return memory_kind::device;
    return a->managed ? memory_kind::managed : memory_kind::pinned;
  }
  std::lock_guard const lock(table().mutex);
  return table().find(address) != table().ranges.end() ? memory_kind::pinned
                                                       : memory_kind::pageable;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

// Copies from and to registered memory are the stream's, like those of page-locked memory. Kernels
// cannot use it: its pages are not the device's.
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned flags) {
  if (p == nullptr || bytes == 0) return record(cudaErrorInvalidValue);
  if (cudaError_t const e = enter_unsafe(); e != cudaSuccess) return e;
  if ((flags & ~unsigned{cudaHostRegisterPortable | cudaHostRegisterReadOnly}) != 0)
    return unsupported("cudaHostRegister", "memory that kernels use (cudaHostRegisterMapped)");
  std::lock_guard const lock(table().mutex);
  auto const next = table().ranges.lower_bound(address_of(p));
  bool const overlaps = table().find(address_of(p)) != table().ranges.end() ||
                        (next != table().ranges.end() && next->first - address_of(p) < bytes);
  if (overlaps) return record(cudaErrorHostMemoryAlreadyRegistered);
  table().ranges[address_of(p)] = {bytes, flags};
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* p) {
  {
    held_lock lock = lock_runtime();  // copies that still need it come first
    if (cudaError_t const e = check_unsafe(); e != cudaSuccess) return record(e);
    finish_all(lock);
  }
  std::lock_guard const lock(table().mutex);
  return table().ranges.erase(address_of(p)) == 1 ? record(sticky())
                                                  : record(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void** out, void* host, unsigned flags) {
  if (out == nullptr || host == nullptr || flags != 0) return record(cudaErrorInvalidValue);
  if (!map::in_arena(address_of(host)))
    return kind_of(address_of(host)) == memory_kind::pinned
               ? unsupported("cudaHostGetDevicePointer", "registered memory")
               : record(cudaErrorInvalidValue);
  if (kind_of(address_of(host)) != memory_kind::pinned) return record(cudaErrorInvalidValue);
  *out = host;  // one address space
  return cudaSuccess;
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* host) {
  if (flags == nullptr || kind_of(address_of(host)) != memory_kind::pinned)
    return record(cudaErrorInvalidValue);
  *flags = cudaHostAllocMapped;
  if (map::in_arena(address_of(host))) return cudaSuccess;
  std::lock_guard const lock(table().mutex);
  *flags = table().find(address_of(host))->second.flags;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, void const* p) {
  if (out == nullptr) return record(cudaErrorInvalidValue);
  *out = {};
  out->device = -2;
  void* const same = const_cast<void*>(p);
  bool const ours = map::in_arena(address_of(p));
  if (ours && !arena::find(address_of(p))) return cudaSuccess;  // unregistered
  switch (kind_of(address_of(p))) {
    case memory_kind::pageable: return out->hostPointer = same, cudaSuccess;
    case memory_kind::pinned:
      out->type = cudaMemoryTypeHost;
      out->hostPointer = same;
      out->devicePointer = ours ? same : nullptr;
      break;
    case memory_kind::managed:
      out->type = cudaMemoryTypeManaged;
      out->hostPointer = out->devicePointer = same;
      break;
    case memory_kind::device:
      out->type = cudaMemoryTypeDevice;
      out->devicePointer = same;
      break;
  }
  out->device = 0;
  return cudaSuccess;
}

// Where memory lies makes no difference here: these check what they are given.
static cudaError_t check_managed(void const* p, size_t bytes) {
  bool const known = map::in_arena(address_of(p)) && arena::covers(address_of(p), bytes) &&
                     kind_of(address_of(p)) == memory_kind::managed;
  return known && bytes != 0 ? cudaSuccess : record(cudaErrorInvalidValue);
}
static cudaError_t prefetch(void const* p, size_t bytes, cudaStream_t s) {
  cudaError_t const e = check_managed(p, bytes);
  return e != cudaSuccess ? e : submit(s, empty_action{});
}
static cudaError_t check_location(cudaMemLocation const& l) {
  return l.type == cudaMemLocationTypeDevice && l.id != 0 ? record(cudaErrorInvalidDevice)
                                                          : cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaMemPrefetchAsync(void const* p, size_t bytes, cudaMemLocation where, unsigned flags,
                                 cudaStream_t s) {
  if (flags != 0) return record(cudaErrorInvalidValue);
  cudaError_t const e = check_location(where);
  return e != cudaSuccess ? e : prefetch(p, bytes, s);
}
cudaError_t cudaMemPrefetchAsync_ptsz(void const* p, size_t bytes, cudaMemLocation where,
                                      unsigned flags, cudaStream_t s) {
  return cudaMemPrefetchAsync(p, bytes, where, flags, per_thread(s));
}
cudaError_t cudaMemAdvise(void const* p, size_t bytes, cudaMemoryAdvise, cudaMemLocation where) {
  cudaError_t const e = check_location(where);
  return e != cudaSuccess ? e : check_managed(p, bytes);
}
#else
cudaError_t cudaMemPrefetchAsync(void const* p, size_t bytes, int device, cudaStream_t s) {
  if (device != 0 && device != cudaCpuDeviceId) return record(cudaErrorInvalidDevice);
  return prefetch(p, bytes, s);
}
cudaError_t cudaMemPrefetchAsync_ptsz(void const* p, size_t bytes, int device, cudaStream_t s) {
  return cudaMemPrefetchAsync(p, bytes, device, per_thread(s));
}
cudaError_t cudaMemPrefetchAsync_v2(void const* p, size_t bytes, cudaMemLocation where,
                                    unsigned flags, cudaStream_t s) {
  if (flags != 0) return record(cudaErrorInvalidValue);
  cudaError_t const e = check_location(where);
  return e != cudaSuccess ? e : prefetch(p, bytes, s);
}
cudaError_t cudaMemPrefetchAsync_v2_ptsz(void const* p, size_t bytes, cudaMemLocation where,
                                         unsigned flags, cudaStream_t s) {
  return cudaMemPrefetchAsync_v2(p, bytes, where, flags, per_thread(s));
}
cudaError_t cudaMemAdvise(void const* p, size_t bytes, cudaMemoryAdvise, int device) {
  if (device != 0 && device != cudaCpuDeviceId) return record(cudaErrorInvalidDevice);
  return check_managed(p, bytes);
}
cudaError_t cudaMemAdvise_v2(void const* p, size_t bytes, cudaMemoryAdvise, cudaMemLocation where) {
  cudaError_t const e = check_location(where);
  return e != cudaSuccess ? e : check_managed(p, bytes);
}
#endif

}  // extern "C"
