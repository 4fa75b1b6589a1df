#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "shunt/core/shape.hpp"
#include "support/random.hpp"

namespace shunt::test {

struct named_shape {
  char const* name;
  shape is;  // {T, H, I, E, K}
};

/// The shapes that every stage meets: empty, single, all experts at once, nothing a multiple of
/// anything, and the edges of tiles and blocks.
inline constexpr named_shape battery[] = {
    {"no_tokens", {0, 64, 128, 8, 2}},
    {"one_token", {1, 64, 96, 8, 2}},
    {"one_expert", {33, 64, 128, 1, 1}},
    {"all_experts", {19, 40, 56, 5, 5}},
    {"ones", {1, 1, 1, 1, 1}},
    {"odd", {37, 29, 43, 7, 3}},
    {"narrow", {65, 3, 5, 6, 2}},
    {"tile_minus_1", {63, 31, 95, 4, 2}},
    {"tile", {64, 32, 96, 4, 2}},
    {"tile_plus_1", {65, 33, 97, 4, 2}},
    {"many_experts", {48, 24, 16, 129, 4}},
    {"wide", {9, 517, 261, 3, 2}},
};

/// Expert counts at which published implementations broke.
inline constexpr index_t expert_counts[] = {1,   5,   8,   60,  127, 128,  129,  160,
                                            255, 256, 384, 512, 896, 1023, 1024, 1025};

/// How the load falls on the experts.
enum class skew { uniform, zipf, one_hot, half_empty };
inline constexpr skew skews[] = {skew::uniform, skew::zipf, skew::one_hot, skew::half_empty};

[[nodiscard]] inline char const* to_string(skew s) noexcept {
  switch (s) {
    case skew::uniform: return "uniform";
    case skew::zipf: return "zipf";
    case skew::one_hot: return "one_hot";
    case skew::half_empty: return "half_empty";
  }
  return "?";
}

/// [T,K] expert ids, distinct within a token, drawn without replacement by the experts' weights.
[[nodiscard]] inline std::vector<index_t> drawn_experts(shape const& s,
                                                        std::vector<double> const& weight,
                                                        std::uint64_t seed) {
  rng d(seed);
  std::vector<index_t> ids;
  for (index_t t = 0; t < s.tokens; ++t) {
    std::vector<double> left = weight;
    for (index_t k = 0; k < s.top_k; ++k) {
      double total = 0.0;
      for (double w : left) total += w;
      double at = d.uniform() * total;
      std::size_t chosen = left.size();
      for (std::size_t e = 0; e < left.size(); ++e) {
        if (left[e] <= 0.0) continue;
        chosen = e;
        if ((at -= left[e]) < 0.0) break;
      }
      left[chosen] = 0.0;
      ids.push_back(static_cast<index_t>(chosen));
    }
  }
  return ids;
}

/// The same by a skew (so one_hot gives each token the hot expert once).
[[nodiscard]] inline std::vector<index_t> chosen_experts(shape const& s, skew how,
                                                         std::uint64_t seed) {
  std::vector<double> weight(static_cast<std::size_t>(s.experts), 1.0);
  for (std::size_t e = 0; e < weight.size(); ++e) {
    if (how == skew::zipf) weight[e] = 1.0 / static_cast<double>(e + 1);
    if (how == skew::one_hot) weight[e] = e == weight.size() / 2 ? 1e9 : 1.0;
    if (how == skew::half_empty) weight[e] = e % 2 == 0 ? 1.0 : 1e-9;
  }
  return drawn_experts(s, weight, seed);
}

}  // namespace shunt::test
