#include "peers/feed_forward.hpp"

#include <cmath>

#include "support/inputs.hpp"

namespace bench::peers {

template <class T>
problem<T>::problem(shunt::shape const& is, int on_threads) : s(is), threads(on_threads) {
  up = long_noise<T>(E() * 2 * I() * H(), 2 / std::sqrt(double(s.hidden)), 1);
  down = long_noise<T>(E() * H() * I(), 2 / std::sqrt(double(s.intermediate)), 2);
  x = noise<T>(R() * H(), 1, 3);
  set_tokens(s.tokens);
}

template <class T> void problem<T>::set_tokens(index_t tokens) {
  s.tokens = tokens;
  offset.clear();
  // Small batches go through other experts at each call, so that weights come from memory. A single expert
  // is called until some milliseconds are over.
  std::uint64_t const batches = E() == 1 ? 100 : tokens <= 8 ? 4 : 1;
  for (std::uint64_t batch = 1; batch <= batches; ++batch) {
    auto& ends = offset.emplace_back(E() + 1);
    for (index_t e : chosen_experts(s, skew::uniform, batch)) ++ends[std::size_t(e) + 1];
    for (std::size_t e = 0; e < E(); ++e) ends[e + 1] += ends[e];
  }
}

template struct problem<float>;
template struct problem<bf16>;

}  // namespace bench::peers
