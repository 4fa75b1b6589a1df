// Losses on the router, the sign-step bias and quantile balancing: values, gradients, gathering.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_balance_test {

struct small_case {
  offset_t tokens = 48, experts = 12, top_k = 3, sequences = 4;
  route_options options;
  guarded<float> logits;
  guarded<std::uint8_t> valid;
  explicit small_case(score_kind score)
      : options{.score = score, .gates = gate_kind::softmax_chosen},
        logits(normal_values<float>(48 * 12, 17, 1.5)),
        valid(48) {
    for (std::size_t t = 0; t < 48; ++t) {
      valid[t] = t % 5 != 2 && t < 36 ? 1 : 0;  // the last sequence is padding all over
      for (std::size_t e = 0; e < 12; ++e) logits[t * 12 + e] += e == 3 ? 1.0f : 0.0f;
    }
  }
  route_outputs forward() const {
    route_outputs out(tokens, experts, top_k, sequences);
    EXPECT_TRUE(run_route<float>({.threads = 2}, logits, out, options, {.valid = valid}).ok());
    return out;
  }
  /// A loss of z in double with the choice held, and its gradient by the library.
  void check(std::function<double(std::vector<double> const&)> const& loss, route_gradients<> d,
             route_outputs& out, double value) const {
    auto const z = in_double(logits);
    EXPECT_NEAR(value, loss(z), 3e-6 * (1.0 + std::abs(value)));
    EXPECT_GT(std::abs(value), 1e-4);
    guarded<float> zero(at(tokens * top_k)), d_logits(logits.size());
    for (auto& g : zero) g = 0.0f;
    d.gate = matrix(std::as_const(zero), tokens, top_k);
    auto bytes = route_scratch_for({}, tokens, experts, top_k, sequences);
    ASSERT_TRUE(route_backward(on_host{}, matrix(logits, tokens, experts), {.valid = valid},
                               out.plain(), d, matrix(d_logits, tokens, experts), arena<>(bytes),
                               options)
                    .ok());
    double largest = 0.0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      double const h = 1e-5;
      auto up = z, down = z;
      up[i] += h;
      down[i] -= h;
      double const expected = (loss(up) - loss(down)) / (2.0 * h);
      EXPECT_NEAR(static_cast<double>(d_logits[i]), expected, 2e-6 * std::abs(expected) + 2e-8);
      largest = std::max(largest, std::abs(expected));
      if (valid[i / 12] == 0) { EXPECT_EQ(d_logits[i], 0.0f); }
    }
    EXPECT_GT(largest, 1e-5) << "the oracle is flat";
  }
  /// coefficient * E * sum f P over tokens [first, last), the choice held.
  double balance(std::vector<double> const& z, route_outputs const& out, offset_t first,
                 offset_t last) const {
    std::vector<double> f(at(experts), 0.0), p(at(experts), 0.0);
    double slots = 0.0, n = 0.0;
    for (offset_t t = first; t < last; ++t) {
      if (valid[at(t)] == 0) continue;
      auto const r = oracle_scores(row_of(z, t, experts), options);
      for (std::size_t e = 0; e < p.size(); ++e) p[e] += r.probability[e];
      for (int id : ids_of(out.expert, t, top_k)) {
        f[at(id)] += 1.0;
        slots += 1.0;
      }
      n += 1.0;
    }
    double sum = 0.0;
    for (std::size_t e = 0; e < p.size() && n > 0.0; ++e) sum += f[e] / slots * p[e] / n;
    return static_cast<double>(experts) * sum;
  }
};

constexpr score_kind scores[] = {score_kind::softmax, score_kind::sigmoid,
                                 score_kind::sqrt_softplus, score_kind::logits};

TEST(RouteLosses, BalanceOverValidTokensOnly) {
  for (score_kind score : scores) {
    small_case const c(score);
    route_outputs out = c.forward();
    guarded<float> loss(1), d(12);
    ASSERT_TRUE(balance_loss(on_host{}, out.all(), loss, d, {.coefficient = 0.5f}).ok());
    route_gradients<> g;
    g.importance = d;
    c.check([&](auto const& z) { return 0.5 * c.balance(z, out, 0, 48); }, g, out,
            static_cast<double>(loss[0]));
  }
}

TEST(RouteLosses, Battery11_CoefficientOnceWhateverTheBatch) {
  // A router in perfect balance has a loss of exactly the coefficient, at any T and E.
  for (offset_t experts : {4, 16, 60}) {
    for (offset_t copies : {1, 5, 40}) {
      offset_t const tokens = experts * copies;
      guarded<float> logits(at(tokens * experts));
      for (auto& z : logits) z = 0.0f;
      for (offset_t t = 0; t < tokens; ++t) logits[at(t * experts + t % experts)] = 2.0f;
      route_outputs out(tokens, experts, 1);
      ASSERT_TRUE(run_route<float>({}, logits, out).ok());
      guarded<float> loss(1), d(at(experts));
      ASSERT_TRUE(balance_loss(on_host{}, out.all(), loss, d, {.coefficient = 0.01f}).ok());
      EXPECT_NEAR(loss[0], 0.01f, 1e-7f);
      for (float x : d) EXPECT_NEAR(x, 0.01 / static_cast<double>(tokens), 1e-8);
    }
  }
}

