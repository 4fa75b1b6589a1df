// The field's router bugs (docs: the battery), each under a name that says it.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <limits>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"
#include "support/score_options.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_battery_test {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

TEST(RouteBattery, Battery02_ExpertForcedTwiceIsCountedAndLeftOut) {
  guarded<float> const logits(std::vector<float>{0.5f, 1.0f, -1.0f, 2.0f});
  guarded<index_t> const ids(std::vector<index_t>{3, 1, 3, 3});
  for (auto const& o : score_options()) {
    route_outputs out(1, 4, 4);
    ASSERT_TRUE(run_route<float>({}, logits, out, o, {.ids = matrix(ids, 1, 4)}).ok());
    EXPECT_EQ(ids_of(out.expert, 0, 4), (std::vector<int>{3, 1, -1, -1}));
    EXPECT_EQ(out.count(route_event::ids_repeated), 2);
    EXPECT_EQ(out.count(route_event::unfilled_slots), 2);
    EXPECT_EQ(out.gate[2], 0.0f);
    EXPECT_EQ(out.counts[3], 1);
    auto const r = oracle_scores(in_double(logits), o);
    auto const gate = oracle_gates(r, {3, 1, -1, -1}, o);
    EXPECT_TRUE(close(out.gate, gate, 16.0));
  }
}

// Rows that lie 2^30 elements apart: the third begins past 2^31. Pages nobody touches cost nothing.
TEST(RouteBattery, Battery05_RowsPastTwoToThe31Elements) {
  constexpr offset_t stride = (offset_t{1} << 30) + 7, tokens = 3, experts = 5, top_k = 2;
  std::size_t const bytes = at((tokens - 1) * stride + experts) * sizeof(float);
  void* const maps[2] = {mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
                         mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)};
  if (maps[0] == MAP_FAILED || maps[1] == MAP_FAILED) GTEST_SKIP() << "no address space";
  view<float, 2> const far(static_cast<float*>(maps[0]), {{tokens, experts}}, {{stride, 1}});
  view<float, 2> const d_far(static_cast<float*>(maps[1]), {{tokens, experts}}, {{stride, 1}});
  auto const logits = normal_values<float>(at(tokens * experts), 4, 2.0);
  for (offset_t i = 0; i < tokens * experts; ++i) far(i / experts, i % experts) = logits[at(i)];
  route_outputs near(tokens, experts, top_k), out(tokens, experts, top_k);
  ASSERT_TRUE(run_route<float>({}, logits, near).ok());
  auto scratch = route_scratch_for({}, tokens, experts, top_k);
  ASSERT_TRUE(route(on_host{}, far, out.all(), arena<>(scratch)).ok());
  EXPECT_TRUE(same_routing(near, out));
  auto const d_gate = normal_values<float>(at(tokens * top_k), 5);
  guarded<float> d_logits(logits.size());
  route_gradients<> d;
  d.gate = matrix(d_gate, tokens, top_k);
  ASSERT_TRUE(route_backward(on_host{}, matrix(logits, tokens, experts), out.plain(), d,
                             matrix(d_logits, tokens, experts), arena<>(scratch))
                  .ok());
  ASSERT_TRUE(route_backward(on_host{}, far, out.plain(), d, d_far, arena<>(scratch)).ok());
  for (offset_t i = 0; i < tokens * experts; ++i) {
    EXPECT_EQ(d_far(i / experts, i % experts), d_logits[at(i)]);
  }
  for (void* map : maps) munmap(map, bytes);
}

