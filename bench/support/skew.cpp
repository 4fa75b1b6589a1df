#include "support/skew.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bench {
namespace {

// splitmix64: reproducible everywhere, good enough for loads.
struct generator {
  std::uint64_t state;
  std::uint64_t operator()() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double unit() { return (double((*this)() >> 11) + 0.5) * 0x1p-53; }  // in (0, 1)
};

double log_weight(skew which, shunt::shape const& s, shunt::index_t expert) {
  switch (which) {
    case skew::zipf: return -std::log(1.0 + expert);
    case skew::one_hot: return expert == 0 ? 100 : 0;
    case skew::half_empty: return expert % 2 == 1 && (s.experts + 1) / 2 >= s.top_k ? -100 : 0;
    case skew::uniform: break;
  }
  return 0;
}

}  // namespace

char const* to_string(skew which) {
  switch (which) {
    case skew::zipf: return "zipf";
    case skew::one_hot: return "one_hot";
    case skew::half_empty: return "half_empty";
    case skew::uniform: break;
  }
  return "uniform";
}

std::vector<float> logits(shunt::shape const& s, skew which, std::uint64_t seed) {
  generator draw{seed};
  std::vector<float> z;
  z.reserve(std::size_t(s.tokens) * std::size_t(s.experts));
  for (shunt::index_t t = 0; t < s.tokens; ++t) {
    for (shunt::index_t e = 0; e < s.experts; ++e) {
      z.push_back(float(log_weight(which, s, e) - std::log(-std::log(draw.unit()))));
    }
  }
  return z;
}

std::vector<shunt::index_t> expert_ids(shunt::shape const& s, skew which, std::uint64_t seed) {
  std::vector<float> const z = logits(s, which, seed);
  std::vector<shunt::index_t> ids, order(std::size_t(s.experts));
  for (shunt::index_t t = 0; t < s.tokens; ++t) {
    float const* const row = z.data() + std::size_t(t) * std::size_t(s.experts);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + s.top_k, order.end(),
                      [&](shunt::index_t a, shunt::index_t b) { return row[a] > row[b]; });
    ids.insert(ids.end(), order.begin(), order.begin() + s.top_k);
  }
  return ids;
}

std::vector<float> noise(std::size_t count, float range, std::uint64_t seed) {
  generator draw{seed};
  std::vector<float> values(count);
  for (float& v : values) v = range * float(2 * draw.unit() - 1);
  return values;
}

}  // namespace bench