TEST(RouteLosses, SequencesEachInTurnThenTheirMean) {
  for (score_kind score : scores) {
    small_case const c(score);
    route_outputs out = c.forward();
    guarded<float> loss(1), d(at(4 * 12));
    ASSERT_TRUE(
        sequence_balance_loss(on_host{}, out.all(), loss, matrix(d, 4, 12), {.coefficient = 0.25f})
            .ok());
    route_gradients<> g;
    g.sequence_importance = matrix(std::as_const(d), 4, 12);
    c.check(
        [&](auto const& z) {
          double sum = 0.0;  // three of the four have valid tokens
          for (offset_t n = 0; n < 4; ++n) sum += c.balance(z, out, n * 12, (n + 1) * 12);
          return 0.25 * sum / 3.0;
        },
        g, out, static_cast<double>(loss[0]));
  }
}

TEST(RouteLosses, ZLossIsTheMeanSquareOfLogSumExp) {
  for (score_kind score : scores) {
    small_case const c(score);
    route_outputs out = c.forward();
    guarded<float> loss(1), d(48);
    ASSERT_TRUE(z_loss(on_host{}, out.all(), loss, d, {.coefficient = 0.1f}).ok());
    route_gradients<> g;
    g.z = d;
    c.check(
        [&](auto const& z) {
          double sum = 0.0, n = 0.0;
          for (offset_t t = 0; t < 48; ++t) {
            if (c.valid[at(t)] == 0) continue;
            double const lse = oracle_scores(row_of(z, t, 12), c.options).lse;
            sum += lse * lse;
            n += 1.0;
          }
          return 0.1 * sum / n;
        },
        g, out, static_cast<double>(loss[0]));
  }
}

TEST(RouteLosses, BandIsFlatInsideAndLinearOutside) {
  for (score_kind score : scores) {
    small_case const c(score);
    route_outputs out = c.forward();
    guarded<float> loss(1), d(12);
    // Narrow, so that both sides are left.
    band_options const o{.coefficient = 0.5f, .low = 0.95f, .high = 1.05f};
    ASSERT_TRUE(band_loss(on_host{}, out.all(), loss, d, o).ok());
    route_gradients<> g;
    g.importance = d;
    c.check(
        [&](auto const& z) {
          std::vector<double> p(12, 0.0);
          double n = 0.0, sum = 0.0;
          for (offset_t t = 0; t < 48; ++t) {
            if (c.valid[at(t)] == 0) continue;
            auto const r = oracle_scores(row_of(z, t, 12), c.options);
            for (std::size_t e = 0; e < 12; ++e) p[e] += r.probability[e];
            n += 1.0;
          }
          for (double x : p) {
            double const load = 12.0 * x / n;
            sum += std::max(load - 1.05, 0.0) + std::max(0.95 - load, 0.0);
          }
          return 0.5 * sum;
        },
        g, out, static_cast<double>(loss[0]));
  }
  // Loads of exactly 2, 1, 0.5 and 0.5 shares by counts.
  guarded<index_t> const counts(std::vector<index_t>{8, 4, 2, 2});
  guarded<float> const importance(std::vector<float>{4.0f, 4.0f, 4.0f, 4.0f});
  guarded<index_t> const tokens(std::vector<index_t>{16});
  routing<> load;
  load.counts = {const_cast<index_t*>(counts.data()), {{4}}};
  load.importance = {const_cast<float*>(importance.data()), {{4}}};
  load.tokens = {const_cast<index_t*>(tokens.data()), {{1}}};
  guarded<float> loss(1), d(4);
  ASSERT_TRUE(
      band_loss(on_host{}, load, loss, d, {.coefficient = 1.0f, .load = band_load::counts}).ok());
  EXPECT_FLOAT_EQ(loss[0], 0.5f);
  EXPECT_FLOAT_EQ(d[0], 4.0f / 16.0f);
  for (std::size_t e : {1u, 2u, 3u}) EXPECT_EQ(d[e], 0.0f);
}

