// The router forward: against the oracle, over expert counts, types and options; its determinism.
#include "shunt/route.hpp"

#include <gtest/gtest.h>

#include "support/route_harness.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_test {

std::vector<double> random_bias(offset_t experts, std::uint64_t seed) {
  rng d(seed);
  std::vector<double> bias(at(experts));
  for (double& b : bias) b = static_cast<double>(static_cast<float>(d.uniform(-0.2, 0.2)));
  return bias;
}
guarded<float> in_float(std::vector<double> const& values) {
  guarded<float> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = static_cast<float>(values[i]);
  return out;
}

struct named_options {
  char const* name;
  route_options options;
  bool bias;
};

std::vector<named_options> families() {
  std::vector<named_options> all;
  for (score_kind score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      // Signed scores do not sum to anything one may divide by.
      if (score == score_kind::logits && gates == gate_kind::renormalized) continue;
      for (bool bias : {false, true}) {
        all.push_back({to_string(score), {.score = score, .gates = gates, .scale = 2.5f}, bias});
      }
    }
  }
  return all;
}

template <class T> void against_oracle(offset_t tokens, offset_t experts, offset_t top_k) {
  std::uint64_t seed = static_cast<std::uint64_t>(tokens * 7919 + experts * 31 + top_k);
  guarded<T> const logits = normal_values<T>(at(tokens * experts), seed, 2.0);
  auto const bias = random_bias(experts, seed + 1);
  guarded<float> const bias_float = in_float(bias);
  for (auto const& f : families()) {
    SCOPED_TRACE(testing::Message()
                 << f.name << " gates " << static_cast<int>(f.options.gates) << " bias " << f.bias
                 << " T" << tokens << " E" << experts << " K" << top_k);
    route_inputs<> with;
    if (f.bias) with.choice_bias = bias_float;
    route_outputs out(tokens, experts, top_k);
    status const s = run_route<T>({.threads = 2}, logits, out, f.options, with);
    ASSERT_TRUE(s.ok()) << s.message();
    ASSERT_TRUE(agrees_with_oracle(logits, out, f.options, f.bias ? bias : std::vector<double>{}));
  }
}

TEST(Route, AgreesWithTheOracleOverExpertCounts) {
  for (offset_t experts :
       {1, 5, 8, 60, 127, 128, 129, 160, 255, 256, 384, 512, 896, 1023, 1024, 1025, 2048}) {
    for (offset_t top_k : {1, 2, 8, 22, 32}) {
      if (top_k <= experts) against_oracle<float>(small_scale() ? 3 : 9, experts, top_k);
    }
  }
}

TEST(Route, AgreesWithTheOracleOverTokenCounts) {
  for (offset_t tokens : {0, 1, 3, 17, 31, 32, 33, 257}) {
    against_oracle<float>(tokens, 60, 4);
    against_oracle<float>(tokens, 5, 5);
  }
}

TEST(Route, ReadsEveryStorageType) {
  for (offset_t experts : {5, 60, 129}) {
    against_oracle<bf16>(17, experts, 4);
    against_oracle<fp16>(17, experts, 4);
  }
}

TEST(Route, MoreThanThirtyTwoChoicesTakeTheSamePath) {
  against_oracle<float>(5, 100, 33);
  against_oracle<float>(5, 100, 100);
  against_oracle<float>(3, 1500, 700);
}

TEST(Route, GroupsAreRankedByTheirBestOrTheirTwoBest) {
  for (group_rule by : {group_rule::best, group_rule::sum_of_two_best}) {
    for (auto [experts, groups, top_groups, top_k] : {std::array<index_t, 4>{160, 8, 3, 6},
                                                      {256, 8, 4, 8},
                                                      {60, 5, 2, 4},
                                                      {96, 96, 7, 5},
                                                      {12, 4, 1, 3},
                                                      {2048, 64, 3, 32},
                                                      {1028, 257, 100, 9}}) {
      for (score_kind score : {score_kind::softmax, score_kind::sigmoid}) {
        for (bool biased : {false, true}) {
          SCOPED_TRACE(testing::Message() << "E" << experts << " groups " << groups << " bias "
                                          << biased << " rule " << static_cast<int>(by));
          route_options const o{.score = score,
                                .gates = gate_kind::renormalized,
                                .groups = groups,
                                .top_groups = top_groups,
                                .group_by = by};
          auto const logits = normal_values<float>(at(33 * experts), 5, 1.5);
          auto const bias = random_bias(experts, 6);
          guarded<float> const bias_float = in_float(bias);
          route_outputs out(33, experts, top_k);
          route_inputs<> with;
          if (biased) with.choice_bias = bias_float;
          ASSERT_TRUE(run_route<float>({}, logits, out, o, with).ok());
          ASSERT_TRUE(agrees_with_oracle(logits, out, o, biased ? bias : std::vector<double>{}));
          for (offset_t t = 0; t < 33; ++t) {
            std::vector<int> groups_used;
            for (int id : ids_of(out.expert, t, top_k))
              groups_used.push_back(id / (experts / groups));
            std::sort(groups_used.begin(), groups_used.end());
            groups_used.erase(std::unique(groups_used.begin(), groups_used.end()),
                              groups_used.end());
            ASSERT_LE(groups_used.size(), at(top_groups));
          }
        }
      }
    }
  }
}

