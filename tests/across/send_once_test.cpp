// A token that goes once to each rank: the bits of one process, and the bytes of the formula.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/across_layer.hpp"
#include "support/expect_error.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_send_once_test {

on_host const one{.threads = 1};

/// The layer on ranks of uneven tokens, in training and then without.
template <class T>
void expect_same(layer_case c, int ranks, memory_mode memory, int copies, std::uint64_t seed) {
  SCOPED_TRACE(testing::Message() << c.name << " on " << ranks);
  if (c.taken > 0) return;  // experts choose: refused
  c.f.tokens = c.f.balance > 0 ? 32 * ranks : 23;
  layer_setup<T> const s(c);
  auto options = s.options();
  options.memory = memory;
  layer_run<T> whole(one, s, options);
  placed const p = placed_at_random(ranks, s.is.f.local(), copies, seed);
  std::vector<int> const tokens = c.f.balance > 0 ? std::vector<int>(std::size_t(ranks), 32)
                                                  : tokens_by_rank(ranks, c.f.tokens, false, seed);
  on_threads(ranks, [&](rank_threads& x) {
    rank_of_layer<T> part(s, p, tokens, x.rank());
    part.send_once = true;
    part.run(x, one, options);
    EXPECT_EQ(part.difference(whole), "") << "rank " << x.rank();
    guarded<T> const trained = part.y;
    std::fill(part.y.begin(), part.y.end(), T{});
    part.run(x, one, options, false);
    EXPECT_TRUE(part.forward.ok()) << part.forward.message();
    EXPECT_TRUE(same_bits(part.y, trained)) << "rank " << x.rank();
  });
}

TEST(Across, TokensSentOnceHaveTheBitsOfOneProcess) {
  for (layer_case const& c : layer_families()) {
    expect_same<float>(c, 3, memory_mode::save, 0, 3);
    if (!small_scale()) expect_same<float>(c, 5, memory_mode::recompute, 3, 55);
  }
  expect_same<fp16>(family("deepseek_v3"), 4, memory_mode::save, 2, 9);
}

TEST(Across, BytesOfTokensSentOnceAreThoseOfTheFormula) {
  constexpr int ranks = 3;
  layer_case c = family("deepseek_v3");
  c.f.tokens = 30;
  layer_setup<float> const s(c);
  placed const p = placed_evenly(ranks, s.is.f.local());
  std::vector<int> const tokens{12, 3, 15};
  shared_values<offset_t> sent(3), wanted(3);
  on_threads(ranks, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, tokens, x.rank());
    part.send_once = true;
    part.run(x, one, s.options());
    ASSERT_TRUE(part.backward.ok()) << part.backward.message();
    auto const local = p.of(x.rank());
    offset_t away = 0;
    std::set<std::pair<int, int>> once;  // token, rank
    int const K = s.is.f.top_k;
    for (int i = 0; i < tokens[std::size_t(x.rank())] * K; ++i) {
      index_t const id = part.saved.layer.choice.expert.data()[i];
      if (std::find(local.begin(), local.end(), id) != local.end()) continue;
      ++away;
      for (int r = 0; r < ranks; ++r) {
        if (id >= p.start[std::size_t(r)] && id < p.start[std::size_t(r) + 1])
          once.insert({i / K, r});
      }
    }
    offset_t const row = s.is.f.hidden * offset_t{sizeof(float)}, backward = s.is.f.hidden * 8 + 8;
    auto const tokens_away = static_cast<offset_t>(once.size());
    EXPECT_LT(tokens_away, away);
    auto const r = std::size_t(x.rank());
    sent[r] = part.traffic.bytes_sent;
    wanted[r] = tokens_away * row + away * (4 + row + backward);
  });
  EXPECT_EQ(sent[0] + sent[1] + sent[2], wanted[0] + wanted[1] + wanted[2]);
}

TEST(Across, OneRankThatSendsOnceIsRefusedOnAll) {
  layer_case c = family("olmoe");
  layer_setup<float> const s(c);
  placed const p = placed_evenly(2, s.is.f.local());
  std::vector<int> const tokens{c.f.tokens / 2, c.f.tokens - c.f.tokens / 2};
  on_threads(2, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, tokens, x.rank());
    part.send_once = x.rank() == 1;
    part.run(x, one, s.options(), false);
    expect_error(
        part.forward, error::bad_argument,
        "moe_layer_across.among.send_once (1: given): rank 1 has 1 and rank 0 0; all ranks "
        "must have the same");
  });
}

}  // namespace across_send_once_test
}  // namespace shunt::test
