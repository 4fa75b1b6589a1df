// Code that nobody here wrote: CUB's device algorithms against std::, over sizes around their tiles.
#include <algorithm>
#include <cub/device/device_histogram.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_run_length_encode.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>
#include <numeric>

#include "algorithms.hpp"

namespace cub_test {

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> out(std::begin(small_sizes), std::end(small_sizes));
  for (std::size_t n : {1919, 1920, 1921, 3839, 3840, 3841, 30001}) out.push_back(n);
  return out;
}

std::vector<unsigned> numbers(std::size_t n, unsigned below) {
  auto v = values_of<unsigned>(patterns[0], n);
  for (unsigned& x : v) x %= below;
  return v;
}

TEST(Cub, Scans) {
  for (std::size_t n : sizes()) {
    auto const v = numbers(n, 100);
    device_array<unsigned> a(v), b(n), c(n);
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceScan::ExclusiveSum(t, s, a.data, b.data, int(n));
    });
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceScan::InclusiveSum(t, s, a.data, c.data, int(n));
    });
    std::vector<unsigned> before(n), after(n);
    std::exclusive_scan(v.begin(), v.end(), before.begin(), 0u);
    std::inclusive_scan(v.begin(), v.end(), after.begin());
    ASSERT_EQ(b.host(), before) << n;
    ASSERT_EQ(c.host(), after) << n;
  }
}

TEST(Cub, Reduce) {
  for (std::size_t n : sizes()) {
    auto const v = values_of<unsigned>(patterns[0], n);
    device_array<unsigned> a(v), sum(std::size_t{1}), most(std::size_t{1});
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceReduce::Sum(t, s, a.data, sum.data, int(n));
    });
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceReduce::Max(t, s, a.data, most.data, int(n));
    });
    ASSERT_EQ(sum.host()[0], std::accumulate(v.begin(), v.end(), 0u)) << n;
    ASSERT_EQ(most.host()[0], n == 0 ? 0 : *std::max_element(v.begin(), v.end())) << n;
  }
}

TEST(Cub, Histogram) {
  for (std::size_t n : sizes()) {
    auto const v = numbers(n, 100);
    device_array<unsigned> a(v);
    device_array<int> bins(std::size_t{10});
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceHistogram::HistogramEven(t, s, a.data, bins.data, 11, 0u, 100u, int(n));
    });
    std::vector<int> expected(10);
    for (unsigned x : v) ++expected[x / 10];
    ASSERT_EQ(bins.host(), expected) << n;
  }
}

/// Runs of equal keys: the first of each and its length.
struct runs {
  std::vector<unsigned> keys, lengths;
  explicit runs(std::vector<unsigned> const& v) {
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (i == 0 || v[i] != v[i - 1]) keys.push_back(v[i]), lengths.push_back(0);
      ++lengths.back();
    }
  }
};

TEST(Cub, RunLengthEncode) {
  for (std::size_t n : sizes())
    for (pattern p : {patterns[1], patterns[2], patterns[3]}) {
      auto const v = values_of<unsigned>(p, n);
      device_array<unsigned> a(v), keys(n), lengths(n), count(std::size_t{1});
      two_phases([&](void* t, std::size_t& s) {
        return cub::DeviceRunLengthEncode::Encode(t, s, a.data, keys.data, lengths.data, count.data,
                                                  int(n));
      });
      runs const expected(v);
      ASSERT_EQ(count.host()[0], expected.keys.size()) << n << " " << p.name;
      ASSERT_EQ(first_of(keys, expected.keys.size()), expected.keys) << n << " " << p.name;
      ASSERT_EQ(first_of(lengths, expected.keys.size()), expected.lengths) << n << " " << p.name;
    }
}

TEST(Cub, ReduceByKey) {
  for (std::size_t n : sizes())
    for (pattern p : {patterns[1], patterns[2], patterns[3]}) {
      auto const v = values_of<unsigned>(p, n);
      auto const weights = numbers(n, 1000);
      device_array<unsigned> a(v), w(weights), keys(n), sums(n), count(std::size_t{1});
      two_phases([&](void* t, std::size_t& s) {
        return cub::DeviceReduce::ReduceByKey(t, s, a.data, keys.data, w.data, sums.data,
                                              count.data, add_up{}, int(n));
      });
      runs const expected(v);
      std::vector<unsigned> totals;
      for (std::size_t r = 0, at = 0; r < expected.keys.size(); at += expected.lengths[r++])
        totals.push_back(
            std::accumulate(weights.begin() + at, weights.begin() + at + expected.lengths[r], 0u));
      ASSERT_EQ(count.host()[0], totals.size()) << n << " " << p.name;
      ASSERT_EQ(first_of(keys, totals.size()), expected.keys) << n << " " << p.name;
      ASSERT_EQ(first_of(sums, totals.size()), totals) << n << " " << p.name;
    }
}

struct is_even {
  __host__ __device__ bool operator()(unsigned x) const { return x % 2 == 0; }
};

TEST(Cub, Select) {
  for (std::size_t n : sizes()) {
    auto const v = values_of<unsigned>(patterns[0], n);
    std::vector<char> flags(n);
    for (std::size_t i = 0; i < n; ++i) flags[i] = v[i] / 2 % 3 == 0;
    device_array<unsigned> a(v), even(n), flagged(n), count(std::size_t{1});
    device_array<char> f(flags);
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceSelect::If(t, s, a.data, even.data, count.data, int(n), is_even{});
    });
    std::vector<unsigned> expected;
    std::copy_if(v.begin(), v.end(), std::back_inserter(expected), is_even{});
    ASSERT_EQ(count.host()[0], expected.size()) << n;
    ASSERT_EQ(first_of(even, expected.size()), expected) << n;
    two_phases([&](void* t, std::size_t& s) {
      return cub::DeviceSelect::Flagged(t, s, a.data, f.data, flagged.data, count.data, int(n));
    });
    expected.clear();
    for (std::size_t i = 0; i < n; ++i)
      if (flags[i] != 0) expected.push_back(v[i]);
    ASSERT_EQ(count.host()[0], expected.size()) << n;
    ASSERT_EQ(first_of(flagged, expected.size()), expected) << n;
  }
}

TEST(Cub, Unique) {
  for (std::size_t n : sizes())
    for (pattern p : {patterns[1], patterns[2], patterns[3]}) {
      auto const v = values_of<unsigned>(p, n);
      device_array<unsigned> a(v), out(n), count(std::size_t{1});
      two_phases([&](void* t, std::size_t& s) {
        return cub::DeviceSelect::Unique(t, s, a.data, out.data, count.data, int(n));
      });
      runs const expected(v);
      ASSERT_EQ(count.host()[0], expected.keys.size()) << n << " " << p.name;
      ASSERT_EQ(first_of(out, expected.keys.size()), expected.keys) << n << " " << p.name;
    }
}

}  // namespace cub_test