// The bias acts on the choice alone: gates are those of the unbiased scores.
TEST(Route, BiasMovesTheChoiceNotTheGates) {
  guarded<float> const logits(std::vector<float>{0.0f, 1.0f, 2.0f, 3.0f});
  guarded<float> const bias(std::vector<float>{10.0f, 0.0f, 5.0f, 0.0f});
  route_options const o{.score = score_kind::sigmoid};
  route_outputs out(1, 4, 2);
  ASSERT_TRUE(run_route<float>({}, logits, out, o, {.choice_bias = bias}).ok());
  EXPECT_EQ(out.expert[0], 0);
  EXPECT_EQ(out.expert[1], 2);
  EXPECT_FLOAT_EQ(out.gate[0], 0.5f);
  EXPECT_NEAR(out.gate[1], 0.88079708, 1e-7);
}

TEST(Route, JitterFollowsTheDocumentedStream) {
  route_options const o{.jitter = 0.1f, .seed = 99, .first_token = 1000};
  auto const logits = normal_values<float>(40 * 67, 3, 2.0);
  route_outputs out(40, 67, 3), rest(20, 67, 3);
  ASSERT_TRUE(run_route<float>({.threads = 3}, logits, out, o).ok());
  EXPECT_TRUE(agrees_with_oracle(logits, out, o));
  route_outputs plain(40, 67, 3);
  ASSERT_TRUE(run_route<float>({}, logits, plain).ok());
  EXPECT_FALSE(same_bits(out.gate, plain.gate)) << "the jitter did nothing";
  // The second half as a micro-batch of its own draws the same numbers.
  guarded<float> const half(std::vector<float>(logits.begin() + 20 * 67, logits.end()));
  route_options later = o;
  later.first_token = 1020;
  ASSERT_TRUE(run_route<float>({}, half, rest, later).ok());
  for (std::size_t i = 0; i < 60; ++i) EXPECT_EQ(rest.gate[i], out.gate[60 + i]);
  // And so does a seed or first token that memory holds, in place of the option's.
  guarded<std::uint64_t> const seed(std::vector<std::uint64_t>{99});
  guarded<std::uint64_t> const first(std::vector<std::uint64_t>{1020});
  route_inputs<> with;
  with.draws = {.seed = seed, .first_token = first};
  route_options wrong = later;
  wrong.seed = 1, wrong.first_token = 2;
  route_outputs memory(20, 67, 3);
  ASSERT_TRUE(run_route<float>({}, half, memory, wrong, with).ok());
  EXPECT_TRUE(same_routing(memory, rest));
}

/// Lanes behind the last expert are not jittered by what the scratch held before.
TEST(Route, JitterChoosesNoExpertThatIsNotThere) {
  for (int experts : {1, 9, 31, 33}) {
    std::vector<float> const z(static_cast<std::size_t>(experts), -1.0f);
    index_t id = 0;
    float gate = 0.0f;
    routing<> out;
    out.expert = {&id, {{1, 1}}};
    out.gate = {&gate, {{1, 1}}};
    on_host const on{.threads = 1};
    shape const sizes{.tokens = 1, .experts = experts, .top_k = 1};
    // As floats these bytes are -97: a factor of that sign turns -Inf into the best of all.
    std::vector<std::byte> work(route_scratch_bytes(on, sizes), std::byte{0xc2});
    status const done =
        route(on, view<float const, 2>(z.data(), {{1, experts}}), out, work, {.jitter = 0.1f});
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_GE(id, 0);
    EXPECT_LT(id, experts);
  }
}

TEST(Route, TheSecondExpertIsKeptWithTwiceItsShare) {
  route_options const o{.gates = gate_kind::renormalized, .random_second = true, .seed = 7};
  offset_t const tokens = 4000;
  guarded<float> logits(at(tokens * 4));
  for (offset_t t = 0; t < tokens; ++t) {
    // Shares of two: 0.85 and 0.15, so the second is kept in 30 %.
    float const row[4] = {-3.0f, std::log(0.85f), std::log(0.15f), -4.0f};
    for (offset_t e = 0; e < 4; ++e) logits[at(t * 4 + e)] = row[e];
  }
  route_outputs out(tokens, 4, 2);
  ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
  int kept = 0;
  for (offset_t t = 0; t < tokens; ++t) {
    EXPECT_EQ(out.expert[at(2 * t)], 1);
    EXPECT_NEAR(out.gate[at(2 * t)], 0.85f, 1e-5f);  // the first keeps its share either way
    bool const here = out.expert[at(2 * t + 1)] == 2;
    kept += here ? 1 : 0;
    EXPECT_NEAR(out.gate[at(2 * t + 1)], here ? 0.15f : 0.0f, 1e-5f);
    double const draw =
        static_cast<double>(uniform_of(random_at(7, static_cast<std::uint64_t>(t), 0).word[0]));
    if (std::abs(draw - 0.3) > 1e-5) { EXPECT_EQ(here, draw < 0.3); }
  }
  EXPECT_NEAR(kept, 1200, 100);
  EXPECT_EQ(out.count(route_event::second_dropped), tokens - kept);
}