TEST(RouteLosses, NoValidTokenIsNoLoss) {
  small_case c(score_kind::softmax);
  for (auto& v : c.valid) v = 0;
  route_outputs out = c.forward();
  guarded<float> loss(1), d(12), d_sequence(48), d_z(48);
  auto const nothing = [](auto const& values) {
    for (float x : values) EXPECT_EQ(x, 0.0f);
  };
  ASSERT_TRUE(balance_loss(on_host{}, out.all(), loss, d).ok());
  nothing(loss), nothing(d);
  ASSERT_TRUE(sequence_balance_loss(on_host{}, out.all(), loss, matrix(d_sequence, 4, 12)).ok());
  nothing(loss), nothing(d_sequence);
  ASSERT_TRUE(z_loss(on_host{}, out.all(), loss, d_z).ok());
  nothing(loss), nothing(d_z);
  ASSERT_TRUE(band_loss(on_host{}, out.all(), loss, d).ok());
  nothing(loss), nothing(d);
}

TEST(RouteLosses, AccumulateAddsAndDoesNotReplace) {
  small_case const c(score_kind::softmax);
  route_outputs out = c.forward();
  guarded<float> loss(1), d(12), both(1), d_both(12), band(1), d_band(12);
  ASSERT_TRUE(balance_loss(on_host{}, out.all(), loss, d).ok());
  ASSERT_TRUE(band_loss(on_host{}, out.all(), band, d_band, {.low = 0.95f, .high = 1.05f}).ok());
  ASSERT_TRUE(balance_loss(on_host{}, out.all(), both, d_both).ok());
  ASSERT_TRUE(band_loss(on_host{}, out.all(), both, d_both,
                        {.low = 0.95f, .high = 1.05f, .accumulate = true})
                  .ok());
  EXPECT_FLOAT_EQ(both[0], loss[0] + band[0]);
  for (std::size_t e = 0; e < 12; ++e) EXPECT_NEAR(d_both[e], d[e] + d_band[e], 1e-9);
}

// Gathered over micro-batches, the counts give the loss of the whole and its gradient to each part.
TEST(RouteLosses, MicroBatchesGatherToTheWhole) {
  auto const logits = normal_values<float>(64 * 10, 19, 1.5);
  route_outputs whole(64, 10, 2), part(32, 10, 2);
  ASSERT_TRUE(run_route<float>({}, logits, whole).ok());
  for (int i = 0; i < 2; ++i) {
    guarded<float> const half(
        std::vector<float>(logits.begin() + i * 320, logits.begin() + (i + 1) * 320));
    ASSERT_TRUE(run_route<float>({}, half, part, {.accumulate = i == 1}).ok());
  }
  guarded<float> loss(1), d(10), loss_parts(1), d_parts(10);
  ASSERT_TRUE(balance_loss(on_host{}, whole.all(), loss, d).ok());
  ASSERT_TRUE(balance_loss(on_host{}, part.all(), loss_parts, d_parts).ok());
  EXPECT_EQ(loss[0], loss_parts[0]);
  EXPECT_TRUE(same_bits(d, d_parts));
}

TEST(RouteBias, SignStepMovesTowardsTheMeanExactly) {
  guarded<index_t> const counts(std::vector<index_t>{5, 3, 4, 0, 8, 4});  // mean 4
  guarded<float> bias(std::vector<float>{0.0f, 0.5f, 1.0f, -1.0f, 0.25f, 0.0f});
  ASSERT_TRUE(sign_step(on_host{}, counts, bias, 0.125f).ok());
  std::vector<float> const expected{-0.125f, 0.625f, 1.0f, -0.875f, 0.125f, 0.0f};
  for (std::size_t e = 0; e < 6; ++e) EXPECT_EQ(bias[e], expected[e]);
}

TEST(RouteBias, SignStepHoldsAtCountsThatFillTheirType) {
  guarded<index_t> const counts(std::vector<index_t>{2147483647, 2147483646, 2147483647});
  guarded<float> bias(3);
  for (auto& b : bias) b = 0.0f;
  ASSERT_TRUE(sign_step(on_host{}, counts, bias, 1.0f).ok());
  EXPECT_EQ(bias[0], -1.0f);
  EXPECT_EQ(bias[1], 1.0f);
  EXPECT_EQ(bias[2], -1.0f);
}

/// The exact small variant: the cutoff of each token from all keys, the quantile from all entries.
std::vector<double> exact_quantiles(guarded<float> const& logits, std::vector<double> const& bias,
                                    offset_t tokens, offset_t top_k) {
  offset_t const experts = static_cast<offset_t>(bias.size());
  std::vector<std::vector<double>> required(at(experts));
  for (offset_t t = 0; t < tokens; ++t) {
    auto const r =
        oracle_scores(row_of(in_double(logits), t, experts), {.score = score_kind::sigmoid});
    std::vector<double> key(at(experts));
    for (std::size_t e = 0; e < key.size(); ++e) key[e] = r.score[e] + bias[e];
    std::sort(key.rbegin(), key.rend());
    for (std::size_t e = 0; e < key.size(); ++e) {
      required[e].push_back(key[at(top_k)] - r.score[e]);
    }
  }
  std::vector<double> quantile(at(experts));
  double mean = 0.0;
  for (std::size_t e = 0; e < quantile.size(); ++e) {
    std::sort(required[e].begin(), required[e].end());
    double const place = static_cast<double>(top_k) / static_cast<double>(experts) *
                         static_cast<double>(required[e].size());
    quantile[e] = required[e][static_cast<std::size_t>(std::max(0.0, std::ceil(place) - 1.0))];
    mean += quantile[e] / static_cast<double>(experts);
  }
  for (double& q : quantile) q -= mean;
  return quantile;
}

