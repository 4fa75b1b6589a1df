#pragma once
#include <algorithm>
#include <vector>

#include "shunt/across/placement.hpp"
#include "support/random.hpp"

namespace shunt::test {

/// A placement with its memory.
struct placed {
  std::vector<index_t> start, expert;
  index_t experts = 0;

  [[nodiscard]] expert_placement view_of() const {
    return {view<index_t const, 1>(start.data(), start.size()),
            view<index_t const, 1>(expert.data(), expert.size()), experts};
  }
  /// The global experts of a rank, in the order of its weights.
  [[nodiscard]] std::vector<index_t> of(int rank) const {
    auto const r = static_cast<std::size_t>(rank);
    return {expert.begin() + start[r], expert.begin() + start[r + 1]};
  }
  [[nodiscard]] int ranks() const { return static_cast<int>(start.size()) - 1; }
};

inline placed placed_evenly(int ranks, int experts) {
  placed p;
  p.start.resize(static_cast<std::size_t>(ranks) + 1);
  p.expert.resize(static_cast<std::size_t>(experts));
  p.experts = experts;
  static_cast<void>(place_evenly(view<index_t, 1>(p.start), view<index_t, 1>(p.expert)));
  return p;
}
/// Each expert on a random rank, and `copies` more places somewhere else.
inline placed placed_at_random(int ranks, int experts, int copies, std::uint64_t seed) {
  rng d(seed);
  std::vector<std::vector<index_t>> on(static_cast<std::size_t>(ranks));
  for (index_t e = 0; e < experts; ++e) on[static_cast<std::size_t>(d.below(ranks))].push_back(e);
  for (int c = 0; c < copies; ++c) {
    auto& to = on[static_cast<std::size_t>(d.below(ranks))];
    auto const e = static_cast<index_t>(d.below(experts));
    if (std::find(to.begin(), to.end(), e) == to.end()) to.push_back(e);
  }
  placed p;
  p.experts = experts;
  p.start = {0};
  for (auto& list : on) {
    std::sort(list.begin(), list.end());
    p.expert.insert(p.expert.end(), list.begin(), list.end());
    p.start.push_back(static_cast<index_t>(p.expert.size()));
  }
  return p;
}

/// Tokens of each rank: alike, or as uneven as can be, with empty ranks.
inline std::vector<int> tokens_by_rank(int ranks, int tokens, bool even, std::uint64_t seed) {
  std::vector<int> count(static_cast<std::size_t>(ranks), 0);
  rng d(seed);
  for (int t = 0; t < tokens; ++t) {
    int const r = even ? t % ranks : static_cast<int>(std::min(d.below(ranks), d.below(ranks)));
    ++count[static_cast<std::size_t>(r)];
  }
  return count;
}

}  // namespace shunt::test