TEST(Route, SequencesHaveALoadOfTheirOwn) {
  auto const logits = normal_values<float>(3 * 50 * 24, 8, 2.0);
  std::vector<std::uint8_t> valid(150, 1);
  for (std::size_t t = 40; t < 50; ++t) valid[t] = 0;
  for (std::size_t t = 100; t < 150; ++t) valid[t] = 0;
  guarded<std::uint8_t> const mask(valid);
  route_outputs out(150, 24, 4, 3);
  ASSERT_TRUE(run_route<float>({.threads = 2}, logits, out, {}, {.valid = mask}).ok());
  EXPECT_TRUE(agrees_with_oracle(logits, out, {}, {}, valid));
  for (offset_t n = 0; n < 3; ++n) {
    guarded<float> const part(
        std::vector<float>(logits.begin() + n * 50 * 24, logits.begin() + (n + 1) * 50 * 24));
    guarded<std::uint8_t> const own(
        std::vector<std::uint8_t>(valid.begin() + n * 50, valid.begin() + (n + 1) * 50));
    route_outputs alone(50, 24, 4);
    ASSERT_TRUE(run_route<float>({}, part, alone, {}, {.valid = own}).ok());
    EXPECT_EQ(out.sequence_tokens[at(n)], alone.total[0]);
    for (offset_t e = 0; e < 24; ++e) {
      EXPECT_EQ(out.sequence_counts[at(n * 24 + e)], alone.counts[at(e)]);
      EXPECT_EQ(out.sequence_importance[at(n * 24 + e)], alone.importance[at(e)]);
    }
  }
}

TEST(Route, AccumulatesOverMicroBatches) {
  auto const logits = normal_values<float>(64 * 16, 9, 2.0);
  route_outputs whole(64, 16, 3);
  ASSERT_TRUE(run_route<float>({}, logits, whole).ok());
  route_outputs out(32, 16, 3);
  for (int part = 0; part < 2; ++part) {
    guarded<float> const half(
        std::vector<float>(logits.begin() + part * 32 * 16, logits.begin() + (part + 1) * 32 * 16));
    ASSERT_TRUE(run_route<float>({}, half, out, {.accumulate = part == 1}).ok());
  }
  EXPECT_TRUE(same_bits(out.counts, whole.counts));
  EXPECT_EQ(out.total[0], 64);
  EXPECT_EQ(out.count(route_event::tokens), 64);
  for (std::size_t e = 0; e < 16; ++e) EXPECT_EQ(out.importance[e], whole.importance[e]);
}

TEST(Route, AnyThreadCountAndInstructionSetGiveTheSameBits) {
  for (auto const& f : families()) {
    for (offset_t experts : {5, 64, 129, 1025}) {
      offset_t const top_k = experts < 8 ? 3 : 8;
      auto const logits = normal_values<float>(at(70 * experts), 4, 2.0);
      guarded<float> const bias_float = in_float(random_bias(experts, 5));
      route_inputs<> with;
      if (f.bias) with.choice_bias = bias_float;
      route_options o = f.options;
      o.jitter = 0.05f;
      route_outputs first(70, experts, top_k, 2);
      ASSERT_TRUE(run_route<float>(host_configs()[0], logits, first, o, with).ok());
      for (on_host const& on : host_configs()) {
        SCOPED_TRACE(name_of(on) + " " + f.name);
        route_outputs out(70, experts, top_k, 2);
        ASSERT_TRUE(run_route<float>(on, logits, out, o, with).ok());
        ASSERT_TRUE(same_routing(first, out));
      }
    }
  }
}

TEST(Route, TakesAnyRowStride) {
  auto const logits = normal_values<float>(10 * 9, 4, 2.0);
  guarded<float> wide(10 * 13);
  for (std::size_t t = 0; t < 10; ++t) {
    for (std::size_t e = 0; e < 9; ++e) wide[t * 13 + e] = logits[t * 9 + e];
  }
  route_outputs a(10, 9, 2), b(10, 9, 2);
  ASSERT_TRUE(run_route<float>({}, logits, a).ok());
  auto bytes = route_scratch_for({}, 10, 9, 2);
  ASSERT_TRUE(route(on_host{}, view<float const, 2>(wide.data(), {{10, 9}}, {{13, 1}}), b.all(),
                    arena<>(bytes))
                  .ok());
  EXPECT_TRUE(same_routing(a, b));
}

}  // namespace route_test
}  // namespace shunt::test
