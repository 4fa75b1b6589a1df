// Memory pools. All of them draw on the one arena; what a pool keeps is its settings.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>

#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/stream.hpp"

struct CUmemPoolHandle_st {
  std::uint64_t release_threshold = 0;
  int reuse[3] = {1, 1, 1};  // follow events, opportunistic, internal dependencies
};

namespace softgpu {
namespace {

struct pool_table {
  std::map<cudaMemPool_t, std::unique_ptr<CUmemPoolHandle_st>> all;
  cudaMemPool_t standard = nullptr, current = nullptr;

  cudaMemPool_t add() {
    auto made = std::make_unique<CUmemPoolHandle_st>();
    cudaMemPool_t const handle = made.get();
    all.emplace(handle, std::move(made));
    return handle;
  }
};
pool_table& pools() {
  static pool_table* const t = [] {
    auto* made = new pool_table;
    made->standard = made->current = made->add();
    return made;
  }();
  return *t;
}

/// Bytes of live stream-ordered memory.
std::uint64_t bytes_used() {
  std::uint64_t used = 0;
  for (allocation const& a : arena::live())
    if (a.stream_ordered) used += a.bytes;
  return used;
}

template <class F> cudaError_t with_pool(cudaMemPool_t pool, F&& f) {
  held_lock const lock = lock_runtime();
  if (pools().all.count(pool) == 0) return record(cudaErrorInvalidValue);
  return record(f(*pool));
}

cudaError_t give(cudaMemPool_t* out, int device, cudaMemPool_t pool_table::*which) {
  if (device != 0) return record(cudaErrorInvalidDevice);
  if (out == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  *out = pools().*which;
  return cudaSuccess;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* out, int device) {
  return give(out, device, &pool_table::standard);
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* out, int device) {
  return give(out, device, &pool_table::current);
}
cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool) {
  if (device != 0) return record(cudaErrorInvalidDevice);
  return with_pool(pool, [&](CUmemPoolHandle_st&) { return pools().current = pool, cudaSuccess; });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* out, cudaMemPoolProps const* p) {
  if (out == nullptr || p == nullptr || p->allocType != cudaMemAllocationTypePinned)
    return record(cudaErrorInvalidValue);
  if (p->location.type != cudaMemLocationTypeDevice || p->location.id != 0 ||
      p->handleTypes != cudaMemHandleTypeNone)
    return unsupported("cudaMemPoolCreate", "a pool of the host or between processes");
  held_lock const lock = lock_runtime();
  *out = pools().add();
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return with_pool(pool, [&](CUmemPoolHandle_st&) {
    if (pool == pools().standard) return cudaErrorInvalidValue;
    if (pool == pools().current) pools().current = pools().standard;
    pools().all.erase(pool);
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  return with_pool(pool, [](CUmemPoolHandle_st&) { return cudaSuccess; });  // nothing is kept back
}

cudaError_t cudaDeviceGraphMemTrim(int device) {
  return device == 0 ? cudaSuccess : record(cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr a, void* value) {
  if (value == nullptr) return record(cudaErrorInvalidValue);
  return with_pool(pool, [&](CUmemPoolHandle_st& p) {
    switch (a) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
        p.reuse[a - cudaMemPoolReuseFollowEventDependencies] = *static_cast<int*>(value);
        return cudaSuccess;
      case cudaMemPoolAttrReleaseThreshold:
        p.release_threshold = *static_cast<std::uint64_t*>(value);
        return cudaSuccess;
      case cudaMemPoolAttrReservedMemHigh:  // only resets: there is no high-water mark here
      case cudaMemPoolAttrUsedMemHigh:
        return *static_cast<std::uint64_t*>(value) == 0 ? cudaSuccess : cudaErrorInvalidValue;
      default: return cudaErrorInvalidValue;
    }
  });
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr a, void* value) {
  if (value == nullptr) return record(cudaErrorInvalidValue);
  return with_pool(pool, [&](CUmemPoolHandle_st& p) {
    auto& wide = *static_cast<std::uint64_t*>(value);
    switch (a) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
        *static_cast<int*>(value) = p.reuse[a - cudaMemPoolReuseFollowEventDependencies];
        return cudaSuccess;
      case cudaMemPoolAttrReleaseThreshold: return wide = p.release_threshold, cudaSuccess;
      case cudaMemPoolAttrReservedMemCurrent:
      case cudaMemPoolAttrUsedMemCurrent: return wide = bytes_used(), cudaSuccess;
      default:
        return unsupported("cudaMemPoolGetAttribute",
                           "attribute " + std::to_string(static_cast<int>(a)));
    }
  });
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, cudaMemAccessDesc const* list, size_t count) {
  return with_pool(pool, [&](CUmemPoolHandle_st&) {
    bool const ours = std::all_of(list, list + count, [](cudaMemAccessDesc const& d) {
      return d.location.type == cudaMemLocationTypeDevice && d.location.id == 0;
    });
    return ours ? cudaSuccess : cudaErrorInvalidDevice;
  });
}

cudaError_t cudaMallocFromPoolAsync(void** out, size_t bytes, cudaMemPool_t pool, cudaStream_t s) {
  cudaError_t const e = with_pool(pool, [](CUmemPoolHandle_st&) { return cudaSuccess; });
  return e != cudaSuccess ? e : cudaMallocAsync(out, bytes, s);
}
cudaError_t cudaMallocFromPoolAsync_ptsz(void** out, size_t bytes, cudaMemPool_t pool,
                                         cudaStream_t s) {
  return cudaMallocFromPoolAsync(out, bytes, pool, per_thread(s));
}

}  // extern "C"
