// Code that nobody here wrote: CUB's device algorithms against std::, over sizes around their tiles.
#include <cub/cub.cuh>

#include <algorithm>
#include <numeric>
#include <random>

#include "device_array.hpp"

namespace {

constexpr std::size_t sizes[] = {1, 31, 33, 1000, 4097, 60001};

/// Calls a CUB algorithm's two phases.
template <class F> void run(F&& algorithm) {
  std::size_t bytes = 0;
  ASSERT_EQ(algorithm(nullptr, bytes), cudaSuccess);
  device_array<char> scratch(bytes);
  ASSERT_EQ(algorithm(scratch.data, bytes), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

std::vector<unsigned> random_numbers(std::size_t n, unsigned below = 0) {
  std::mt19937 dice(static_cast<unsigned>(n) + below);
  std::vector<unsigned> v(n);
  for (unsigned& x : v) x = below != 0 ? dice() % below : dice();
  return v;
}

TEST(Cub, ExclusiveScan) {
  for (std::size_t n : sizes) {
    auto const v = random_numbers(n, 100);
    device_array<unsigned> a(v), b(n);
    run([&](void* t, std::size_t& s) {
      return cub::DeviceScan::ExclusiveSum(t, s, a.data, b.data, int(n));
    });
    std::vector<unsigned> expected(n);
    std::exclusive_scan(v.begin(), v.end(), expected.begin(), 0u);
    ASSERT_EQ(b.host(), expected) << n;
  }
}

TEST(Cub, RadixSortOfPairsIsStable) {
  for (std::size_t n : sizes) {
    auto const keys = random_numbers(n, 1000);
    std::vector<unsigned> index(n);
    std::iota(index.begin(), index.end(), 0u);
    device_array<unsigned> k(keys), k_out(n), v(index), v_out(n);
    run([&](void* t, std::size_t& s) {
      return cub::DeviceRadixSort::SortPairs(t, s, k.data, k_out.data, v.data, v_out.data, int(n));
    });
    std::stable_sort(index.begin(), index.end(),
                     [&](unsigned x, unsigned y) { return keys[x] < keys[y]; });
    ASSERT_EQ(v_out.host(), index) << n;
  }
}

TEST(Cub, Reduce) {
  for (std::size_t n : sizes) {
    auto const v = random_numbers(n, 1000);
    device_array<unsigned> a(v), b(std::size_t{1});
    run([&](void* t, std::size_t& s) {
      return cub::DeviceReduce::Sum(t, s, a.data, b.data, int(n));
    });
    ASSERT_EQ(b.host()[0], std::accumulate(v.begin(), v.end(), 0u)) << n;
  }
}

TEST(Cub, Histogram) {
  for (std::size_t n : sizes) {
    auto const v = random_numbers(n, 100);
    device_array<unsigned> a(v);
    device_array<int> bins(std::size_t{10});
    run([&](void* t, std::size_t& s) {
      return cub::DeviceHistogram::HistogramEven(t, s, a.data, bins.data, 11, 0u, 100u, int(n));
    });
    std::vector<int> expected(10);
    for (unsigned x : v) ++expected[x / 10];
    ASSERT_EQ(bins.host(), expected) << n;
  }
}

TEST(Cub, RunLengthEncode) {
  for (std::size_t n : sizes) {
    auto const v = random_numbers(n, 3);
    device_array<unsigned> a(v), values(n), lengths(n), count(std::size_t{1});
    run([&](void* t, std::size_t& s) {
      return cub::DeviceRunLengthEncode::Encode(t, s, a.data, values.data, lengths.data, count.data,
                                                int(n));
    });
    std::size_t runs = count.host()[0], at = 0;
    std::vector<unsigned> expanded;
    // Only the first `runs` entries have been written.
    std::vector<unsigned> some(runs), many(runs);
    cudaMemcpy(some.data(), values.data, runs * 4, cudaMemcpyDeviceToHost);
    cudaMemcpy(many.data(), lengths.data, runs * 4, cudaMemcpyDeviceToHost);
    for (std::size_t r = 0; r < runs; ++r) {
      if (r > 0) { ASSERT_NE(some[r], some[r - 1]); }
      expanded.insert(expanded.end(), many[r], some[r]);
      at += many[r];
    }
    ASSERT_EQ(at, n);
    ASSERT_EQ(expanded, v);
  }
}

struct is_even {
  __host__ __device__ bool operator()(unsigned x) const { return x % 2 == 0; }
};

TEST(Cub, Select) {
  for (std::size_t n : sizes) {
    auto const v = random_numbers(n);
    device_array<unsigned> a(v), b(n), count(std::size_t{1});
    run([&](void* t, std::size_t& s) {
      return cub::DeviceSelect::If(t, s, a.data, b.data, count.data, int(n), is_even{});
    });
    std::vector<unsigned> expected;
    std::copy_if(v.begin(), v.end(), std::back_inserter(expected), is_even{});
    ASSERT_EQ(count.host()[0], expected.size());
    std::vector<unsigned> got(expected.size());
    cudaMemcpy(got.data(), b.data, got.size() * 4, cudaMemcpyDeviceToHost);
    ASSERT_EQ(got, expected) << n;
  }
}

}  // namespace