TEST(RouteBias, QuantileBalancingEvensTheLoad) {
  offset_t const tokens = 2048, experts = 32, top_k = 4;
  auto logits = normal_values<float>(at(tokens * experts), 23, 1.0);
  for (offset_t t = 0; t < tokens; ++t) {
    for (offset_t e = 0; e < experts; ++e) {
      logits[at(t * experts + e)] += 0.1f * static_cast<float>(e) - 1.5f;  // badly skewed
    }
  }
  route_options o{.score = score_kind::sigmoid, .gates = gate_kind::renormalized};
  guarded<float> bias(at(experts));
  for (auto& b : bias) b = 0.0f;
  guarded<index_t> histogram(at(experts * quantile_bins));
  auto const most = [](route_outputs const& out) {
    return *std::max_element(out.counts.begin(), out.counts.end());
  };
  index_t before = 0, after = 0;
  for (int step = 0; step < 4; ++step) {
    route_outputs out(tokens / 2, experts, top_k);
    std::vector<double> const old = in_double(bias);
    double const width = (*std::max_element(old.begin(), old.end()) -
                          *std::min_element(old.begin(), old.end()) + 2.0) /
                         1000.0;
    for (int part = 0; part < 2; ++part) {  // two micro-batches, gathered
      guarded<float> const half(
          std::vector<float>(logits.begin() + part * tokens / 2 * experts,
                             logits.begin() + (part + 1) * tokens / 2 * experts));
      routing<> wanted = out.all();
      wanted.histogram = matrix(histogram, experts, quantile_bins);
      o.accumulate = part == 1;
      auto bytes = route_scratch_for({}, tokens / 2, experts, top_k);
      ASSERT_TRUE(route(on_host{.threads = 2}, matrix(half, tokens / 2, experts),
                        {.choice_bias = bias}, wanted, arena<>(bytes), o)
                      .ok());
    }
    std::int64_t entries = 0;
    for (index_t n : histogram) entries += n;
    ASSERT_EQ(entries, tokens * experts);
    auto const expected = exact_quantiles(logits, old, tokens, top_k);
    ASSERT_TRUE(
        quantile_step(on_host{}, matrix(std::as_const(histogram), experts, quantile_bins), bias, 4)
            .ok());
    for (std::size_t e = 0; e < expected.size(); ++e) {
      EXPECT_NEAR(bias[e], expected[e], 2.0 * width) << "step " << step;
    }
    EXPECT_NEAR(std::accumulate(bias.begin(), bias.end(), 0.0), 0.0, 1e-5);
    if (step == 0) before = most(out);
    after = most(out);
  }
  index_t const fair = static_cast<index_t>(tokens * top_k / experts);
  EXPECT_GT(before, 2 * fair);
  EXPECT_LT(after, fair + fair / 8);
}

TEST(RouteBias, QuantileInsideItsBinByHand) {
  // Two experts, K = 1, bias 0 and 1: range [-1, 2], three bins of width 1.
  guarded<index_t> const histogram(std::vector<index_t>{0, 4, 0, 2, 0, 6});
  guarded<float> bias(std::vector<float>{0.0f, 1.0f});
  ASSERT_TRUE(quantile_step(on_host{}, matrix(histogram, 2, 3), bias, 1).ok());
  // Half of 4 lies in the middle of bin [0,1]: 0.5. Half of 8 is 4: 2 below, 2 of 6 into [1,2].
  double const a = 0.5, b = 1.0 + 2.0 / 6.0, mean = (a + b) / 2.0;
  EXPECT_NEAR(bias[0], a - mean, 1e-6);
  EXPECT_NEAR(bias[1], b - mean, 1e-6);
  guarded<index_t> const none(std::vector<index_t>{0, 0, 0, 0, 0, 0});
  guarded<float> kept(std::vector<float>{-0.5f, 0.5f});
  ASSERT_TRUE(quantile_step(on_host{}, matrix(none, 2, 3), kept, 1).ok());
  EXPECT_EQ(kept[0], -0.5f);
  EXPECT_EQ(kept[1], 0.5f);
}

}  // namespace route_balance_test
}  // namespace shunt::test
