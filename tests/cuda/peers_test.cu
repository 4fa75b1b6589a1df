// The permutation of a MoE layer beside the same job written on stock CUB, on stock Thrust and as a
// plain CUDA loop, on the software device: what each asks of global memory, and how many instructions
// it executes. All four write the same rows (the plain loop's in any order within an expert).
#include <gtest/gtest.h>
#include <thrust/binary_search.h>
#include <thrust/device_vector.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/tabulate.h>

#include <cub/device/device_radix_sort.cuh>

#include <cstdio>
#include <set>
#include <string>

#include "shunt/dispatch.cuh"
#include "softgpu/softgpu.hpp"
#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace peers_test {

/// DeepSeek-V2-Lite's layer, for fewer tokens.
constexpr shape s{.tokens = 192, .hidden = 2048, .experts = 64, .top_k = 6};
constexpr int T = s.tokens, H = s.hidden, E = s.experts, K = s.top_k, R = T * K;

struct cost {
  std::size_t launches = 0;
  double bytes = 0, instructions = 0;
};
cost cost_of(char const* who) {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cost sum;
  for (auto const& launch : softgpu::take_counts()) {
    ++sum.launches;
    sum.bytes += static_cast<double>(launch.dram_bytes());
    sum.instructions += static_cast<double>(launch.warp_instructions);
  }
  // Ids and tokens read once, rows and the plan (offsets, both directions) written once.
  constexpr double least = 4.0 * R + 2.0 * T * H + 2.0 * R * H + 4.0 * (E + 1 + 2 * R);
  std::printf("%-12s %2zu launches  %6.2f MB  %5.2f of the least  %8.0f warp instructions\n", who,
              sum.launches, sum.bytes * 1e-6, sum.bytes / least, sum.instructions);
  return sum;
}

struct fixture {
  std::vector<index_t> ids = chosen_experts(s, skew::zipf, 1);
  std::vector<bf16> tokens = values<bf16>(offset_t{T} * H, 2);
  on_device<index_t> expert{ids};
  on_device<bf16> x{tokens}, rows{offset_t{R} * H};
};

/// What the sorts' outputs feed: a row is its slot's token, element by element.
struct take_element {
  bf16 const* x;
  index_t const* slot;
  __host__ __device__ bf16 operator()(int i) const { return x[slot[i / H] / K * H + i % H]; }
};
__global__ void gather_elements(take_element from, bf16* rows) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < R * H) rows[i] = from(i);
}
__global__ void invert(index_t const* slot, index_t* row_of_slot) {
  int const r = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (r < R) row_of_slot[slot[r]] = r;
}
__global__ void first_of_each(index_t const* sorted, index_t* offset) {
  int const e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (e > E) return;
  int low = 0, high = R;
  while (low < high) {
    int const middle = (low + high) / 2;
    if (sorted[middle] < e)
      low = middle + 1;
    else
      high = middle;
  }
  offset[e] = low;
}

std::vector<bf16> ours(fixture const& q, cost& to) {
  on_device<std::byte> const work(static_cast<offset_t>(plan_scratch_bytes(on_cuda{}, s)));
  device_plan_fixture const d(s, R);
  (void)softgpu::take_counts();
  EXPECT_TRUE(plan_dispatch(on_cuda{}, q.expert.as(T, K), d.plan, {work.data(), work.size()}).ok());
  EXPECT_TRUE(dispatch(on_cuda{}, q.x.as(T, H), d.plan, q.rows.as(R, H)).ok());
  to = cost_of("Shunt");
  return q.rows.host();
}

