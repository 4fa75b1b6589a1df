// CUB's warp primitives against std::, for whole warps and parts of them.
#include <algorithm>
#include <cub/warp/warp_exchange.cuh>
#include <cub/warp/warp_load.cuh>
#include <cub/warp/warp_merge_sort.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_scan.cuh>
#include <cub/warp/warp_store.cuh>
#include <numeric>

#include "algorithms.hpp"

namespace cub_warp_test {

constexpr int threads = 64;

std::vector<int> numbers(std::size_t n) {
  std::vector<int> v = values_of<int>(patterns[0], n);
  for (int& x : v) x = x % 1000;
  return v;
}

template <int Width> __global__ void scan(int const* in, int* inclusive, int* exclusive) {
  using scan_t = cub::WarpScan<int, Width>;
  __shared__ typename scan_t::TempStorage storage[threads / Width];
  int const v = in[threadIdx.x];
  int a, b;
  scan_t(storage[threadIdx.x / Width]).Scan(v, a, b, 0, add_up{});
  inclusive[threadIdx.x] = a;
  exclusive[threadIdx.x] = b;
}

template <int Width> __global__ void reduce(int const* in, int* out, int* some, int valid) {
  using reduce_t = cub::WarpReduce<int, Width>;
  __shared__ typename reduce_t::TempStorage storage[threads / Width];
  int const v = in[threadIdx.x];
  int const all = reduce_t(storage[threadIdx.x / Width]).Sum(v);
  __syncwarp();
  int const part = reduce_t(storage[threadIdx.x / Width]).Sum(v, valid);
  if (threadIdx.x % Width == 0) {
    out[threadIdx.x / Width] = all;
    some[threadIdx.x / Width] = part;
  }
}

template <int Width> void expect_width() {
  auto const v = numbers(threads);
  device_array<int> in(v), a(v.size()), b(v.size()), sums(v.size()), some(v.size());
  scan<Width><<<1, threads>>>(in.data, a.data, b.data);
  int const valid = Width / 2 + 1;
  reduce<Width><<<1, threads>>>(in.data, sums.data, some.data, valid);
  for (int w = 0; w < threads / Width; ++w) {
    auto const first = v.begin() + w * Width;
    std::vector<int> inclusive(Width), exclusive(Width);
    std::inclusive_scan(first, first + Width, inclusive.begin());
    std::exclusive_scan(first, first + Width, exclusive.begin(), 0);
    auto const got_a = a.host(), got_b = b.host();
    EXPECT_TRUE(std::equal(inclusive.begin(), inclusive.end(), got_a.begin() + w * Width)) << Width;
    EXPECT_TRUE(std::equal(exclusive.begin(), exclusive.end(), got_b.begin() + w * Width)) << Width;
    EXPECT_EQ(sums.host()[w], std::accumulate(first, first + Width, 0)) << Width;
    EXPECT_EQ(some.host()[w], std::accumulate(first, first + valid, 0)) << Width;
  }
}

TEST(CubWarp, ScanAndReduce) {
  expect_width<32>();
  expect_width<16>();
  expect_width<8>();
  expect_width<4>();
  expect_width<2>();
}

constexpr int items = 4;

struct less {
  __device__ bool operator()(int a, int b) const { return a < b; }
};

template <int Width> __global__ void sort(int const* in, int* out) {
  using load_t = cub::WarpLoad<int, items, cub::WARP_LOAD_TRANSPOSE, Width>;
  using store_t = cub::WarpStore<int, items, cub::WARP_STORE_TRANSPOSE, Width>;
  using sort_t = cub::WarpMergeSort<int, items, Width>;
  __shared__ union {
    typename load_t::TempStorage load;
    typename store_t::TempStorage store;
    typename sort_t::TempStorage sort;
  } storage[threads / Width];
  int const w = threadIdx.x / Width;
  int v[items];
  load_t(storage[w].load).Load(in + w * Width * items, v);
  __syncwarp();
  sort_t(storage[w].sort).Sort(v, less{});
  __syncwarp();
  store_t(storage[w].store).Store(out + w * Width * items, v);
}

template <int Width> void expect_sort() {
  for (pattern p : patterns) {
    auto v = values_of<int>(p, threads * items);
    device_array<int> in(v), out(v.size());
    sort<Width><<<1, threads>>>(in.data, out.data);
    for (int w = 0; w < threads / Width; ++w)
      std::sort(v.begin() + w * Width * items, v.begin() + (w + 1) * Width * items);
    EXPECT_EQ(out.host(), v) << Width << " " << p.name;
  }
}

TEST(CubWarp, LoadMergeSortStore) {
  expect_sort<32>();
  expect_sort<16>();
  expect_sort<8>();
}

__global__ void exchange(int* out) {
  using exchange_t = cub::WarpExchange<int, items>;
  __shared__ typename exchange_t::TempStorage storage[threads / 32];
  int const lane = threadIdx.x % 32;
  int v[items];
  for (int i = 0; i < items; ++i) v[i] = i * 32 + lane;
  exchange_t(storage[threadIdx.x / 32]).StripedToBlocked(v, v);
  for (int i = 0; i < items; ++i) out[threadIdx.x * items + i] = v[i];
}

TEST(CubWarp, Exchange) {
  device_array<int> out(std::size_t{threads * items});
  exchange<<<1, threads>>>(out.data);
  auto const got = out.host();
  for (int i = 0; i < threads * items; ++i) ASSERT_EQ(got[i], i % (32 * items));
}

}  // namespace cub_warp_test
