#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "shunt/experts.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_experts.hpp"
#include "support/random.hpp"

namespace shunt::test {

/// Segment lengths at which tiles and blocks begin and end, and some in no order at all.
struct named_segments {
  char const* name;
  std::vector<index_t> lengths;
};
inline std::vector<named_segments> segment_battery() {
  return {{"no_experts_rows", {0, 0, 0}},
          {"one", {1}},
          {"tiles", {0, 1, 2, 5, 6, 7, 11, 12, 13, 15, 16, 17}},
          {"blocks", {63, 64, 65, 0, 95, 96, 97}},
          {"one_hot", {1, 401, 0, 2}},
          {"deep", {0, 255, 256, 257}}};
}
inline std::vector<index_t> offsets_of(std::vector<index_t> const& lengths) {
  std::vector<index_t> offset{0};
  for (index_t n : lengths) offset.push_back(offset.back() + n);
  return offset;
}

/// Numbers of one grouped product, each buffer at a guard page.
template <class T> struct product_case {
  int E, N, K, R;
  guarded<index_t> offset;
  std::vector<int> expert;
  guarded<T> a, w, dc;
  segments<> rows;

  product_case(std::vector<index_t> const& lengths, int N_, int K_, std::uint64_t seed = 1,
               int spare_rows = 0)
      : E(static_cast<int>(lengths.size())),
        N(N_),
        K(K_),
        R(offsets_of(lengths).back() + spare_rows),
        offset(offsets_of(lengths)),
        expert(expert_of_row(offsets_of(lengths), R)),
        a(normal_values<T>(count(R, K), seed)),
        w(normal_values<T>(count(E * N, K), seed + 1, 0.3)),
        dc(normal_values<T>(count(R, N), seed + 2)) {
    rows = {view<index_t const, 1>(offset.data(), {{E + 1}})};
  }
  static std::size_t count(int a, int b) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
  }
  guarded<float> like_c() const { return guarded<float>(count(R, N)); }
};

/// Slots that name a token for each row, or none for some; x.a becomes what a product gathers through them.
template <class T>
guarded<index_t> rows_from(guarded<T> const& tokens, int count, product_case<T>& x) {
  guarded<index_t> slot(static_cast<std::size_t>(x.R));
  for (int r = 0; r < x.R; ++r) {
    index_t const s = r % 11 == 5 ? -1 : static_cast<index_t>(r * 7 % count);
    slot[static_cast<std::size_t>(r)] = s;
    for (int k = 0; k < x.K; ++k) {
      x.a.as(x.R, x.K)(r, k) = s < 0 ? T{} : tokens.as(count, x.K)(s, k);
    }
  }
  return slot;
}

}  // namespace shunt::test
