// CUB's device radix sort against std::stable_sort: keys and pairs, both directions, part of the
// bits, 4 bytes.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <numeric>

#include "algorithms.hpp"

namespace cub_sort_test {

void sort_keys(std::vector<unsigned> const& v, bool descending) {
  device_array<unsigned> in(v), out(v.size());
  two_phases([&](void* t, std::size_t& s) {
    return descending
               ? cub::DeviceRadixSort::SortKeysDescending(t, s, in.data, out.data, int(v.size()))
               : cub::DeviceRadixSort::SortKeys(t, s, in.data, out.data, int(v.size()));
  });
  auto expected = v;
  descending ? std::sort(expected.rbegin(), expected.rend())
             : std::sort(expected.begin(), expected.end());
  ASSERT_EQ(out.host(), expected);
  ASSERT_EQ(in.host(), v);
}

TEST(CubSort, KeysOfAllSizes) {
  for (std::size_t n : small_sizes) sort_keys(values_of<unsigned>(patterns[0], n), n % 2 == 1);
  for (std::size_t n : tile_sizes) sort_keys(values_of<unsigned>(patterns[0], n), n % 2 == 1);
}

TEST(CubSort, KeysOfAllPatterns) {
  for (pattern p : patterns)
    for (bool descending : {false, true}) {
      SCOPED_TRACE(p.name);
      sort_keys(values_of<unsigned>(p, 9001), descending);
    }
}

TEST(CubSort, PairsAreStable) {
  for (std::size_t n : {1, 33, 1000, 4865, 20001})
    for (pattern p : {patterns[0], patterns[1], patterns[2]}) {
      auto const keys = values_of<unsigned>(p, n);
      std::vector<unsigned> index(n);
      std::iota(index.begin(), index.end(), 0u);
      device_array<unsigned> k(keys), k_out(n), v(index), v_out(n);
      two_phases([&](void* t, std::size_t& s) {
        return cub::DeviceRadixSort::SortPairs(t, s, k.data, k_out.data, v.data, v_out.data,
                                               int(n));
      });
      std::stable_sort(index.begin(), index.end(),
                       [&](unsigned x, unsigned y) { return keys[x] < keys[y]; });
      ASSERT_EQ(v_out.host(), index) << n << " " << p.name;
    }
}

TEST(CubSort, SomeBitsInADoubleBuffer) {
  std::size_t const n = 5000;
  auto const keys = values_of<unsigned>(patterns[0], n);
  std::vector<unsigned> index(n);
  std::iota(index.begin(), index.end(), 0u);
  device_array<unsigned> k(keys), k_other(n), v(index), v_other(n);
  cub::DoubleBuffer<unsigned> k_both(k.data, k_other.data), v_both(v.data, v_other.data);
  two_phases([&](void* t, std::size_t& s) {
    return cub::DeviceRadixSort::SortPairs(t, s, k_both, v_both, int(n), 4, 15);
  });
  auto const part = [&](unsigned i) { return keys[i] >> 4 & 0x7ff; };
  std::stable_sort(index.begin(), index.end(),
                   [&](unsigned x, unsigned y) { return part(x) < part(y); });
  std::vector<unsigned> got(n);
  cudaMemcpy(got.data(), v_both.Current(), n * 4, cudaMemcpyDeviceToHost);
  ASSERT_EQ(got, index);
}

}  // namespace cub_sort_test
