#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lm {

/// How many slots each expert of each layer got: [layer][expert].
using expert_load = std::vector<std::vector<std::int64_t>>;

inline void add_load(expert_load& to, expert_load const& more) {
  if (to.empty()) to.resize(more.size());
  for (std::size_t l = 0; l < more.size(); ++l) {
    to[l].resize(more[l].size());
    for (std::size_t e = 0; e < more[l].size(); ++e) to[l][e] += more[l][e];
  }
}

/// The load of one layer as shares that sum to one (all zero where there was no load).
[[nodiscard]] inline std::vector<double> shares_of(std::vector<std::int64_t> const& counts) {
  double all = 0;
  for (std::int64_t c : counts) all += double(c);
  std::vector<double> shares;
  for (std::int64_t c : counts) shares.push_back(all > 0 ? double(c) / all : 0);
  return shares;
}

[[nodiscard]] inline std::vector<std::vector<double>> shares_of(expert_load const& load) {
  std::vector<std::vector<double>> shares;
  for (auto const& layer : load) shares.push_back(shares_of(layer));
  return shares;
}

}  // namespace lm
