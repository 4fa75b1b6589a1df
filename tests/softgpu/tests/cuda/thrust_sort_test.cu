// Thrust's sorts on device_vector against std::: by radix for numbers, by merging for anything else.
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/sort.h>

#include <algorithm>
#include <numeric>

#include "algorithms.hpp"

namespace thrust_sort_test {

template <class T> std::vector<T> host(thrust::device_vector<T> const& d) {
  std::vector<T> out(d.size());
  thrust::copy(d.begin(), d.end(), out.begin());
  return out;
}

TEST(Thrust, Sort) {
  for (std::size_t n : {0, 1, 2, 33, 256, 257, 6001})
    for (pattern p : patterns) {
      auto v = values_of<int>(p, n);
      thrust::device_vector<int> d(v.begin(), v.end());
      thrust::sort(d.begin(), d.end());
      std::sort(v.begin(), v.end());
      ASSERT_EQ(host(d), v) << n << " " << p.name;
    }
}

struct by_last_digit {
  __host__ __device__ bool operator()(int a, int b) const { return a % 10 < b % 10; }
};

TEST(Thrust, StableSortByKeyWithAnOrderOfOnesOwn) {
  for (std::size_t n : {1, 33, 257, 3000})
    for (pattern p : {patterns[1], patterns[3], patterns[4]}) {
      auto const keys = values_of<int>(p, n);
      std::vector<int> index(n);
      std::iota(index.begin(), index.end(), 0);
      thrust::device_vector<int> k(keys.begin(), keys.end()), v(index.begin(), index.end());
      thrust::stable_sort_by_key(k.begin(), k.end(), v.begin(), by_last_digit{});
      std::stable_sort(index.begin(), index.end(),
                       [&](int x, int y) { return by_last_digit{}(keys[x], keys[y]); });
      ASSERT_EQ(host(v), index) << n << " " << p.name;
    }
}

}  // namespace thrust_sort_test
