// The router and its losses on what made other routers fail, beside route_battery_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_field_test {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

template <class T>
status backward_of(guarded<T> const& logits, route_outputs& out, guarded<float> const& d_gate,
                   guarded<float>& d_logits, route_options const& o,
                   route_inputs<> const& with = {}) {
  auto bytes = route_scratch_for({}, out.tokens, out.experts, out.top_k);
  route_gradients<> d;
  d.gate = matrix(d_gate, out.tokens, out.top_k);
  return route_backward(on_host{}, matrix(logits, out.tokens, out.experts), with, out.plain(), d,
                        matrix(d_logits, out.tokens, out.experts), arena<>(bytes), o);
}

// Keys below 0: an expert of a group that was left out must not come back as a 0 that is larger.
TEST(RouteField, Battery44_NegativeBiasesWithGroups) {
  for (group_rule by : {group_rule::best, group_rule::sum_of_two_best}) {
    for (score_kind score : {score_kind::softmax, score_kind::sigmoid}) {
      route_options const o{.score = score,
                            .gates = gate_kind::renormalized,
                            .groups = 8,
                            .top_groups = 3,
                            .group_by = by};
      auto const logits = normal_values<float>(40 * 64, 5, 1.5);
      std::vector<double> bias(64);
      guarded<float> bias_float(64);
      rng d(6);
      for (std::size_t e = 0; e < 64; ++e) {
        bias_float[e] = static_cast<float>(-3.0 - std::abs(d.normal()));
        bias[e] = static_cast<double>(bias_float[e]);
      }
      for (on_host const& on : host_configs()) {
        route_outputs out(40, 64, 6);
        ASSERT_TRUE(run_route<float>(on, logits, out, o, {.choice_bias = bias_float}).ok());
        EXPECT_TRUE(agrees_with_oracle(logits, out, o, bias)) << name_of(on);
      }
    }
  }
}

// Integers that a float does not hold: counted exactly, and their shares exact to a rounding.
TEST(RouteField, Battery44_CountsNearTwoToThe24AndThe31) {
  constexpr index_t most = std::numeric_limits<index_t>::max();
  auto const logits = normal_values<float>(9 * 4, 7, 1.0);
  route_outputs fresh(9, 4, 1), out(9, 4, 1);
  ASSERT_TRUE(run_route<float>({}, logits, fresh).ok());
  std::vector<index_t> const before{(1 << 24) + 1, most - 9, (1 << 24) - 1, 0};
  for (std::size_t e = 0; e < 4; ++e) {
    out.counts[e] = out.sequence_counts[e] = before[e];
    out.importance[e] = out.sequence_importance[e] = 0.0f;
  }
  out.total[0] = out.sequence_tokens[0] = most - 9;
  for (auto& n : out.report) n = 0;
  ASSERT_TRUE(run_route<float>({}, logits, out, {.accumulate = true}).ok());
  for (std::size_t e = 0; e < 4; ++e) EXPECT_EQ(out.counts[e], before[e] + fresh.counts[e]);
  EXPECT_EQ(out.total[0], most);

  std::vector<float> const importance{2e7f, 1.9e9f, 1.7e7f, 3e6f};
  double all = 0.0, want = 0.0, band = 0.0;
  for (std::size_t e = 0; e < 4; ++e) {
    out.importance[e] = importance[e];
    all += out.counts[e];
  }
  for (std::size_t e = 0; e < 4; ++e) {
    double const f = out.counts[e] / all, p = static_cast<double>(importance[e]) / most;
    want += 4.0 * f * p;
    band += std::max(4.0 * p - 1.5, 0.0) + std::max(0.5 - 4.0 * p, 0.0);
  }
  guarded<float> loss(1), d(4);
  ASSERT_TRUE(balance_loss(on_host{}, out.all(), loss, d, {.coefficient = 1.0f}).ok());
  EXPECT_NEAR(loss[0], want, 1e-6 * want);
  for (std::size_t e = 0; e < 4; ++e) {
    double const slope = 4.0 * (out.counts[e] / all) / most;
    EXPECT_NEAR(d[e], slope, 1e-6 * slope);
  }
  ASSERT_TRUE(
      band_loss(on_host{}, out.all(), loss, d, {.coefficient = 1.0f, .low = 0.5f, .high = 1.5f})
          .ok());
  EXPECT_NEAR(loss[0], band, 1e-6 * band);
}

