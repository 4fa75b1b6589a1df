// CUB's block primitives against std::, each in one block of 128 threads with 4 items a thread.
#include <algorithm>
#include <cub/block/block_discontinuity.cuh>
#include <cub/block/block_exchange.cuh>
#include <cub/block/block_load.cuh>
#include <cub/block/block_merge_sort.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <numeric>

#include "algorithms.hpp"

namespace cub_block_test {

constexpr int threads = 128, items = 4, tile = threads * items;

std::vector<int> numbers(std::size_t n = tile) {
  std::vector<int> v = values_of<int>(patterns[0], n);
  for (int& x : v) x = x % 1000;
  return v;
}

template <cub::BlockScanAlgorithm A> __global__ void scan(int const* in, int* out, int* total) {
  using scan_t = cub::BlockScan<int, threads, A>;
  __shared__ typename scan_t::TempStorage storage;
  int v[items], sum;
  for (int i = 0; i < items; ++i) v[i] = in[threadIdx.x * items + i];
  scan_t(storage).ExclusiveSum(v, v, sum);
  for (int i = 0; i < items; ++i) out[threadIdx.x * items + i] = v[i];
  if (threadIdx.x == 0) *total = sum;
}

template <cub::BlockScanAlgorithm A> void expect_scan() {
  auto const v = numbers();
  device_array<int> in(v), out(v.size()), total(std::size_t{1});
  scan<A><<<1, threads>>>(in.data, out.data, total.data);
  std::vector<int> expected(v.size());
  std::exclusive_scan(v.begin(), v.end(), expected.begin(), 0);
  EXPECT_EQ(out.host(), expected);
  EXPECT_EQ(total.host()[0], std::accumulate(v.begin(), v.end(), 0));
}

TEST(CubBlock, Scan) {
  expect_scan<cub::BLOCK_SCAN_RAKING>();
  expect_scan<cub::BLOCK_SCAN_RAKING_MEMOIZE>();
  expect_scan<cub::BLOCK_SCAN_WARP_SCANS>();
}

template <cub::BlockReduceAlgorithm A> __global__ void reduce(int const* in, int* out, int valid) {
  using reduce_t = cub::BlockReduce<int, threads, A>;
  __shared__ typename reduce_t::TempStorage storage;
  int const v = in[threadIdx.x];
  int const all = reduce_t(storage).Sum(v);
  __syncthreads();
  int const some = reduce_t(storage).Sum(v, valid);
  if (threadIdx.x == 0) out[0] = all, out[1] = some;
}

template <cub::BlockReduceAlgorithm A> void expect_reduce() {
  auto const v = numbers(threads);
  device_array<int> in(v), out(std::size_t{2});
  for (int valid : {1, 31, 32, 33, 127, 128}) {
    reduce<A><<<1, threads>>>(in.data, out.data, valid);
    EXPECT_EQ(out.host()[0], std::accumulate(v.begin(), v.end(), 0));
    EXPECT_EQ(out.host()[1], std::accumulate(v.begin(), v.begin() + valid, 0)) << valid;
  }
}

TEST(CubBlock, Reduce) {
  expect_reduce<cub::BLOCK_REDUCE_RAKING>();
  expect_reduce<cub::BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY>();
  expect_reduce<cub::BLOCK_REDUCE_WARP_REDUCTIONS>();
}

__global__ void radix_sort(int const* in, int* out, int* index, bool descending) {
  using sort_t = cub::BlockRadixSort<int, threads, items, int>;
  __shared__ typename sort_t::TempStorage storage;
  int key[items], value[items];
  for (int i = 0; i < items; ++i) {
    value[i] = threadIdx.x * items + i;
    key[i] = in[value[i]];
  }
  if (descending)
    sort_t(storage).SortDescending(key, value);
  else
    sort_t(storage).Sort(key, value);
  for (int i = 0; i < items; ++i) {
    out[threadIdx.x * items + i] = key[i];
    index[threadIdx.x * items + i] = value[i];
  }
}

TEST(CubBlock, RadixSort) {
  for (pattern p : patterns)
    for (bool descending : {false, true}) {
      auto const v = values_of<int>(p, tile);
      device_array<int> in(v), out(v.size()), index(v.size());
      radix_sort<<<1, threads>>>(in.data, out.data, index.data, descending);
      std::vector<int> order(v.size()), sorted;
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int x, int y) { return descending ? v[x] > v[y] : v[x] < v[y]; });
      for (int i : order) sorted.push_back(v[i]);
      EXPECT_EQ(out.host(), sorted) << p.name;
      EXPECT_EQ(index.host(), order) << p.name;
    }
}

struct less {
  __device__ bool operator()(int a, int b) const { return a < b; }
};

__global__ void merge_sort(int const* in, int* out, int valid) {
  using sort_t = cub::BlockMergeSort<int, threads, items>;
  __shared__ typename sort_t::TempStorage storage;
  int key[items];
  for (int i = 0; i < items; ++i) {
    int const at = threadIdx.x * items + i;
    key[i] = at < valid ? in[at] : 0;
  }
  sort_t(storage).StableSort(key, less{}, valid, 1 << 30);
  for (int i = 0; i < items; ++i) out[threadIdx.x * items + i] = key[i];
}

