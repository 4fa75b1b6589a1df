#include "peers/feed_forward.hpp"

#include <algorithm>
#include <cmath>

#include "support/inputs.hpp"

namespace bench::peers {

template <class T>
problem<T>::problem(shunt::shape const& is, int on_threads) : s(is), threads(on_threads) {
  up = long_noise<T>(E() * 2 * I() * H(), 2 / std::sqrt(double(s.hidden)), 1);
  down = long_noise<T>(E() * H() * I(), 2 / std::sqrt(double(s.intermediate)), 2);
  // The rng of near seeds throw the same numbers a few throws later: tokens like that would be rows of
  // the weights, and their activations far above all others.
  tokens = noise<T>(std::size_t(s.tokens) * H(), 1, std::uint64_t{1} << 40);
  set_tokens(s.tokens);
}

template <class T> static batch<T> routed(problem<T> const& p, std::uint64_t seed) {
  batch<T> b;
  b.chosen = chosen_experts(p.s, skew::uniform, seed);
  b.offset.resize(p.E() + 1);
  for (index_t e : b.chosen) ++b.offset[std::size_t(e) + 1];
  for (std::size_t e = 0; e < p.E(); ++e) b.offset[e + 1] += b.offset[e];
  b.slot.resize(p.R());
  b.x.resize(p.R() * p.H());
  auto next = b.offset;
  for (std::size_t slot = 0; slot < p.R(); ++slot) {
    auto const row = std::size_t(next[std::size_t(b.chosen[slot])]++);
    b.slot[row] = index_t(slot);
    std::copy_n(p.tokens.data() + slot / std::size_t(p.s.top_k) * p.H(), p.H(),
                b.x.data() + row * p.H());
  }
  return b;
}

template <class T> void problem<T>::set_tokens(index_t count) {
  s.tokens = count;
  batches.clear();
  // Small batches go through other experts at each call, so that weights come from memory. A single expert
  // is called until some milliseconds are over.
  std::uint64_t const several = E() > 1 && count <= 8 ? 4 : 1;
  repeats = E() == 1 ? 100 : 1;
  for (std::uint64_t seed = 1; seed <= several; ++seed) batches.push_back(routed(*this, seed));
}

template struct problem<float>;
template struct problem<bf16>;

}  // namespace bench::peers
