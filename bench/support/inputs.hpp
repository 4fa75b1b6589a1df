#pragma once
// What benchmarks are fed: the tests' skews and rng, and logits that lead to such loads.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shunt/core/numeric.hpp>
#include <shunt/core/shape.hpp>

#include "support/pages.hpp"
#include "support/shapes.hpp"

namespace bench {

using shunt::test::chosen_experts;  ///< (shape, skew, seed): [T,K] expert ids, distinct in a token
using shunt::test::drawn_experts;   ///< the same by weights of the experts
using shunt::test::rng;
using shunt::test::skew;
using shunt::test::skews;
using shunt::test::to_string;

/// `count` values of type T, even in (-range, range).
template <class T = float>
[[nodiscard]] std::vector<T> noise(std::size_t count, double range, std::uint64_t seed) {
  rng draw(seed);
  std::vector<T> values(count);
  for (T& v : values) v = shunt::from_float<T>(static_cast<float>(draw.uniform(-range, range)));
  return values;
}

/// The same of a few values, repeated with shifts: cheap, for gigabytes of it.
template <class T = float>
[[nodiscard]] paged<T> long_noise(std::size_t count, double range, std::uint64_t seed) {
  auto const some = noise<T>(std::min<std::size_t>(count, 65521), range, seed);
  paged<T> all(count);
  for (std::size_t at = 0, turn = 0; at < count; ++turn) {
    std::size_t const from = turn * 7919 % some.size();
    std::size_t const piece = std::min(some.size() - from, count - at);
    std::copy_n(some.data() + from, piece, all.data() + at);
    at += piece;
  }
  return all;
}

/// Logits [T,E] whose K largest are drawn without replacement with the skew's weights (Gumbel's
/// trick): what a router would be given.
[[nodiscard]] inline std::vector<float> logits(shunt::shape const& s, skew how,
                                               std::uint64_t seed) {
  rng draw(seed);
  std::vector<float> z;
  z.reserve(static_cast<std::size_t>(s.tokens) * static_cast<std::size_t>(s.experts));
  for (shunt::index_t t = 0; t < s.tokens; ++t) {
    for (shunt::index_t e = 0; e < s.experts; ++e) {
      double log_weight = 0;
      if (how == skew::zipf) log_weight = -std::log(1.0 + e);
      if (how == skew::one_hot && e == s.experts / 2) log_weight = 30;
      if (how == skew::half_empty && e % 2 == 1) log_weight = -30;
      z.push_back(static_cast<float>(log_weight - std::log(-std::log(1 - draw.uniform()))));
    }
  }
  return z;
}

}  // namespace bench
