#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corpus.hpp"
#include "shunt/core/random.hpp"
#include "shunt/core/shape.hpp"

namespace lm {

/// Sequences of bytes, one after another, each with the byte that follows it at its end.
struct batch {
  std::vector<shunt::index_t> tokens;  ///< [sequences, sequence + 1]
  std::size_t sequences = 0;

  void add(std::vector<std::uint8_t> const& text, std::size_t start, std::size_t sequence) {
    auto const from = text.begin() + static_cast<std::ptrdiff_t>(start);
    tokens.insert(tokens.end(), from, from + static_cast<std::ptrdiff_t>(sequence) + 1);
    ++sequences;
  }
  void clear() noexcept {
    tokens.clear();
    sequences = 0;
  }
};

/// A number in [0, count) of 32 random bits.
[[nodiscard]] constexpr std::size_t pick(std::uint32_t word, std::size_t count) noexcept {
  return static_cast<std::size_t>((std::uint64_t{word} * count) >> 32);
}

/// The training batch of a step: windows at random places of domains taken in turn by chance, each
/// as often as it has bytes. It depends on (seed, step) alone: a resumed run, and another model,
/// meet the same bytes in the same order.
inline void training_batch(corpus const& text, std::uint64_t seed, std::int64_t step,
                           std::size_t sequences, std::size_t sequence, batch& to) {
  constexpr std::uint64_t stream = 0x62617463;  // a stream of this purpose's own
  std::size_t all = 0;
  for (domain const& d : text.domains) all += d.train.size();
  to.clear();
  for (std::size_t row = 0; row < sequences; ++row) {
    std::uint64_t const position = static_cast<std::uint64_t>(step) * sequences + row;
    shunt::random_words const rng = shunt::random_at(seed, position, stream);
    std::size_t at = pick(rng.word[0], all);
    auto from = text.domains.begin();
    for (; at >= from->train.size(); ++from) at -= from->train.size();
    to.add(from->train, pick(rng.word[1], from->train.size() - sequence), sequence);
  }
}

/// Where the held-out windows of a domain start: they do not overlap, there are at most `most`, and
/// they are spread over all of it.
[[nodiscard]] inline std::vector<std::size_t> held_out_windows(domain const& from,
                                                               std::size_t sequence,
                                                               std::size_t most) {
  std::size_t const all = (from.held_out.size() - 1) / sequence;
  std::size_t const count = std::min(all, most);
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < count; ++i) starts.push_back(i * all / count * sequence);
  return starts;
}

}  // namespace lm
