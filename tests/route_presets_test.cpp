// Every published layer: its preset against an oracle, at its own size, forward and backward.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_presets_test {

TEST(RoutePresets, NamesAreUniqueAndFound) {
  std::set<std::string> names;
  for (preset const* p : presets::all) {
    EXPECT_TRUE(names.insert(p->name).second) << p->name;
    EXPECT_EQ(presets::find(p->name), p);
    EXPECT_GT(p->sizes.hidden, 0);
    EXPECT_GT(p->sizes.intermediate, 0);
  }
  EXPECT_EQ(presets::find("no such model"), nullptr);
}

TEST(RoutePresets, EachAgreesWithTheOracleForwardAndBackward) {
  for (preset const* p : presets::all) {
    if (p->choice == choice_kind::expert_choice) continue;
    SCOPED_TRACE(p->name);
    offset_t const tokens = 11, experts = p->sizes.experts, top_k = p->sizes.top_k;
    auto const logits = normal_values<bf16>(at(tokens * experts), 5, 1.5);
    guarded<float> const bias = normal_values<float>(at(experts), 6, 0.1);
    route_options o = p->route;
    o.random_second = false;  // its draw has tests of its own
    route_inputs<> with;
    if (p->choice_bias) with.choice_bias = bias;
    route_outputs out(tokens, experts, top_k);
    status const s = run_route<bf16>({.threads = 2}, logits, out, o, with);
    ASSERT_TRUE(s.ok()) << s.message();
    ASSERT_TRUE(agrees_with_oracle(logits, out, o,
                                   p->choice_bias ? in_double(bias) : std::vector<double>{}));

    auto const d_gate = normal_values<float>(at(tokens * top_k), 7);
    guarded<float> d_logits(logits.size());
    route_gradients<> d;
    d.gate = matrix(d_gate, tokens, top_k);
    auto bytes = route_scratch_for({}, tokens, experts, top_k);
    ASSERT_TRUE(route_backward(on_host{}, matrix(logits, tokens, experts), with, out.plain(), d,
                               matrix(d_logits, tokens, experts), arena<>(bytes), o)
                    .ok());
    std::vector<expectation> expected;
    for (offset_t t = 0; t < tokens; ++t) {
      std::vector<double> own;
      for (offset_t k = 0; k < top_k; ++k) {
        own.push_back(static_cast<double>(d_gate[at(t * top_k + k)]));
      }
      auto g =
          oracle_backward(oracle_scores(jittered(row_of(in_double(logits), t, experts), o, t), o),
                          ids_of(out.expert, t, top_k), own, {}, 0.0, o);
      double const j = static_cast<double>(o.jitter);
      for (offset_t e = 0; e < experts; ++e) {
        double const factor = j > 0.0 ? 1.0 - j + 2.0 * j * noise_at(o, t, e) : 1.0;
        g[at(e)].value *= factor;
        g[at(e)].magnitude *= 3.0;
      }
      expected.insert(expected.end(), g.begin(), g.end());
    }
    EXPECT_TRUE(close(d_logits, expected, 32.0));
  }
}

/// What a family's own formulas say, written down once more and by themselves.
struct by_hand {
  char const* name;
  std::vector<float> logits, bias;
  std::vector<int> ids;
  std::vector<double> gates;
};

