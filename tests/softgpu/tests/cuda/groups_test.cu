// Cooperative groups: tiles of every size, coalesced and labeled groups, copies to shared memory.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <cuda/barrier>

#include <bit>

#include "algorithms.hpp"

namespace cg = cooperative_groups;

namespace groups_test {

constexpr int threads = 64;

struct tile_result {
  int rank, size, of, shuffled, neighbor, sum, most, scan;
  unsigned ballot;
  int any, all;
};

template <int Size> __global__ void in_tiles(int const* in, tile_result* out) {
  auto const tile = cg::tiled_partition<Size>(cg::this_thread_block());
  int const v = in[threadIdx.x];
  tile_result r;
  r.rank = int(tile.thread_rank());
  r.size = int(tile.size());
  r.of = int(tile.meta_group_rank());
  r.shuffled = tile.shfl(v, Size / 2);
  r.neighbor = tile.shfl_xor(v, Size > 1 ? 1 : 0);
  r.ballot = tile.ballot(v % 2 != 0);
  r.any = tile.any(v % 7 == 0);
  r.all = tile.all(v % 7 != 0);
  r.sum = cg::reduce(tile, v, cg::plus<int>());
  r.most = cg::reduce(tile, v, cg::greater<int>());
  r.scan = cg::exclusive_scan(tile, v, cg::plus<int>());
  tile.sync();
  out[threadIdx.x] = r;
}

template <int Size> void expect_tiles() {
  std::vector<int> v(threads);
  for (int i = 0; i < threads; ++i) v[i] = i * i % 101 + 1;
  device_array<int> in(v);
  device_array<tile_result> out(std::size_t{threads});
  in_tiles<Size><<<1, threads>>>(in.data, out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const got = out.host();
  for (int t = 0; t < threads; ++t) {
    int const first = t / Size * Size;
    int sum = 0, before = 0, most = 0, any = 0, all = 1;
    unsigned ballot = 0;
    for (int i = first; i < first + Size; ++i) {
      sum += v[i];
      if (i < t) before += v[i];
      most = std::max(most, v[i]);
      ballot |= unsigned(v[i] % 2 != 0) << (i - first);
      any |= v[i] % 7 == 0;
      all &= v[i] % 7 != 0;
    }
    SCOPED_TRACE(testing::Message() << "tiles of " << Size << ", thread " << t);
    EXPECT_EQ(got[t].rank, t % Size);
    EXPECT_EQ(got[t].size, Size);
    EXPECT_EQ(got[t].of, t / Size);
    EXPECT_EQ(got[t].shuffled, v[first + Size / 2]);
    EXPECT_EQ(got[t].neighbor, v[Size > 1 ? t ^ 1 : t]);
    EXPECT_EQ(got[t].ballot, ballot);
    EXPECT_EQ(got[t].any != 0, any != 0);
    EXPECT_EQ(got[t].all != 0, all != 0);
    EXPECT_EQ(got[t].sum, sum);
    EXPECT_EQ(got[t].most, most);
    EXPECT_EQ(got[t].scan, before);
  }
}

TEST(Groups, Tiles) {
  expect_tiles<32>();
  expect_tiles<16>();
  expect_tiles<8>();
  expect_tiles<4>();
  expect_tiles<2>();
  expect_tiles<1>();
}

__global__ void coalesced(int const* in, int* rank, int* size, int* sum) {
  int const v = in[threadIdx.x];
  if (v % 3 != 0) return;
  auto const active = cg::coalesced_threads();
  rank[threadIdx.x] = int(active.thread_rank());
  size[threadIdx.x] = int(active.size());
  sum[threadIdx.x] = cg::reduce(active, v, cg::plus<int>());
}

TEST(Groups, CoalescedThreads) {
  std::vector<int> v(32);
  for (int i = 0; i < 32; ++i) v[i] = i * 5 % 17;
  std::vector<int> const none(32, -1);
  device_array<int> in(v), rank(none), size(none), sum(none);
  coalesced<<<1, 32>>>(in.data, rank.data, size.data, sum.data);
  int members = 0, total = 0;
  for (int x : v)
    if (x % 3 == 0) ++members, total += x;
  auto const ranks = rank.host(), sizes = size.host(), sums = sum.host();
  for (int i = 0, k = 0; i < 32; ++i) {
    bool const in_it = v[i] % 3 == 0;
    EXPECT_EQ(ranks[i], in_it ? k++ : -1);
    EXPECT_EQ(sizes[i], in_it ? members : -1);
    EXPECT_EQ(sums[i], in_it ? total : -1);
  }
}

__global__ void labeled(int const* in, int* sum, int* size) {
  auto const warp = cg::tiled_partition<32>(cg::this_thread_block());
  int const v = in[threadIdx.x];
  auto const same = cg::labeled_partition(warp, v % 5);
  sum[threadIdx.x] = cg::reduce(same, v, cg::plus<int>());
  size[threadIdx.x] = int(same.size());
}

__global__ void in_two(int const* in, int* sum) {
  auto const warp = cg::tiled_partition<32>(cg::this_thread_block());
  int const v = in[threadIdx.x];
  auto const half = cg::binary_partition(warp, v % 2 == 0);
  sum[threadIdx.x] = cg::reduce(half, v, cg::plus<int>());
}

TEST(Groups, Partitions) {
  std::vector<int> v(32);
  for (int i = 0; i < 32; ++i) v[i] = i * 7 % 23;
  device_array<int> in(v), sum(v.size()), size(v.size()), by_two(v.size());
  labeled<<<1, 32>>>(in.data, sum.data, size.data);
  in_two<<<1, 32>>>(in.data, by_two.data);
  auto const sums = sum.host(), sizes = size.host(), halves = by_two.host();
  for (int i = 0; i < 32; ++i) {
    int total = 0, members = 0, half = 0;
    for (int x : v) {
      if (x % 5 == v[i] % 5) total += x, ++members;
      if (x % 2 == v[i] % 2) half += x;
    }
    EXPECT_EQ(sums[i], total) << i;
    EXPECT_EQ(sizes[i], members) << i;
    EXPECT_EQ(halves[i], half) << i;
  }
}

__global__ void through_shared(int const* in, int* out, int n) {
  extern __shared__ __align__(16) int s[];
  auto const block = cg::this_thread_block();
  cg::memcpy_async(block, s, in, sizeof(int) * n);
  cg::wait(block);
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = s[n - 1 - i];
}

__global__ void through_shared_in_two(int4 const* in, int4* out, int n) {
  extern __shared__ __align__(16) int4 wide[];
  auto const block = cg::this_thread_block();
  cg::memcpy_async(block, wide, in, ::cuda::aligned_size_t<16>(sizeof(int4) * n));
  cg::memcpy_async(block, wide + n, in + n, ::cuda::aligned_size_t<16>(sizeof(int4) * n));
  cg::wait_prior<1>(block);
  if (threadIdx.x < n) out[threadIdx.x] = wide[threadIdx.x];
  cg::wait_prior<0>(block);
  if (threadIdx.x < n) out[n + threadIdx.x] = wide[n + threadIdx.x];
}

TEST(Groups, CopiesToSharedMemory) {
  for (int n : {1, 3, 64, 100, 1000}) {
    auto const v = values_of<int>(patterns[0], std::size_t(n));
    device_array<int> in(v), out(v.size());
    through_shared<<<1, 96, sizeof(int) * n>>>(in.data, out.data, n);
    auto expected = v;
    std::reverse(expected.begin(), expected.end());
    EXPECT_EQ(out.host(), expected) << n;
  }
  std::vector<int4> v(128);
  for (int i = 0; i < 128; ++i) v[i] = {i, 2 * i, 3 * i, 4 * i};
  device_array<int4> in(v), out(v.size());
  through_shared_in_two<<<1, 64, sizeof(int4) * 128>>>(in.data, out.data, 64);
  auto const got = out.host();
  for (int i = 0; i < 128; ++i) ASSERT_EQ(got[i].w, 4 * i);
}

}  // namespace groups_test
