// CUB's device radix sort of 8-byte keys: signed, unsigned, double.
#include <algorithm>
#include <cmath>
#include <cub/device/device_radix_sort.cuh>

#include "algorithms.hpp"

namespace cub_sort_wide_test {

template <class T> void sort_keys(std::vector<T> const& v) {
  device_array<T> in(v), out(v.size());
  two_phases([&](void* t, std::size_t& s) {
    return cub::DeviceRadixSort::SortKeys(t, s, in.data, out.data, int(v.size()));
  });
  auto expected = v;
  std::sort(expected.begin(), expected.end());
  ASSERT_EQ(out.host(), expected);
}

template <class T> struct CubWideSort : testing::Test {};
using wide_types = testing::Types<std::int64_t, std::uint64_t, double>;
TYPED_TEST_SUITE(CubWideSort, wide_types);

TYPED_TEST(CubWideSort, Sizes) {
  for (std::size_t n : small_sizes) sort_keys(values_of<TypeParam>(patterns[0], n));
  for (std::size_t n : {2047, 2048, 2049, 5000}) sort_keys(values_of<TypeParam>(patterns[0], n));
}

TYPED_TEST(CubWideSort, Patterns) {
  for (pattern p : patterns) {
    SCOPED_TRACE(p.name);
    sort_keys(values_of<TypeParam>(p, 6001));
  }
}

TEST(CubWideSort, InfinitiesAndZeros) {
  double const inf = std::numeric_limits<double>::infinity();
  sort_keys(std::vector<double>{1, -inf, 0.0, inf, -0.0, -1, 1e-320, -1e-320, inf, -inf});
}

}  // namespace cub_sort_wide_test
