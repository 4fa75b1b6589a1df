#include "runtime/launch.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "counters/counters.hpp"
#include "machine/block.hpp"
#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/registry.hpp"

namespace softgpu {
namespace {

cudaError_t error_of(fault f) {
  switch (f) {
    case fault::misaligned: return cudaErrorMisalignedAddress;
    case fault::assertion: return cudaErrorAssert;
    case fault::trap: return cudaErrorIllegalInstruction;
    case fault::deadlock: return cudaErrorLaunchTimeout;
    case fault::stack_overflow: return cudaErrorHardwareStackError;
    default: return cudaErrorIllegalAddress;
  }
}

std::atomic<std::uint64_t> launches = 0;

}  // namespace

cudaError_t check(launch_request const& r) {
  std::uint64_t const threads = std::uint64_t{r.block.x} * r.block.y * r.block.z;
  if (threads == 0 || r.grid.x == 0 || r.grid.y == 0 || r.grid.z == 0)
    return cudaErrorInvalidConfiguration;
  if (threads > 1024 || r.block.x > 1024 || r.block.y > 1024 || r.block.z > 64)
    return cudaErrorInvalidConfiguration;
  if (r.grid.x > 0x7fffffff || r.grid.y > 65535 || r.grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (threads > static_cast<std::uint64_t>(r.what->max_threads)) return cudaErrorInvalidValue;
  std::uint64_t const shared = static_cast<std::uint64_t>(r.what->shared_static) + r.dynamic_shared;
  if (shared > static_cast<std::uint64_t>(r.what->max_dynamic_shared) +
                   static_cast<std::uint64_t>(r.what->shared_static))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

std::vector<std::byte> pack_arguments(kernel const& k, void* const* arguments) {
  std::vector<std::byte> out(static_cast<std::size_t>(k.parameter_bytes));
  for (std::size_t i = 0; i < k.parameter_offsets.size(); ++i)
    std::memcpy(out.data() + k.parameter_offsets[i], arguments[i],
                static_cast<std::size_t>(k.source->parameters[i].bytes));
  return out;
}

void execute(launch_request const& r, std::vector<std::byte> const& parameters) {
  if (sticky() != cudaSuccess) return;
  launch l;
  l.kernel = r.what;
  l.grid = {r.grid.x, r.grid.y, r.grid.z};
  l.block = {r.block.x, r.block.y, r.block.z};
  l.dynamic_shared = static_cast<std::int64_t>(r.dynamic_shared);
  l.shared_bytes = r.what->shared_dynamic_at + l.dynamic_shared;
  l.cooperative = r.cooperative;
  l.id = ++launches;
  allocation kind;
  kind.internal = true;
  kind.constant = true;
  kind.what = "a launch's parameters";
  l.parameters = arena::allocate(std::max<std::size_t>(parameters.size(), 16), kind);
  if (l.parameters == 0) return poison(cudaErrorMemoryAllocation);
  std::memcpy(map::host(l.parameters), parameters.data(), parameters.size());
  arena::mark_written(l.parameters, parameters.size());
  auto const begin = std::chrono::steady_clock::now();
  run(l);
  double const seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  arena::release(l.parameters);
  std::fflush(stdout);
  counters::record(l, seconds);
  if (l.has_failed) poison(error_of(l.failed));
}

cudaError_t launch_kernel(launch_request const& r, void* const* arguments) {
  if (sticky() != cudaSuccess) return record(sticky());
  if (cudaError_t const e = check(r); e != cudaSuccess) return record(e);
  execute(r, pack_arguments(*r.what, arguments));
  return cudaSuccess;
}

namespace {

cudaError_t by_host_function(void const* f, kernel const*& out) {
  try {
    out = registry::find_kernel(f);
  } catch (std::exception const& e) { return refuse(cudaErrorInvalidPtx, e.what()); }
  return out == nullptr ? record(cudaErrorInvalidDeviceFunction) : cudaSuccess;
}

struct configuration {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<configuration> pushed;

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

cudaError_t cudaLaunchKernel(void const* f, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t stream) {
  launch_request r{nullptr, grid, block, shared, stream, false};
  if (cudaError_t const e = by_host_function(f, r.what); e != cudaSuccess) return e;
  return launch_kernel(r, args);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 grid, dim3 block, void** args, size_t shared,
                               cudaStream_t stream) {
  return cudaLaunchKernel(reinterpret_cast<void const*>(k), grid, block, args, shared, stream);
}

}  // extern "C"
