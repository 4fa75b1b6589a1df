// CUB's segmented algorithms against std:: on each segment: none, one element, a warp's, a block's
// and many tiles'.
#include <algorithm>
#include <cub/device/device_segmented_radix_sort.cuh>
#include <cub/device/device_segmented_reduce.cuh>
#include <cub/device/device_segmented_sort.cuh>
#include <numeric>

#include "algorithms.hpp"

namespace cub_segmented_test {

struct segments {
  std::vector<int> offsets{0};
  explicit segments(std::vector<int> const& lengths) {
    for (int n : lengths) offsets.push_back(offsets.back() + n);
  }
  [[nodiscard]] int count() const { return int(offsets.size()) - 1; }
  [[nodiscard]] int items() const { return offsets.back(); }
};

std::vector<segments> some_segments() {
  std::mt19937 rng(5);
  std::vector<int> many(60);
  for (int& n : many) n = int(rng() % 50);
  return {segments({}),
          segments({0}),
          segments({1}),
          segments({0, 0, 5, 0}),
          segments({1, 31, 32, 33, 0, 255, 256, 257, 3, 1000}),
          segments({9000, 1, 0, 17}),
          segments(many)};
}

/// The indices 0… sorted by key within each segment.
std::vector<unsigned> sorted_index(std::vector<unsigned> const& keys, segments const& s) {
  std::vector<unsigned> index(keys.size());
  std::iota(index.begin(), index.end(), 0u);
  for (int i = 0; i < s.count(); ++i)
    std::stable_sort(index.begin() + s.offsets[i], index.begin() + s.offsets[i + 1],
                     [&](unsigned x, unsigned y) { return keys[x] < keys[y]; });
  return index;
}

TEST(CubSegmented, RadixSortOfKeys) {
  for (segments const& s : some_segments())
    for (pattern p : {patterns[0], patterns[1]}) {
      auto const keys = values_of<unsigned>(p, std::size_t(s.items()));
      device_array<unsigned> in(keys), out(keys.size());
      device_array<int> offsets(s.offsets);
      two_phases([&](void* t, std::size_t& bytes) {
        return cub::DeviceSegmentedRadixSort::SortKeys(t, bytes, in.data, out.data, s.items(),
                                                       s.count(), offsets.data, offsets.data + 1);
      });
      std::vector<unsigned> expected;
      for (unsigned i : sorted_index(keys, s)) expected.push_back(keys[i]);
      ASSERT_EQ(out.host(), expected) << s.count() << " segments, " << p.name;
    }
}

TEST(CubSegmented, StableSortOfPairs) {
  for (segments const& s : some_segments())
    for (pattern p : {patterns[0], patterns[1]}) {
      auto const keys = values_of<unsigned>(p, std::size_t(s.items()));
      std::vector<unsigned> index(keys.size());
      std::iota(index.begin(), index.end(), 0u);
      device_array<unsigned> k(keys), k_out(keys.size()), v(index), v_out(keys.size());
      device_array<int> offsets(s.offsets);
      two_phases([&](void* t, std::size_t& bytes) {
        return cub::DeviceSegmentedSort::StableSortPairs(t, bytes, k.data, k_out.data, v.data,
                                                         v_out.data, s.items(), s.count(),
                                                         offsets.data, offsets.data + 1);
      });
      ASSERT_EQ(v_out.host(), sorted_index(keys, s)) << s.count() << " segments, " << p.name;
    }
}

TEST(CubSegmented, Sum) {
  for (segments const& s : some_segments()) {
    if (s.count() == 0) continue;
    auto const v = values_of<unsigned>(patterns[0], std::size_t(s.items()));
    device_array<unsigned> in(v), out(std::size_t(s.count()));
    device_array<int> offsets(s.offsets);
    two_phases([&](void* t, std::size_t& bytes) {
      return cub::DeviceSegmentedReduce::Sum(t, bytes, in.data, out.data, s.count(), offsets.data,
                                             offsets.data + 1);
    });
    std::vector<unsigned> expected;
    for (int i = 0; i < s.count(); ++i)
      expected.push_back(
          std::accumulate(v.begin() + s.offsets[i], v.begin() + s.offsets[i + 1], 0u));
    ASSERT_EQ(out.host(), expected) << s.count() << " segments";
  }
}

}  // namespace cub_segmented_test
