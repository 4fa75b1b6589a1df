// The stages of _cuda: the bindings' own sources, on CUDA. And the addresses of lists of arrays. One
// unit, as the layer's kernels are those of the stages: two would compile most of them twice.
#include <algorithm>

#include "shunt/layer.cuh"
#include "shunt/stats.cuh"
//
#include "combine.cpp"
#include "dispatch.cpp"
#include "experts.cpp"
#include "layer.cpp"
#include "losses.cpp"
#include "moe_experts.cpp"
#include "projection.cpp"
#include "route.cpp"
#include "stats.cpp"

namespace bindings {
namespace {

/// By value: a captured launch keeps its own, and nothing is read from the host later.
struct addresses {
  static constexpr std::size_t most = 256;
  void* at[most];
};

__global__ void put(void** to, __grid_constant__ addresses const from, unsigned count) {
  if (threadIdx.x < count) to[threadIdx.x] = from.at[threadIdx.x];
}

}  // namespace

void write_addresses(void** to, void* const* from, std::size_t count) {
  addresses part{};
  auto const stream = reinterpret_cast<cudaStream_t>(called().stream);
  for (std::size_t done = 0; done < count; done += addresses::most) {
    std::size_t const n = std::min(addresses::most, count - done);
    std::copy_n(from + done, n, part.at);
    put<<<1, addresses::most, 0, stream>>>(to + done, part, static_cast<unsigned>(n));
    raise_unless(cudaGetLastError(), "the addresses of a list of arrays");
  }
}

}  // namespace bindings
