// What is wrong on one rank of the layer: the same sentence on all, after one round, and nothing is written.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "support/across_layer.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_layer_errors_test {

constexpr int ranks = 3, tokens = 4;

/// What one rank passes to the layer.
struct arguments {
  view<float const, 2> x, d_y;
  view<float, 2> y, d_x;
  moe_weights<float> weights;
  layer_options<activation> options;
  expert_placement placement;
  std::size_t arena_bytes = 0;
  index_t most_rows = 0;
};

/// Runs forward (or backward) on three ranks, those of rank 1 changed; all must return this sentence.
void expect_sentence(error code, std::string sentence,
                     std::function<void(arguments&)> const& change, bool backward = false) {
  SCOPED_TRACE(sentence);
  layer_case c = family("gshard");  // biases none, a capacity, a balance loss
  c.f.tokens = ranks * tokens;
  layer_setup<float> const s(c);
  placed const p = placed_evenly(ranks, s.is.f.local());
  std::vector<int> const count(ranks, tokens);
  std::string said[ranks], needed;
  on_threads(ranks, [&](rank_threads& transport) {
    rank_of_layer<float> part(s, p, count, transport.rank());
    if (backward) part.run(transport, on_host{.threads = 1}, s.options());
    part.y.wipe();
    part.d_x.wipe();
    part.gate.wipe();
    part.up.wipe();
    part.counts.wipe();
    arguments a{part.x(),
                part.d_y(),
                part.y.as(tokens, s.is.f.width),
                part.d_x.as(tokens, s.is.f.width),
                part.weights(),
                part.options(s.options()),
                p.view_of()};
    across_report traffic;
    auto const among = [&] {
      return among_ranks<rank_threads>{.transport = transport,
                                       .placement = a.placement,
                                       .most_rows = a.most_rows,
                                       .report = &traffic};
    };
    on_host const on{.threads = 1};
    a.arena_bytes =
        backward
            ? moe_layer_across_backward_scratch_bytes(on, among(), tokens, a.weights, a.options)
            : moe_layer_across_scratch_bytes(on, among(), tokens, a.weights, a.options);
    if (transport.rank() == 1) {
      // Backward's size counts a d_x of another type, which it has no need of here: 4 · 19 floats.
      needed = std::to_string(a.arena_bytes - (backward ? 320 : 0));
      change(a);
    }
    guarded<std::byte> work(a.arena_bytes);
    moe_across_outputs<float> out;
    out.route.counts = part.counts.as(s.is.f.experts);
    status const done =
        backward
            ? moe_layer_across_backward(on, among(), a.x, a.weights, a.d_y, part.saved, a.d_x,
                                        part.gradients(), arena<>(work), a.options)
            : moe_layer_across(on, among(), a.x, a.weights, a.y, out, arena<>(work), a.options);
    EXPECT_EQ(done.code(), code) << done.message();
    said[transport.rank()] = done.message();
    EXPECT_EQ(traffic.rounds, 1);
    EXPECT_EQ(traffic.rows_sent, 0);
    auto const is_untouched = [](auto const& buffer) {
      using V = typename std::remove_cvref_t<decltype(buffer)>::value_type;
      V const was = untouched<V>();
      return std::all_of(buffer.begin(), buffer.end(),
                         [&](V const& v) { return std::memcmp(&v, &was, sizeof v) == 0; });
    };
    EXPECT_TRUE(is_untouched(part.y) && is_untouched(part.d_x) && is_untouched(part.gate) &&
                is_untouched(part.up) && is_untouched(part.counts));
  });
  if (auto const at = sentence.find("NEEDED"); at != std::string::npos) {
    sentence.replace(at, 6, needed);
  }
  for (std::string const& one : said) EXPECT_EQ(one, sentence);
}

TEST(Across, AWrongArgumentOfOneRankIsTheSameSentenceOnAll) {
  expect_sentence(error::null_pointer,
                  "rank 1: moe_layer_across.x: the pointer is null; it must point to 76 elements",
                  [](arguments& a) { a.x = view<float const, 2>(nullptr, {{tokens, 19}}); });
  expect_sentence(
      error::bad_argument,
      "moe_layer_across.options.top_k: rank 1 has 1 and rank 0 2; all ranks must have the "
      "same",
      [](arguments& a) { a.options.top_k = 1; });
  expect_sentence(error::bad_argument,
                  "rank 1: moe_layer_across.options: first_expert is 2 and zero_experts_here true; "
                  "they must be 0 and true: the placement says what lives where",
                  [](arguments& a) { a.options.first_expert = 2; });
  expect_sentence(error::unsupported,
                  "rank 1: moe_layer_across.options.drop is by_gate; across ranks it must be "
                  "by_position or by_choice: a rank does not see the gates of others",
                  [](arguments& a) { a.options.drop = drop_policy::by_gate; });
  expect_sentence(
      error::unsupported,
      "rank 1: moe_layer_across.options.tokens_per_expert is 3; across ranks it must be "
      "0: experts that choose would have to see the tokens of all ranks",
      [](arguments& a) { a.options.tokens_per_expert = 3; });
  expect_sentence(
      error::bad_shape,
      "rank 1: moe_layer_across.weights.up: extent 0 is 1; it must be 2 (places of this "
      "rank)",
      [](arguments& a) {
        a.weights.up = a.weights.up.slice(0, 1);
        a.weights.down = a.weights.down.slice(0, 1);
      });
}