// Micro-batches of any lengths, and one of padding alone, gather to the batch, not to a mean of means.
TEST(RouteField, Battery44_UnevenMicroBatchesAndPaddingOnlyOnes) {
  constexpr offset_t experts = 10, top_k = 2, tokens = 64;
  auto const logits = normal_values<float>(at(tokens * experts), 19, 1.5);
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid}) {
    route_options o{.score = score};
    route_outputs whole(tokens, experts, top_k);
    ASSERT_TRUE(run_route<float>({}, logits, whole, o).ok());
    guarded<float> loss(1), d(at(experts)), loss_parts(1), d_parts(at(experts));
    ASSERT_TRUE(balance_loss(on_host{}, whole.all(), loss, d).ok());
    guarded<index_t> counts(at(experts)), total(1);
    guarded<float> importance(at(experts));
    offset_t first = 0;
    for (offset_t length : {5, 0, 33, 7, 19}) {  // the second: seven tokens, none of them valid
      bool const padding = length == 0;
      offset_t const n = padding ? 7 : length;
      auto const from = logits.begin() + first * experts;
      guarded<float> part(std::vector<float>(from, from + n * experts));
      guarded<std::uint8_t> valid(at(n));
      for (auto& v : valid) v = padding ? 0 : 1;
      for (float& z : part) z = padding ? not_a_number : z;
      route_outputs out(n, experts, top_k);
      routing<> to = out.plain();
      to.counts = counts, to.importance = importance, to.tokens = total;
      o.accumulate = first > 0;
      auto bytes = route_scratch_for({}, n, experts, top_k);
      ASSERT_TRUE(route(on_host{}, matrix(std::as_const(part), n, experts), {.valid = valid}, to,
                        arena<>(bytes), o)
                      .ok());
      first += length;
    }
    ASSERT_EQ(first, tokens);
    EXPECT_EQ(total[0], tokens);
    EXPECT_TRUE(same_bits(counts, whole.counts));
    routing<> gathered_load = whole.plain();
    gathered_load.counts = counts, gathered_load.importance = importance;
    gathered_load.tokens = total;
    ASSERT_TRUE(balance_loss(on_host{}, gathered_load, loss_parts, d_parts).ok());
    EXPECT_NEAR(loss[0], loss_parts[0], 1e-6f * loss[0]);
    EXPECT_TRUE(same_bits(d, d_parts));
  }
}

// -1, and numbers that name no expert, in the choice that backward is given.
TEST(RouteField, Battery44_SentinelIdsHaveNoGradient) {
  auto const logits = normal_values<float>(6 * 9, 61, 2.0);
  for (score_kind score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      route_options const o{.score = score, .gates = gates};
      route_outputs out(6, 9, 3);
      ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
      auto d_gate = normal_values<float>(18, 62);
      guarded<float> none(54), wild(54);
      for (std::size_t t = 0; t < 5; ++t) {
        out.expert[t * 3 + 1] = -1;
        d_gate[t * 3 + 1] = not_a_number;
      }
      ASSERT_TRUE(backward_of(logits, out, d_gate, none, o).ok());
      EXPECT_TRUE(all_finite(none));
      std::vector<index_t> const ids{-2, 9, 10, std::numeric_limits<index_t>::min(),
                                     std::numeric_limits<index_t>::max()};
      for (std::size_t t = 0; t < 5; ++t) out.expert[t * 3 + 1] = ids[t];
      ASSERT_TRUE(backward_of(logits, out, d_gate, wild, o).ok());
      EXPECT_TRUE(same_bits(none, wild)) << to_string(score);
    }
  }
}

// One expert, whose row of one logit ends where something else begins.
TEST(RouteField, Battery44_OneExpertWithNanBehind) {
  for (score_kind score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      route_options const o{.score = score, .gates = gates};
      guarded<float> wide(5 * 4), tight(5), d_wide(5 * 4), d_tight(5), d_gate(5);
      for (std::size_t t = 0; t < 5; ++t) {
        wide[4 * t] = tight[t] = 0.5f + static_cast<float>(t);  // NaN behind each
        d_gate[t] = 1.0f;
      }
      route_outputs out(5, 1, 1), other(5, 1, 1);
      auto bytes = route_scratch_for({}, 5, 1, 1);
      view<float const, 2> const rows(wide.data(), {{5, 1}}, {{4, 1}});
      view<float, 2> const to(d_wide.data(), {{5, 1}}, {{4, 1}});
      route_gradients<> d;
      d.gate = matrix(std::as_const(d_gate), 5, 1);
      ASSERT_TRUE(route(on_host{}, rows, out.all(), arena<>(bytes), o).ok());
      ASSERT_TRUE(route_backward(on_host{}, rows, out.plain(), d, to, arena<>(bytes), o).ok());
      ASSERT_TRUE(run_route<float>({}, tight, other, o).ok());
      ASSERT_TRUE(backward_of(tight, other, d_gate, d_tight, o).ok());
      EXPECT_TRUE(same_routing(out, other)) << to_string(score);
      EXPECT_TRUE(all_finite(out.gate) && all_finite(out.importance));
      for (std::size_t t = 0; t < 5; ++t) {
        EXPECT_EQ(out.expert[t], 0);
        EXPECT_EQ(d_wide[4 * t], d_tight[t]);
        if (gates != gate_kind::raw) { EXPECT_EQ(out.gate[t], 1.0f); }
        for (std::size_t i = 1; i < 4; ++i) EXPECT_TRUE(std::isnan(d_wide[4 * t + i]));
      }
    }
  }
}

