// Thrust on device_vector against std::, over sizes around its tiles.
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/transform_reduce.h>
#include <thrust/unique.h>

#include <algorithm>
#include <numeric>

#include "algorithms.hpp"

namespace thrust_test {

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> out(std::begin(small_sizes), std::end(small_sizes));
  for (std::size_t n : {2816, 2817, 20001}) out.push_back(n);
  return out;
}

template <class T> std::vector<T> host(thrust::device_vector<T> const& d) {
  std::vector<T> out(d.size());
  thrust::copy(d.begin(), d.end(), out.begin());
  return out;
}

thrust::device_vector<unsigned> device(std::vector<unsigned> const& v) {
  return thrust::device_vector<unsigned>(v.begin(), v.end());
}

TEST(Thrust, Scans) {
  for (std::size_t n : sizes()) {
    auto const v = values_of<unsigned>(patterns[0], n);
    auto const d = device(v);
    thrust::device_vector<unsigned> inclusive(n), exclusive(n);
    thrust::inclusive_scan(d.begin(), d.end(), inclusive.begin());
    thrust::exclusive_scan(d.begin(), d.end(), exclusive.begin(), 3u);
    std::vector<unsigned> a(n), b(n);
    std::inclusive_scan(v.begin(), v.end(), a.begin());
    std::exclusive_scan(v.begin(), v.end(), b.begin(), 3u);
    ASSERT_EQ(host(inclusive), a) << n;
    ASSERT_EQ(host(exclusive), b) << n;
  }
}

struct square {
  __host__ __device__ unsigned operator()(unsigned x) const { return x * x; }
};

TEST(Thrust, TransformReduce) {
  for (std::size_t n : sizes()) {
    auto const v = values_of<unsigned>(patterns[0], n);
    auto const d = device(v);
    unsigned const got = thrust::transform_reduce(d.begin(), d.end(), square{}, 5u, add_up{});
    ASSERT_EQ(got, std::transform_reduce(v.begin(), v.end(), 5u, add_up{}, square{})) << n;
  }
}

TEST(Thrust, ReduceByKey) {
  for (std::size_t n : sizes())
    for (pattern p : {patterns[1], patterns[2], patterns[3]}) {
      auto const v = values_of<unsigned>(p, n);
      auto const weights = values_of<unsigned>(patterns[0], n);
      auto const d = device(v), w = device(weights);
      thrust::device_vector<unsigned> keys(n), sums(n);
      auto const ends =
          thrust::reduce_by_key(d.begin(), d.end(), w.begin(), keys.begin(), sums.begin());
      std::vector<unsigned> some, totals;
      for (std::size_t i = 0; i < n; ++i) {
        if (i == 0 || v[i] != v[i - 1]) some.push_back(v[i]), totals.push_back(0);
        totals.back() += weights[i];
      }
      ASSERT_EQ(std::size_t(ends.first - keys.begin()), some.size()) << n << " " << p.name;
      keys.resize(some.size());
      sums.resize(some.size());
      ASSERT_EQ(host(keys), some) << n << " " << p.name;
      ASSERT_EQ(host(sums), totals) << n << " " << p.name;
    }
}

struct is_third {
  __host__ __device__ bool operator()(unsigned x) const { return x % 3 == 0; }
};

TEST(Thrust, UniqueAndCopyIf) {
  for (std::size_t n : sizes())
    for (pattern p : {patterns[0], patterns[1], patterns[2]}) {
      auto v = values_of<unsigned>(p, n);
      auto d = device(v);
      thrust::device_vector<unsigned> picked(n);
      auto const end = thrust::copy_if(d.begin(), d.end(), picked.begin(), is_third{});
      picked.resize(std::size_t(end - picked.begin()));
      std::vector<unsigned> expected;
      std::copy_if(v.begin(), v.end(), std::back_inserter(expected), is_third{});
      ASSERT_EQ(host(picked), expected) << n << " " << p.name;
      d.erase(thrust::unique(d.begin(), d.end()), d.end());
      v.erase(std::unique(v.begin(), v.end()), v.end());
      ASSERT_EQ(host(d), v) << n << " " << p.name;
    }
}

}  // namespace thrust_test
