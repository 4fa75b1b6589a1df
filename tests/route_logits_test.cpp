// What the router makes of logits that are not finite, all negative, or all equal.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"
#include "support/score_options.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_logits_test {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

TEST(RouteLogits, Battery03_NanRowNeverChoosesExpertZeroKTimes) {
  guarded<float> logits(3 * 70);
  for (auto& z : logits) z = nan;
  for (std::size_t e = 0; e < 70; ++e) logits[70 + e] = static_cast<float>(e) * 0.1f;
  for (auto const& o : score_options()) {
    route_outputs out(3, 70, 4);
    ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
    for (offset_t t : {0, 2}) {
      EXPECT_EQ(ids_of(out.expert, t, 4), (std::vector<int>{-1, -1, -1, -1}));
      for (offset_t k = 0; k < 4; ++k) EXPECT_EQ(out.gate[at(t * 4 + k)], 0.0f);
      EXPECT_EQ(out.z[at(t)], 0.0f);
    }
    EXPECT_EQ(ids_of(out.expert, 1, 4), (std::vector<int>{69, 68, 67, 66}));
    EXPECT_EQ(out.count(route_event::non_finite_tokens), 2);
    EXPECT_EQ(out.count(route_event::non_finite_logits), 140);
    EXPECT_EQ(out.count(route_event::empty_tokens), 2);
    EXPECT_EQ(out.count(route_event::unfilled_slots), 8);
    EXPECT_TRUE(all_finite(out.importance));
    EXPECT_TRUE(agrees_with_oracle(logits, out, o));
  }
}

TEST(RouteLogits, Battery03_ANanAmongNumbersIsNeverChosen) {
  auto logits = normal_values<float>(50 * 33, 2, 2.0);
  rng d(3);
  std::int64_t planted = 0;
  for (auto& z : logits) {
    if (d.below(5) == 0) {
      z = nan;
      ++planted;
    }
  }
  for (auto const& o : score_options()) {
    route_outputs out(50, 33, 5);
    ASSERT_TRUE(run_route<float>({.threads = 2}, logits, out, o).ok());
    EXPECT_TRUE(agrees_with_oracle(logits, out, o));
    EXPECT_EQ(out.count(route_event::non_finite_logits), planted);
    for (offset_t t = 0; t < 50; ++t) {
      for (int id : ids_of(out.expert, t, 5)) {
        ASSERT_GE(id, 0);
        EXPECT_FALSE(std::isnan(logits[at(t * 33 + id)]));
      }
    }
  }
}

TEST(RouteLogits, Battery03_PlusInfinityTakesAllAndIsCounted) {
  guarded<float> const logits(std::vector<float>{1.0f, inf, 0.0f, -inf, 2.0f});
  route_outputs out(1, 5, 2);
  ASSERT_TRUE(run_route<float>({}, logits, out).ok());
  EXPECT_EQ(ids_of(out.expert, 0, 2), (std::vector<int>{1, 4}));
  EXPECT_EQ(out.gate[0], 1.0f);
  EXPECT_EQ(out.gate[1], 0.0f);
  EXPECT_EQ(out.count(route_event::non_finite_logits), 1);  // -Inf is a mask, not an error
}

TEST(RouteLogits, Battery04_AllNegative) {
  guarded<float> logits(66);
  for (std::size_t e = 0; e < 66; ++e) logits[e] = -20.0f - 0.9f * static_cast<float>(e);
  for (auto const& o : score_options()) {
    route_outputs out(1, 66, 3);
    ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
    EXPECT_EQ(ids_of(out.expert, 0, 3), (std::vector<int>{0, 1, 2}));
    EXPECT_TRUE(agrees_with_oracle(logits, out, o));
  }
}

TEST(RouteLogits, Battery04_AllEqualTakesTheLowestIds) {
  for (index_t experts : expert_counts) {
    index_t const top_k = experts < 8 ? experts : 8;
    for (float level : {-3.0f, 0.0f, -0.0f, 88.0f}) {
      guarded<float> logits(at(experts));
      for (auto& z : logits) z = level;
      guarded<float> bias(at(experts));
      for (auto& b : bias) b = 0.25f;
      for (bool biased : {false, true}) {
        for (auto const& o : score_options()) {
          route_outputs out(1, experts, top_k);
          route_inputs<> with;
          if (biased) with.choice_bias = bias;
          ASSERT_TRUE(run_route<float>({}, logits, out, o, with).ok());
          for (index_t k = 0; k < top_k; ++k) ASSERT_EQ(out.expert[at(k)], k) << "E" << experts;
          ASSERT_GT(out.gate[0], -4.0f);
          for (index_t k = 1; k < top_k; ++k) ASSERT_EQ(out.gate[at(k)], out.gate[0]);
        }
      }
    }
  }
}

TEST(RouteLogits, Battery04_MinusInfinityButOne) {
  for (index_t experts : {5, 64, 129}) {
    for (index_t alive : {0, 3, experts - 1}) {
      guarded<float> logits(at(experts));
      for (auto& z : logits) z = -inf;
      logits[at(alive)] = -7.0f;
      for (auto const& o : score_options()) {
        route_outputs out(1, experts, 3);
        ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
        EXPECT_EQ(ids_of(out.expert, 0, 3), (std::vector<int>{alive, -1, -1}));
        EXPECT_TRUE(agrees_with_oracle(logits, out, o));
        EXPECT_EQ(out.count(route_event::non_finite_logits), 0);
        EXPECT_EQ(out.count(route_event::unfilled_slots), 2);
        if (o.gates != gate_kind::raw) { EXPECT_EQ(out.gate[0], 1.0f); }
      }
    }
  }
}

// Scores that round to the same float must not decide by the lower id what the logits decide.
TEST(RouteLogits, Battery04_SaturatedScoresAreChosenByTheirLogits) {
  guarded<float> const logits(std::vector<float>{30.0f, -300.0f, 40.0f, -200.0f, 35.0f});
  for (auto const& o : score_options()) {
    route_outputs out(1, 5, 4);
    ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
    EXPECT_EQ(ids_of(out.expert, 0, 4), (std::vector<int>{2, 4, 0, 3}));
  }
}

}  // namespace route_logits_test
}  // namespace shunt::test