TEST(RouteBattery, Battery09_PaddingCountsNowhere) {
  for (offset_t experts : {7, 60}) {  // T equal to E as well: a mask [T] is no mask [E]
    for (offset_t tokens : {experts, offset_t{41}}) {
      auto const clean = normal_values<float>(at(tokens * experts), 5, 2.0);
      guarded<float> dirty = clean;
      std::vector<std::uint8_t> valid(at(tokens), 1);
      for (std::size_t t = 0; t < valid.size(); ++t) {
        if (t % 3 == 1) {
          valid[t] = 0;
          for (offset_t e = 0; e < experts; ++e) dirty[t * at(experts) + at(e)] = nan;
        }
      }
      guarded<std::uint8_t> const mask(valid);
      guarded<float> bias(at(experts));
      for (auto& b : bias) b = 0.0f;
      guarded<index_t> histogram(at(experts * 100)), histogram_dirty(at(experts * 100));
      route_options const o{.score = score_kind::sigmoid, .gates = gate_kind::renormalized};
      route_outputs a(tokens, experts, 3), b(tokens, experts, 3);
      auto bytes = route_scratch_for({}, tokens, experts, 3);
      routing<> wanted = a.all(), wanted_dirty = b.all();
      wanted.histogram = matrix(histogram, experts, 100);
      wanted_dirty.histogram = matrix(histogram_dirty, experts, 100);
      route_inputs<> const with{.choice_bias = bias, .valid = mask};
      ASSERT_TRUE(
          route(on_host{}, matrix(clean, tokens, experts), with, wanted, arena<>(bytes), o).ok());
      ASSERT_TRUE(
          route(on_host{}, matrix(dirty, tokens, experts), with, wanted_dirty, arena<>(bytes), o)
              .ok());
      EXPECT_TRUE(same_routing(a, b)) << "what stands in padding must not show";
      EXPECT_TRUE(same_bits(histogram, histogram_dirty));
      EXPECT_TRUE(agrees_with_oracle(clean, a, o, std::vector<double>(at(experts), 0.0), valid));
      EXPECT_EQ(a.count(route_event::non_finite_logits), 0);
      std::int64_t entries = 0;
      for (index_t n : histogram) entries += n;
      EXPECT_EQ(entries, a.total[0] * experts);
    }
  }
}

TEST(RouteBattery, Battery10_RecomputeReplaysTies) {
  guarded<float> logits(40 * 24);
  rng d(6);
  for (auto& z : logits) z = static_cast<float>(d.below(3));  // ties everywhere
  for (auto const& o : score_options()) {
    route_outputs first(40, 24, 5), again(40, 24, 5), replay(40, 24, 5);
    ASSERT_TRUE(run_route<float>({.threads = 2}, logits, first, o).ok());
    ASSERT_TRUE(run_route<float>({.threads = 7}, logits, again, o).ok());
    EXPECT_TRUE(same_routing(first, again));
    EXPECT_TRUE(agrees_with_oracle(logits, first, o));
    // Forced to its own record, int16 or int32, it gives the same gates.
    ASSERT_TRUE(
        run_route<float>({}, logits, replay, o, {.ids = matrix(first.recorded, 40, 5)}).ok());
    EXPECT_TRUE(same_routing(first, replay));
    ASSERT_TRUE(run_route<float>({}, logits, replay, o, {.ids = matrix(first.expert, 40, 5)}).ok());
    EXPECT_TRUE(same_routing(first, replay));
  }
}

TEST(RouteBattery, Battery15_RunsAreBitwiseEqual) {
  auto const logits = normal_values<float>(513 * 61, 7, 2.0);
  route_outputs first(513, 61, 6);
  ASSERT_TRUE(run_route<float>({.threads = 7}, logits, first).ok());
  for (int run = 0; run < 5; ++run) {
    route_outputs out(513, 61, 6);
    ASSERT_TRUE(run_route<float>({.threads = 7}, logits, out).ok());
    ASSERT_TRUE(same_routing(first, out));
  }
}

TEST(RouteBattery, Battery16_ATokensBitsDoNotDependOnTheBatch) {
  offset_t const experts = 129;
  auto const logits = normal_values<float>(at(257 * experts), 8, 2.0);
  for (auto const& o : score_options()) {
    route_outputs whole(257, experts, 6);
    ASSERT_TRUE(run_route<float>({.threads = 2}, logits, whole, o).ok());
    for (offset_t tokens : {1, 4, 16, 64, 257}) {
      guarded<float> const part(
          std::vector<float>(logits.begin(), logits.begin() + tokens * experts));
      route_outputs out(tokens, experts, 6);
      ASSERT_TRUE(run_route<float>({.threads = 2}, part, out, o).ok());
      for (offset_t i = 0; i < tokens * 6; ++i) {
        ASSERT_EQ(out.expert[at(i)], whole.expert[at(i)]);
        ASSERT_EQ(out.gate[at(i)], whole.gate[at(i)]);
      }
      for (offset_t t = 0; t < tokens; ++t) ASSERT_EQ(out.z[at(t)], whole.z[at(t)]);
    }
  }
}

