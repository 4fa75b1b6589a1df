// What the device says of itself and of its kernels: an sm_80 (A100-like) by default.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>

#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/launch.hpp"
#include "runtime/limits.hpp"
#include "softgpu/softgpu.hpp"

namespace softgpu {
namespace {

using namespace limits;

bool attribute(cudaDeviceAttr a, int& out) {
  int const cc = configure().architecture;
  switch (a) {
    case cudaDevAttrComputeCapabilityMajor: return out = cc / 10, true;
    case cudaDevAttrComputeCapabilityMinor: return out = cc % 10, true;
    case cudaDevAttrMultiProcessorCount: return out = multiprocessors, true;
    case cudaDevAttrMaxThreadsPerBlock: return out = 1024, true;
    case cudaDevAttrMaxBlockDimX: return out = 1024, true;
    case cudaDevAttrMaxBlockDimY: return out = 1024, true;
    case cudaDevAttrMaxBlockDimZ: return out = 64, true;
    case cudaDevAttrMaxGridDimX: return out = 0x7fffffff, true;
    case cudaDevAttrMaxGridDimY: return out = 65535, true;
    case cudaDevAttrMaxGridDimZ: return out = 65535, true;
    case cudaDevAttrMaxSharedMemoryPerBlock: return out = shared_per_block, true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return out = shared_opt_in, true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return out = shared_per_sm, true;
    case cudaDevAttrReservedSharedMemoryPerBlock: return out = shared_reserved, true;
    case cudaDevAttrTotalConstantMemory: return out = 65536, true;
    case cudaDevAttrWarpSize: return out = 32, true;
    case cudaDevAttrMaxRegistersPerBlock: return out = registers_per_sm, true;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return out = registers_per_sm, true;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return out = threads_per_sm, true;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return out = blocks_per_sm, true;
    case cudaDevAttrL2CacheSize: return out = 40 << 20, true;
    case cudaDevAttrClockRate: return out = 1410000, true;
    case cudaDevAttrMemoryClockRate: return out = 1215000, true;
    case cudaDevAttrGlobalMemoryBusWidth: return out = 5120, true;
    case cudaDevAttrGlobalL1CacheSupported:
    case cudaDevAttrLocalL1CacheSupported:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrMemoryPoolsSupported: return out = 1, true;
    case cudaDevAttrTextureAlignment: return out = 512, true;
    case cudaDevAttrTexturePitchAlignment: return out = 32, true;
    case cudaDevAttrMaxPitch: return out = 0x7fffffff, true;
    case cudaDevAttrIntegrated:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrKernelExecTimeout:
    case cudaDevAttrComputeMode:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrClusterLaunch:
    case cudaDevAttrMultiGpuBoardGroupID:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrHostNativeAtomicSupported:
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables:
    case cudaDevAttrDirectManagedMemAccessFromHost:
    case cudaDevAttrComputePreemptionSupported:
    case cudaDevAttrHostRegisterReadOnlySupported:
    case cudaDevAttrTccDriver:
    case cudaDevAttrIsMultiGpuBoard:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrPciBusId:
    case cudaDevAttrPciDeviceId: return out = 0, true;
    case cudaDevAttrAsyncEngineCount: return out = 2, true;
    default: return false;
  }
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int device) {
  if (device != 0) return record(cudaErrorInvalidDevice);
  if (value == nullptr) return record(cudaErrorInvalidValue);
  return attribute(a, *value)
             ? cudaSuccess
             : unsupported("cudaDeviceGetAttribute", "attribute " + std::to_string(a));
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return record(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "softgpu");
  int const cc = configure().architecture;
  p->totalGlobalMem = arena::capacity;
  p->sharedMemPerBlock = shared_per_block;
  p->sharedMemPerBlockOptin = shared_opt_in;
  p->sharedMemPerMultiprocessor = shared_per_sm;
  p->reservedSharedMemPerBlock = shared_reserved;
  p->regsPerBlock = p->regsPerMultiprocessor = registers_per_sm;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = threads_per_sm;
  p->maxBlocksPerMultiProcessor = blocks_per_sm;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = cc / 10, p->minor = cc % 10;
  p->multiProcessorCount = multiprocessors;
  p->l2CacheSize = 40 << 20;
  p->memoryBusWidth = 5120;
  p->unifiedAddressing = p->managedMemory = p->concurrentKernels = p->cooperativeLaunch = 1;
  p->canMapHostMemory = p->memoryPoolsSupported = 1;
  p->streamPrioritiesSupported = p->hostRegisterSupported = 1;
  p->globalL1CacheSupported = p->localL1CacheSupported = 1;
  p->asyncEngineCount = 2;
  p->textureAlignment = 512;
  p->memPitch = 0x7fffffff;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, void const* f) {
  kernel const* k = nullptr;
  if (cudaError_t const e = by_host_function(f, k); e != cudaSuccess) return e;
  *out = {};
  out->sharedSizeBytes = static_cast<std::size_t>(k->shared_static);
  out->localSizeBytes = static_cast<std::size_t>(k->entry->local_bytes);
  out->maxThreadsPerBlock = k->max_threads;
  out->numRegs = registers_of(*k);
  out->ptxVersion = out->binaryVersion = configure().architecture;
  out->maxDynamicSharedSizeBytes = static_cast<int>(std::atomic_ref(k->max_dynamic_shared).load());
  return cudaSuccess;
}

cudaError_t cudaFuncGetParamInfo(void const* f, size_t index, size_t* offset, size_t* bytes) {
  kernel const* k = nullptr;
  if (cudaError_t const e = by_host_function(f, k); e != cudaSuccess) return e;
  if (offset == nullptr || index >= k->parameter_offsets.size())
    return record(cudaErrorInvalidValue);
  *offset = static_cast<std::size_t>(k->parameter_offsets[index]);
  if (bytes != nullptr) *bytes = static_cast<std::size_t>(k->source->parameters[index].bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(void const* f, cudaFuncAttribute a, int value) {
  kernel const* k = nullptr;
  if (cudaError_t const e = by_host_function(f, k); e != cudaSuccess) return e;
  switch (a) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      if (value < 0 || value + k->shared_static > shared_opt_in)
        return record(cudaErrorInvalidValue);
      std::atomic_ref(k->max_dynamic_shared) = value;
      return cudaSuccess;
    case cudaFuncAttributePreferredSharedMemoryCarveout: return cudaSuccess;
    default: return unsupported("cudaFuncSetAttribute", "attribute " + std::to_string(a));
  }
}

}  // extern "C"
