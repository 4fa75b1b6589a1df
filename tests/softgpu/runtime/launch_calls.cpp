// The calls that launch kernels: what <<<>>> becomes, cooperative launches, launches with attributes.
#include <vector>

#include "runtime/error.hpp"
#include "runtime/launch.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

struct configuration {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<configuration> pushed;

cudaError_t launch(void const* f, dim3 grid, dim3 block, void** arguments, std::size_t shared,
                   cudaStream_t stream, bool cooperative) {
  launch_request r{nullptr, f, grid, block, shared, cooperative};
  if (cudaError_t const e = by_host_function(f, r.what); e != cudaSuccess) return e;
  return launch_kernel(r, arguments, stream);
}

/// What an attribute asks for, and whether this device has it.
cudaError_t apply(cudaLaunchAttribute const& a, bool& cooperative) {
  switch (a.id) {
    case cudaLaunchAttributeCooperative: cooperative = a.val.cooperative != 0; return cudaSuccess;
    case cudaLaunchAttributeClusterDimension:
      if (a.val.clusterDim.x * a.val.clusterDim.y * a.val.clusterDim.z == 1) return cudaSuccess;
      return unsupported("cudaLaunchKernelExC", "a cluster of more than one block");
    case cudaLaunchAttributeProgrammaticStreamSerialization:  // begins after the one before
    case cudaLaunchAttributePriority:
    case cudaLaunchAttributeIgnore:
    case cudaLaunchAttributeAccessPolicyWindow:
    case cudaLaunchAttributeSynchronizationPolicy:
    case cudaLaunchAttributeClusterSchedulingPolicyPreference:
    case cudaLaunchAttributeMemSyncDomain:
    case cudaLaunchAttributeMemSyncDomainMap: return cudaSuccess;
    default:
      return unsupported("cudaLaunchKernelExC",
                         "launch attribute " + std::to_string(static_cast<int>(a.id)));
  }
}

cudaError_t launch(cudaLaunchConfig_t const* c, void const* f, void** arguments,
                   cudaStream_t stream) {
  if (c == nullptr || (c->numAttrs != 0 && c->attrs == nullptr))
    return record(cudaErrorInvalidValue);
  bool cooperative = false;
  for (unsigned i = 0; i < c->numAttrs; ++i)
    if (cudaError_t const e = apply(c->attrs[i], cooperative); e != cudaSuccess) return e;
  return launch(f, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, stream, cooperative);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  pushed.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (pushed.empty()) return record(cudaErrorInvalidConfiguration);
  configuration const c = pushed.back();
  pushed.pop_back();
  *grid = c.grid, *block = c.block, *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

// A kernel's handle is the host function's address: the module is only read when it is launched.
cudaError_t __cudaGetKernel(cudaKernel_t* out, void const* host) {
  *out = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t cudaGetKernel(cudaKernel_t* out, void const* host) {
  return __cudaGetKernel(out, host);
}

cudaError_t cudaLaunchKernel(void const* f, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t s) {
  return launch(f, grid, block, args, shared, s, false);
}
cudaError_t cudaLaunchKernel_ptsz(void const* f, dim3 grid, dim3 block, void** args, size_t shared,
                                  cudaStream_t s) {
  return launch(f, grid, block, args, shared, per_thread(s), false);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 grid, dim3 block, void** args, size_t shared,
                               cudaStream_t s) {
  return launch(reinterpret_cast<void const*>(k), grid, block, args, shared, s, false);
}
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t k, dim3 grid, dim3 block, void** args,
                                    size_t shared, cudaStream_t s) {
  return launch(reinterpret_cast<void const*>(k), grid, block, args, shared, per_thread(s), false);
}

cudaError_t cudaLaunchCooperativeKernel(void const* f, dim3 grid, dim3 block, void** args,
                                        size_t shared, cudaStream_t s) {
  return launch(f, grid, block, args, shared, s, true);
}
cudaError_t cudaLaunchCooperativeKernel_ptsz(void const* f, dim3 grid, dim3 block, void** args,
                                             size_t shared, cudaStream_t s) {
  return launch(f, grid, block, args, shared, per_thread(s), true);
}

cudaError_t cudaLaunchKernelExC(cudaLaunchConfig_t const* c, void const* f, void** args) {
  return launch(c, f, args, c == nullptr ? nullptr : c->stream);
}
cudaError_t cudaLaunchKernelExC_ptsz(cudaLaunchConfig_t const* c, void const* f, void** args) {
  return launch(c, f, args, per_thread(c == nullptr ? nullptr : c->stream));
}

}  // extern "C"