double sigma(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// The preset routes one token as by hand; noise off, and groups as given.
void run_by_hand(preset const& p, by_hand const& c, index_t groups, index_t top_groups) {
  SCOPED_TRACE(c.name);
  route_options o = p.route;
  o.jitter = 0.0f;
  o.groups = groups;
  o.top_groups = top_groups;
  guarded<float> const logits(c.logits), bias(c.bias);
  route_inputs<> with;
  if (!c.bias.empty()) with.choice_bias = bias;
  auto const k = static_cast<offset_t>(c.ids.size());
  route_outputs out(1, static_cast<offset_t>(c.logits.size()), k);
  o.zero_experts = 0;
  status const s = run_route<float>({}, logits, out, o, with);
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(ids_of(out.expert, 0, k), c.ids);
  for (std::size_t i = 0; i < c.gates.size(); ++i) {
    EXPECT_NEAR(out.gate[i], c.gates[i], 1e-6 * (1.0 + c.gates[i]));
  }
}

TEST(RoutePresets, FormulasByHand) {
  double const e1 = std::exp(1.0), e2 = std::exp(2.0), e3 = std::exp(3.0);
  double const all = 1.0 + e1 + e2 + e3;
  std::vector<float> const ramp{0.0f, 1.0f, 2.0f, 3.0f};
  run_by_hand(presets::olmoe_1b_7b, {"softmax, top-k, raw", ramp, {}, {3, 2}, {e3 / all, e2 / all}},
              1, 1);
  run_by_hand(presets::mixtral_8x7b,
              {"renormalized", ramp, {}, {3, 2}, {e3 / (e3 + e2), e2 / (e3 + e2)}}, 1, 1);
  run_by_hand(presets::gpt_oss_20b,
              {"softmax of the chosen", ramp, {}, {3, 2}, {e3 / (e3 + e2), e2 / (e3 + e2)}}, 1, 1);
  run_by_hand(presets::llama4_scout, {"sigmoid of one", ramp, {}, {3}, {sigma(3.0)}}, 1, 1);
  run_by_hand(presets::longcat_flash,
              {"biased choice, six times the softmax",
               ramp,
               {0.9f, 0.0f, 0.0f, 0.0f},
               {0, 3},
               {6.0 / all, 6.0 * e3 / all}},
              1, 1);
  // Groups of two: by their best {1, 5, 3}, so experts 3 and 5 of the groups 1 and 2; times 16.
  std::vector<float> const six{0.0f, 1.0f, 4.0f, 5.0f, 3.0f, 3.5f};
  double six_all = 0.0;
  for (float z : six) six_all += std::exp(static_cast<double>(z));
  run_by_hand(presets::deepseek_v2,
              {"three groups, the best one",
               six,
               {},
               {3, 2},
               {16.0 * std::exp(5.0) / six_all, 16.0 * std::exp(4.0) / six_all}},
              3, 1);
  // Sums of two best with the bias: {s0+s1, s2+s3} = biased towards the first group.
  double const s0 = sigma(0.0), s1 = sigma(1.0);
  run_by_hand(presets::deepseek_v3,
              {"two groups by the sum of their two best",
               ramp,
               {0.9f, 0.9f, 0.0f, 0.0f},
               {1, 0},
               {2.5 * s1 / (s0 + s1), 2.5 * s0 / (s0 + s1)}},
              2, 1);
  double const q2 = std::sqrt(std::log1p(e2)), q3 = std::sqrt(std::log1p(e3));
  run_by_hand(presets::deepseek_v4_flash,
              {"root of softplus",
               ramp,
               {0.0f, 0.0f, 0.0f, 0.0f},
               {3, 2},
               {1.5 * q3 / (q2 + q3), 1.5 * q2 / (q2 + q3)}},
              1, 1);
  double const s2 = sigma(2.0), s3 = sigma(3.0);
  run_by_hand(presets::kimi_k2,
              {"2.827 of the sigmoids",
               ramp,
               {0.0f, 0.0f, 0.0f, 0.0f},
               {3, 2},
               {2.827 * s3 / (s2 + s3), 2.827 * s2 / (s2 + s3)}},
              1, 1);
  run_by_hand(presets::nemotron_3_super,
              {"five times the sigmoids",
               ramp,
               {0.0f, 0.0f, 0.0f, 0.0f},
               {3, 2},
               {5.0 * s3 / (s2 + s3), 5.0 * s2 / (s2 + s3)}},
              1, 1);
}

}  // namespace route_presets_test
}  // namespace shunt::test