TEST(Across, ASmallArenaIsTheSameSentenceOnAll) {
  expect_sentence(
      error::arena_too_small,
      "rank 1: moe_layer_across.work: the arena has 8000 bytes; it must have NEEDED (ask "
      "an arena that is measuring)",
      [](arguments& a) { a.arena_bytes = 8000; });
  expect_sentence(
      error::arena_too_small,
      "rank 1: moe_layer_across_backward.work: the arena has 64 bytes; it must have NEEDED "
      "(ask an arena that is measuring)",
      [](arguments& a) { a.arena_bytes = 64; }, true);
}

TEST(Across, AStalePlacementIsTheSameSentenceOnAll) {
  placed const old{.start = {0, 3, 5, 7}, .expert = {0, 1, 5, 2, 3, 4, 6}, .experts = 7};
  std::string const numbers = " rank 1 has " + std::to_string(placement_number(old.view_of())) +
                              " and rank 0 " +
                              std::to_string(placement_number(placed_evenly(3, 7).view_of()));
  for (bool const backward : {false, true}) {
    std::string const who = backward ? "moe_layer_across_backward" : "moe_layer_across";
    expect_sentence(
        error::bad_argument,
        who + ".placement (as one number):" + numbers + "; all ranks must have the same",
        [&](arguments& a) { a.placement = old.view_of(); }, backward);
  }
}

TEST(Across, TooManyRowsForARankAreRefusedByAll) {
  // most_rows of rank 1 alone: its arena is smaller, and the others learn why.
  layer_case c = family("mixtral");
  c.f.tokens = 12;
  layer_setup<float> const s(c);
  placed const p = placed_evenly(2, s.is.f.local());
  std::vector<int> const count{6, 6};
  std::string said[2];
  on_threads(2, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, count, x.rank());
    moe_weights<float> const w = part.weights();
    auto const o = part.options(s.options());
    among_ranks<rank_threads> const among{
        .transport = x, .placement = p.view_of(), .most_rows = x.rank() == 1 ? 2 : 0};
    on_host const on{.threads = 1};
    guarded<std::byte> work(moe_layer_across_scratch_bytes(on, among, 6, w, o));
    status const done =
        moe_layer_across(on, among, part.x(), w, part.y.as(6, s.is.f.width), arena<>(work), o);
    EXPECT_EQ(done.code(), error::arena_too_small);
    said[x.rank()] = done.message();
  });
  EXPECT_EQ(said[0], said[1]);
  EXPECT_NE(said[0].find("moe_layer_across: rank 1 would receive "), std::string::npos) << said[0];
  EXPECT_NE(said[0].find(" rows; it has memory for 2"), std::string::npos) << said[0];
}

TEST(Across, OneRankIsRefusedByItsPlacementAndElseByMoeLayer) {
  layer_case const c = family("gshard");
  layer_setup<float> const s(c);
  placed const whole = placed_evenly(1, s.is.f.local()),
               less = placed_evenly(1, s.is.f.local() - 1);
  std::vector<int> const count{c.f.tokens};
  alone x;
  auto const said = [&](placed const& p, auto const& change) {
    rank_of_layer<float> part(s, whole, count, 0);
    among_ranks<alone> const among{.transport = x, .placement = p.view_of()};
    auto o = part.options(s.options());
    change(o);
    part.y.wipe();
    status const done = moe_layer_across(on_host{.threads = 1}, among, part.x(), part.weights(),
                                         part.y.as(c.f.tokens, s.is.f.width), arena<>(), o);
    EXPECT_FALSE(done.ok());
    for (float y : part.y) EXPECT_TRUE(std::isnan(y));
    return std::string(done.message());
  };
  auto const nothing = [](auto const&) {};
  EXPECT_NE(said(less, nothing).find("(experts of the placement, and zero experts)"),
            std::string::npos);
  EXPECT_EQ(said(whole, [](auto& o) { o.first_expert = 1; }).find("moe_layer_across.options"), 0u);
  std::string const own = said(whole, [](auto& o) { o.top_k = 0; });
  EXPECT_NE(own.find("top_k"), std::string::npos) << own;
  EXPECT_EQ(own.find("across"), std::string::npos) << own;
  EXPECT_EQ(said(whole, nothing).find("moe_layer.work"), 0u);
}

}  // namespace across_layer_errors_test
}  // namespace shunt::test
