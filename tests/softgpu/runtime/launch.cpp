#include "runtime/launch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "counters/counters.hpp"
#include "machine/block.hpp"
#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/limits.hpp"
#include "runtime/registry.hpp"
#include "runtime/stream.hpp"

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

bool asks_for_clusters(kernel const& k) {  // __cluster_dims__
  auto const found = k.source->directives.find("reqnctapercluster");
  if (found == k.source->directives.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [](auto n) { return n != 1; });
}

std::atomic<std::uint64_t> launches = 0;

/// Device memory that a launch has for itself; 0 where there is none left.
std::uint64_t our_memory(std::vector<std::byte> const& bytes, char const* what, bool constant) {
  allocation kind;
  kind.internal = true;
  kind.constant = constant;
  kind.what = what;
  std::size_t const size = std::max<std::size_t>(bytes.size(), 16);
  std::uint64_t const at = arena::allocate(size, kind);
  if (at == 0) return 0;
  std::copy(bytes.begin(), bytes.end(), map::host(at));
  arena::mark_written(at, bytes.size());
  return at;
}

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
  std::atomic_ref const most_dynamic(r.what->max_dynamic_shared);
  if (r.dynamic_shared > static_cast<std::uint64_t>(most_dynamic.load()))
    return cudaErrorInvalidValue;
  if (asks_for_clusters(*r.what))
    return unsupported("a launch of " + r.what->name, "a cluster of more than one block");
  if (!r.cooperative) return cudaSuccess;
  std::uint64_t const blocks = std::uint64_t{r.grid.x} * r.grid.y * r.grid.z;
  auto const resident = static_cast<std::uint64_t>(
      limits::resident_blocks(*r.what, static_cast<int>(threads), r.dynamic_shared));
  return blocks > resident * limits::multiprocessors ? cudaErrorCooperativeLaunchTooLarge
                                                     : cudaSuccess;
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
  l.parameters = our_memory(parameters, "a launch's parameters", true);
  if (l.parameters == 0) return poison(cudaErrorMemoryAllocation);
  if (r.cooperative) {  // what cooperative groups expect there: its size, and the grid's barrier
    std::uint32_t const workspace[2] = {sizeof workspace, 0};
    std::vector<std::byte> bytes(sizeof workspace);
    std::memcpy(bytes.data(), workspace, sizeof workspace);
    l.workspace = our_memory(bytes, "a grid's workspace", false);
  }
  auto const begin = std::chrono::steady_clock::now();
  run(l);
  double const seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  arena::release(l.parameters);
  if (l.workspace != 0) arena::release(l.workspace);
  std::fflush(stdout);
  counters::record(l, seconds);
  if (l.has_failed) poison(error_of(l.failed));
}

cudaError_t launch_kernel(launch_request const& r, void* const* arguments, cudaStream_t stream) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (cudaError_t const e = check(r); e != cudaSuccess) return record(e);
  return submit(stream, kernel_action{r, pack_arguments(*r.what, arguments)});
}

cudaError_t by_host_function(void const* f, kernel const*& out) {
  try {
    out = registry::find_kernel(f);
  } catch (std::exception const& e) { return refuse(cudaErrorInvalidPtx, e.what()); }
  return out == nullptr ? record(cudaErrorInvalidDeviceFunction) : cudaSuccess;
}

}  // namespace softgpu