TEST(RouteBattery, Battery17_NanInPaddingRowsLeavesOthersAlone) {
  guarded<float> logits = normal_values<float>(64 * 20, 9, 2.0);
  std::vector<std::uint8_t> valid(64, 1);
  for (std::size_t t = 33; t < 64; ++t) {
    valid[t] = 0;
    for (std::size_t e = 0; e < 20; ++e) logits[t * 20 + e] = nan;
  }
  guarded<std::uint8_t> const mask(valid);
  guarded<float> const part(std::vector<float>(logits.begin(), logits.begin() + 33 * 20));
  route_outputs out(64, 20, 4), alone(33, 20, 4);
  ASSERT_TRUE(run_route<float>({}, logits, out, {}, {.valid = mask}).ok());
  ASSERT_TRUE(run_route<float>({}, part, alone).ok());
  EXPECT_TRUE(same_bits(out.importance, alone.importance));
  for (std::size_t i = 0; i < 33 * 4; ++i) EXPECT_EQ(out.gate[i], alone.gate[i]);
}

TEST(RouteBattery, Battery19_EveryRowAndEveryExpertCount) {
  for (index_t experts : expert_counts) {
    offset_t const tokens = small_scale() ? 5 : 40;
    // Each token's favorite is its own: a router that stops after some rows, or counts modulo
    // something, shows.
    guarded<float> logits(at(tokens * experts));
    for (auto& z : logits) z = -1.0f;
    std::vector<index_t> expected(at(experts), 0);
    for (offset_t t = 0; t < tokens; ++t) {
      offset_t const favorite = (t * 37 + experts - 1) % experts;
      logits[at(t * experts + favorite)] = 1.0f;
      ++expected[at(favorite)];
    }
    route_outputs out(tokens, experts, 1);
    ASSERT_TRUE(run_route<float>({.threads = 2}, logits, out).ok());
    for (offset_t t = 0; t < tokens; ++t) {
      ASSERT_EQ(out.expert[at(t)], (t * 37 + experts - 1) % experts) << "E" << experts;
    }
    for (std::size_t e = 0; e < expected.size(); ++e) ASSERT_EQ(out.counts[e], expected[e]);
    ASSERT_EQ(out.total[0], tokens);
  }
}

TEST(RouteBattery, Battery20_TwentyTwoOfManyAndManyTokens) {
  if (small_scale()) GTEST_SKIP() << "a large case";
  offset_t const tokens = 55000, experts = 384, top_k = 22;  // T·K far past 65535
  guarded<float> logits(at(tokens * experts));
  std::uint32_t state = 1;
  for (auto& z : logits) {
    state = state * 1664525u + 1013904223u;
    z = static_cast<float>(state >> 8) * 0x1p-22f;
  }
  route_outputs out(tokens, experts, top_k);
  auto bytes = route_scratch_for({}, tokens, experts, top_k);
  ASSERT_TRUE(route(on_host{}, matrix(logits, tokens, experts), out.all(), arena<>(bytes)).ok());
  for (offset_t t : {0, 2978, 2979, 54271, 54272, 54999}) {
    std::vector<double> const row =
        row_of(in_double(guarded<float>(std::vector<float>(logits.begin() + t * experts,
                                                           logits.begin() + (t + 1) * experts))),
               0, experts);
    auto const r = oracle_scores(row, {});
    EXPECT_EQ(ids_of(out.expert, t, top_k), oracle_best(oracle_keys(r, {}, {}), at(top_k)));
  }
  std::int64_t slots = 0;
  for (index_t n : out.counts) slots += n;
  EXPECT_EQ(slots, tokens * top_k);
}

TEST(RouteBattery, Battery21_EightGroupsOfOneWithTheTwoBestOfEach) {
  guarded<float> const logits(std::vector<float>{0.1f, 0.9f, -0.2f, 0.5f, 0.7f, -1.0f, 0.3f, 0.6f});
  route_options const o{.score = score_kind::sigmoid,
                        .groups = 8,
                        .top_groups = 3,
                        .group_by = group_rule::sum_of_two_best};
  route_outputs out(1, 8, 2);
  ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
  EXPECT_EQ(ids_of(out.expert, 0, 2), (std::vector<int>{1, 4}));
}