// The bias has moved on when backward comes: it has no part in the gradient.
TEST(RouteField, Battery44_ABiasStepBetweenForwardAndBackward) {
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      route_options const o{.score = score, .gates = gates, .scale = 2.5f};
      auto const logits = normal_values<float>(30 * 12, 41, 1.5);
      auto const d_gate = normal_values<float>(90, 42);
      auto bias = normal_values<float>(12, 43, 0.5);
      route_outputs out(30, 12, 3);
      guarded<float> before(360), after(360), without(360);
      ASSERT_TRUE(run_route<float>({}, logits, out, o, {.choice_bias = bias}).ok());
      ASSERT_TRUE(backward_of(logits, out, d_gate, before, o, {.choice_bias = bias}).ok());
      guarded<index_t> const counts(std::vector<index_t>(out.counts.begin(), out.counts.end()));
      ASSERT_TRUE(sign_step(on_host{}, counts, bias, 10.0f).ok());
      ASSERT_TRUE(backward_of(logits, out, d_gate, after, o, {.choice_bias = bias}).ok());
      ASSERT_TRUE(backward_of(logits, out, d_gate, without, o).ok());
      EXPECT_TRUE(same_bits(before, after) && same_bits(before, without)) << to_string(score);
      route_outputs again(30, 12, 3);
      ASSERT_TRUE(run_route<float>({}, logits, again, o, {.choice_bias = bias}).ok());
      EXPECT_FALSE(same_bits(out.expert, again.expert)) << "the step moved no choice";
    }
  }
}

// A bias of about 7 beside scores of bf16 logits, with differences that bf16 would round away.
TEST(RouteField, Battery44_AFloatBiasNearSevenOfBf16Logits) {
  for (index_t groups : {1, 8}) {
    route_options const o{.score = score_kind::sigmoid,
                          .gates = gate_kind::renormalized,
                          .groups = groups,
                          .top_groups = groups == 1 ? 1 : 3,
                          .group_by = group_rule::sum_of_two_best};
    auto const logits = normal_values<bf16>(40 * 64, 71, 0.02);
    auto bias = normal_values<float>(64, 72, 0.003);
    guarded<float> rounded(64);
    for (std::size_t e = 0; e < 64; ++e) {
      bias[e] += 7.0f;
      rounded[e] = to_float(from_float<bf16>(bias[e]));
      ASSERT_EQ(rounded[e], 7.0f);
    }
    for (on_host const& on : host_configs()) {
      route_outputs out(40, 64, 6), other(40, 64, 6);
      ASSERT_TRUE(run_route<bf16>(on, logits, out, o, {.choice_bias = bias}).ok());
      EXPECT_TRUE(agrees_with_oracle(logits, out, o, in_double(bias))) << name_of(on);
      ASSERT_TRUE(run_route<bf16>(on, logits, other, o, {.choice_bias = rounded}).ok());
      EXPECT_FALSE(same_bits(out.expert, other.expert)) << "the rounded bias would do";
    }
  }
}

// One step of float apart, and equal scores: the order of the biases, to the last bit.
TEST(RouteField, Battery44_BiasesOneStepOfFloatApart) {
  guarded<float> bias(16);
  float next = 7.0f;
  for (std::size_t i = 0; i < 16; ++i) {
    bias[i * 5 % 16] = next;
    next = std::nextafter(next, 8.0f);
  }
  guarded<bf16> logits(3 * 16);
  for (bf16& z : logits) z = from_float<bf16>(0.0f);
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::logits}) {
    for (on_host const& on : host_configs()) {
      route_outputs out(3, 16, 4);
      ASSERT_TRUE(run_route<bf16>(on, logits, out, {.score = score}, {.choice_bias = bias}).ok());
      for (std::size_t i = 0; i < 12; ++i) {
        EXPECT_EQ(out.expert[i], static_cast<index_t>((15 - i % 4) * 5 % 16)) << name_of(on);
      }
    }
  }
}

}  // namespace route_field_test
}  // namespace shunt::test