TEST(CubBlock, MergeSort) {
  auto const v = numbers();
  for (int valid : {1, 100, 511, 512}) {
    device_array<int> in(v), out(v.size());
    merge_sort<<<1, threads>>>(in.data, out.data, valid);
    auto expected = v;
    std::sort(expected.begin(), expected.begin() + valid);
    auto const got = out.host();
    EXPECT_TRUE(std::equal(got.begin(), got.begin() + valid, expected.begin())) << valid;
  }
}

template <cub::BlockLoadAlgorithm L, cub::BlockStoreAlgorithm S>
__global__ void load_store(int const* in, int* out, int valid) {
  using load_t = cub::BlockLoad<int, threads, items, L>;
  using store_t = cub::BlockStore<int, threads, items, S>;
  __shared__ union {
    typename load_t::TempStorage load;
    typename store_t::TempStorage store;
  } storage;
  int v[items];
  if (valid == tile)
    load_t(storage.load).Load(in, v);
  else
    load_t(storage.load).Load(in, v, valid, -5);
  __syncthreads();
  for (int& x : v) x += 1;
  if (valid == tile)
    store_t(storage.store).Store(out, v);
  else
    store_t(storage.store).Store(out, v, valid);
}

template <cub::BlockLoadAlgorithm L, cub::BlockStoreAlgorithm S> void expect_load_store() {
  auto const v = numbers();
  for (int valid : {1, 130, 511, 512}) {
    std::vector<int> const some(v.begin(), v.begin() + valid);
    device_array<int> in(some), out(some.size());
    load_store<L, S><<<1, threads>>>(in.data, out.data, valid);
    auto expected = some;
    for (int& x : expected) ++x;
    EXPECT_EQ(out.host(), expected) << valid;
  }
}

TEST(CubBlock, LoadAndStore) {
  expect_load_store<cub::BLOCK_LOAD_DIRECT, cub::BLOCK_STORE_DIRECT>();
  expect_load_store<cub::BLOCK_LOAD_STRIPED, cub::BLOCK_STORE_STRIPED>();
  expect_load_store<cub::BLOCK_LOAD_VECTORIZE, cub::BLOCK_STORE_VECTORIZE>();
  expect_load_store<cub::BLOCK_LOAD_TRANSPOSE, cub::BLOCK_STORE_TRANSPOSE>();
  expect_load_store<cub::BLOCK_LOAD_WARP_TRANSPOSE, cub::BLOCK_STORE_WARP_TRANSPOSE>();
  expect_load_store<cub::BLOCK_LOAD_WARP_TRANSPOSE_TIMESLICED,
                    cub::BLOCK_STORE_WARP_TRANSPOSE_TIMESLICED>();
}

__global__ void exchange(int* blocked, int* striped, int* scattered) {
  using exchange_t = cub::BlockExchange<int, threads, items>;
  __shared__ typename exchange_t::TempStorage storage;
  int v[items], rank[items];
  auto const mine = [](int i) { return int(threadIdx.x) * items + i; };
  for (int i = 0; i < items; ++i) v[i] = i * threads + threadIdx.x;
  exchange_t(storage).StripedToBlocked(v, v);
  for (int i = 0; i < items; ++i) blocked[mine(i)] = v[i];
  __syncthreads();
  for (int i = 0; i < items; ++i) v[i] = mine(i);
  exchange_t(storage).BlockedToStriped(v, v);
  for (int i = 0; i < items; ++i) striped[mine(i)] = v[i];
  __syncthreads();
  for (int i = 0; i < items; ++i) {
    v[i] = mine(i);
    rank[i] = tile - 1 - mine(i);
  }
  exchange_t(storage).ScatterToBlocked(v, v, rank);
  for (int i = 0; i < items; ++i) scattered[mine(i)] = v[i];
}

TEST(CubBlock, Exchange) {
  device_array<int> blocked(std::size_t{tile}), striped(std::size_t{tile}),
      scattered(std::size_t{tile});
  exchange<<<1, threads>>>(blocked.data, striped.data, scattered.data);
  auto const b = blocked.host(), s = striped.host(), r = scattered.host();
  for (int t = 0; t < threads; ++t)
    for (int i = 0; i < items; ++i) {
      ASSERT_EQ(b[t * items + i], t * items + i);
      ASSERT_EQ(s[t * items + i], i * threads + t);
      ASSERT_EQ(r[t * items + i], tile - 1 - (t * items + i));
    }
}

struct differs {
  __device__ bool operator()(int a, int b) const { return a != b; }
};

__global__ void heads(int const* in, int* out) {
  using flags_t = cub::BlockDiscontinuity<int, threads>;
  __shared__ typename flags_t::TempStorage storage;
  int v[items], flag[items];
  for (int i = 0; i < items; ++i) v[i] = in[threadIdx.x * items + i];
  flags_t(storage).FlagHeads(flag, v, differs{});
  for (int i = 0; i < items; ++i) out[threadIdx.x * items + i] = flag[i];
}

TEST(CubBlock, Discontinuity) {
  auto const v = values_of<int>(patterns[1], tile);
  device_array<int> in(v), out(v.size());
  heads<<<1, threads>>>(in.data, out.data);
  auto const got = out.host();
  for (std::size_t i = 0; i < v.size(); ++i)
    ASSERT_EQ(got[i] != 0, i == 0 || v[i] != v[i - 1]) << i;
}

}  // namespace cub_block_test