std::vector<bf16> on_cub(fixture const& q, cost& to) {
  on_device<index_t> const sorted(R), slot(R), row(R), offset(E + 1);
  std::vector<index_t> numbers(R);
  for (int i = 0; i < R; ++i) numbers[static_cast<std::size_t>(i)] = i;
  on_device<index_t> const slots(numbers);
  std::size_t bytes = 0;
  auto const sort = [&](void* scratch) {
    EXPECT_EQ(cub::DeviceRadixSort::SortPairs(scratch, bytes, q.expert.data(), sorted.data(),
                                              slots.data(), slot.data(), R, 0, 6),
              cudaSuccess);
  };
  sort(nullptr);
  on_device<std::byte> const scratch(static_cast<offset_t>(bytes));
  (void)softgpu::take_counts();
  sort(scratch.data());
  first_of_each<<<1, 96>>>(sorted.data(), offset.data());
  invert<<<(R + 255) / 256, 256>>>(slot.data(), row.data());
  gather_elements<<<R * H / 256, 256>>>({q.x.data(), slot.data()}, q.rows.data());
  to = cost_of("CUB");
  return q.rows.host();
}

std::vector<bf16> on_thrust(fixture const& q, cost& to) {
  thrust::device_vector<index_t> key(q.ids.begin(), q.ids.end()), slot(R), row(R), offset(E + 1);
  (void)softgpu::take_counts();
  thrust::sequence(slot.begin(), slot.end());
  thrust::stable_sort_by_key(key.begin(), key.end(), slot.begin());
  thrust::lower_bound(key.begin(), key.end(), thrust::counting_iterator<index_t>(0),
                      thrust::counting_iterator<index_t>(E + 1), offset.begin());
  thrust::scatter(thrust::counting_iterator<index_t>(0), thrust::counting_iterator<index_t>(R),
                  slot.begin(), row.begin());
  thrust::device_ptr<bf16> const rows(q.rows.data());
  thrust::tabulate(rows, rows + R * H,
                   take_element{q.x.data(), thrust::raw_pointer_cast(slot.data())});
  to = cost_of("Thrust");
  return q.rows.host();
}

// As one writes it first: count with atomics, one thread adds up, atomics hand out the rows.
__global__ void count_ids(index_t const* expert, index_t* count) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < R) atomicAdd(&count[expert[i]], 1);
}
__global__ void add_up(index_t const* count, index_t* offset, index_t* next) {
  index_t sum = 0;
  for (int e = 0; e < E; ++e) {
    offset[e] = next[e] = sum;
    sum += count[e];
  }
  offset[E] = sum;
}
__global__ void hand_out(index_t const* expert, index_t* next, index_t* slot, index_t* row) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= R) return;
  index_t const r = atomicAdd(&next[expert[i]], 1);
  slot[r] = i;
  row[i] = r;
}

std::vector<bf16> plain_loop(fixture const& q, cost& to) {
  on_device<index_t> const count{std::vector<index_t>(E)}, offset(E + 1), next(E), slot(R), row(R);
  (void)softgpu::take_counts();
  count_ids<<<(R + 255) / 256, 256>>>(q.expert.data(), count.data());
  add_up<<<1, 1>>>(count.data(), offset.data(), next.data());
  hand_out<<<(R + 255) / 256, 256>>>(q.expert.data(), next.data(), slot.data(), row.data());
  gather_elements<<<R * H / 256, 256>>>({q.x.data(), slot.data()}, q.rows.data());
  to = cost_of("plain loop");
  return q.rows.host();
}

TEST(CudaPeers, PermuteBesideCubThrustAndAPlainLoop) {
  fixture const q;
  cost mine, cub, thrust, plain;
  auto const want = ours(q, mine);
  EXPECT_TRUE(same_values(on_cub(q, cub), want));
  EXPECT_TRUE(same_values(on_thrust(q, thrust), want));
  auto const unordered = plain_loop(q, plain);
  auto const bag = [](std::vector<bf16> const& rows) {
    std::multiset<std::string> all;
    for (int r = 0; r < R; ++r) {
      all.emplace(reinterpret_cast<char const*>(rows.data() + offset_t{r} * H), H * sizeof(bf16));
    }
    return all;
  };
  EXPECT_TRUE(bag(unordered) == bag(want));
  for (cost const& peer : {cub, thrust, plain}) {
    EXPECT_LT(mine.bytes, peer.bytes);
    EXPECT_LT(mine.instructions, peer.instructions);
  }
}

}  // namespace peers_test
}  // namespace shunt::test