TEST(RouteBattery, Battery21_TiedGroupsAndExpertsGoToTheLowerId) {
  for (group_rule by : {group_rule::best, group_rule::sum_of_two_best}) {
    guarded<float> logits(64 * 48);
    rng d(10);
    for (auto& z : logits) z = static_cast<float>(d.below(2));
    route_options const o{
        .score = score_kind::sigmoid, .groups = 8, .top_groups = 4, .group_by = by};
    guarded<float> bias(48);
    for (auto& b : bias) b = 0.5f;
    for (bool biased : {false, true}) {
      route_outputs out(64, 48, 8);
      route_inputs<> with;
      if (biased) with.choice_bias = bias;
      ASSERT_TRUE(run_route<float>({}, logits, out, o, with).ok());
      for (offset_t t = 0; t < 64; ++t) {
        auto const r = oracle_scores(row_of(in_double(logits), t, 48), o);
        auto const key =
            oracle_keys(r, biased ? std::vector<double>(48, 0.5) : std::vector<double>{}, o);
        ASSERT_EQ(ids_of(out.expert, t, 8), oracle_best(key, 8)) << "token " << t;
      }
    }
  }
}

TEST(RouteBattery, Battery22_ZeroExpertsAreScaledLikeAll) {
  guarded<float> const logits(std::vector<float>{0.0f, 1.0f, 0.5f, 2.0f, -1.0f, 1.5f});
  route_options const o{.scale = 6.0f, .zero_experts = 2};
  route_outputs out(1, 6, 3);
  ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
  EXPECT_EQ(ids_of(out.expert, 0, 3), (std::vector<int>{3, 5, 1}));
  EXPECT_TRUE(agrees_with_oracle(logits, out, o));
  EXPECT_GT(out.gate[1], 1.0f);  // 6 times a share of a quarter
}

TEST(RouteBattery, Battery24_TheArenaAskedForIsTheArenaUsed) {
  auto const logits = normal_values<float>(100 * 37, 11, 2.0);
  for (int threads : {1, 2, 7}) {
    on_host const on{.threads = threads};
    std::size_t const size = route_scratch_bytes(on, {.tokens = 100, .experts = 37, .top_k = 4}, 4);
    guarded<std::byte> exact(size - arena<>::alignment), small(size - 2 * arena<>::alignment);
    route_outputs out(100, 37, 4, 4);
    guarded<std::byte> bytes(size);
    EXPECT_TRUE(route(on, matrix(logits, 100, 37), out.all(), arena<>(bytes)).ok());
    status const s = route(on, matrix(logits, 100, 37), out.all(), arena<>(small));
    EXPECT_EQ(s.code(), error::arena_too_small);
    EXPECT_NE(std::string(s.message()).find(std::to_string(size)), std::string::npos)
        << s.message();
  }
}

// Layers whose choice is a table from token ids to experts (DeepSeek-V4's first).
TEST(Route, HashTableGivesIdsAndThisRunsScoresTheGates) {
  route_options const o{
      .score = score_kind::sqrt_softplus, .gates = gate_kind::renormalized, .scale = 1.5f};
  auto const logits = normal_values<float>(5 * 12, 12, 2.0);
  guarded<std::int16_t> const table(std::vector<std::int16_t>{0, 5, 11, 3, 7, 7, 4, 12});
  guarded<index_t> const token(std::vector<index_t>{2, 0, 1, 3, 9});
  route_outputs out(5, 12, 2);
  ASSERT_TRUE(
      run_route<float>({}, logits, out, o, {.ids = matrix(table, 4, 2), .token = token}).ok());
  std::vector<std::vector<int>> const expected{{7, -1}, {0, 5}, {11, 3}, {4, -1}, {-1, -1}};
  for (offset_t t = 0; t < 5; ++t) {
    EXPECT_EQ(ids_of(out.expert, t, 2), expected[at(t)]);
    auto const gate =
        oracle_gates(oracle_scores(row_of(in_double(logits), t, 12), o), expected[at(t)], o);
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_NEAR(out.gate[at(2 * t) + k], gate[k], 4e-7 * (1.0 + gate[k]));
    }
  }
  EXPECT_EQ(out.count(route_event::ids_repeated), 1);
  EXPECT_EQ(out.count(route_event::ids_out_of_range), 2);
  EXPECT_EQ(out.count(route_event::empty_tokens), 1);
}

}  // namespace route_battery_test
}  // namespace shunt::test
