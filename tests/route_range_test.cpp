// Renormalized gates and shares of the load over the whole range of logits: scores that no float
// holds have quotients that one does. Against the oracle, which takes logarithms in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"
#include "support/route_levels.hpp"

namespace shunt::test {
namespace route_range_test {

constexpr offset_t experts = 24, top_k = 4;
struct range_case {
  std::string name;
  route_options options;
  bool biased = false, forced = false;
};

std::vector<range_case> cases() {
  std::vector<range_case> all;
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (float epsilon : {0.0f, 1e-37f, 1e-20f, 1e-6f, 0.125f}) {
      route_options o{.score = score, .gates = gate_kind::renormalized, .epsilon = epsilon};
      std::string const name = to_string(score) + (" epsilon " + std::to_string(epsilon));
      all.push_back({name, o});
      o.scale = 2.5f;
      all.push_back({name + ", biased", o, true});
      o.groups = 6, o.top_groups = 3, o.group_by = group_rule::sum_of_two_best;
      all.push_back({name + ", groups", o, true});
      o.groups = o.top_groups = 1, o.scale = 1e-3f;
      all.push_back({name + ", forced", o, false, true});
    }
  }
  return all;
}

/// One call each way, and what it was given.
struct range_run {
  offset_t tokens;
  guarded<float> logits, bias, d_gate, d_importance, d_logits;
  guarded<index_t> ids;
  route_outputs out;
  range_case what;

  range_run(std::vector<float> const& z, range_case const& c)
      : tokens(static_cast<offset_t>(z.size()) / experts),
        logits(z),
        bias(normal_values<float>(at(experts), 12, 0.5)),
        d_gate(normal_values<float>(at(tokens * top_k), 13)),
        d_importance(normal_values<float>(at(experts), 14)),
        d_logits(z.size()),
        ids(at(tokens * top_k)),
        out(tokens, experts, top_k),
        what(c) {
    for (offset_t t = 0; t < tokens; ++t) {
      for (offset_t k = 0; k < top_k; ++k) {
        ids[at(t * top_k + k)] = static_cast<index_t>((t + 5 * k) % experts);
      }
    }
  }
  status run(on_host const& on, bool load) {
    route_inputs<> with;
    if (what.biased) with.choice_bias = bias;
    if (what.forced) with.ids = matrix(std::as_const(ids), tokens, top_k);
    if (status bad = run_route<float>(on, logits, out, what.options, with); !bad.ok()) return bad;
    route_gradients<> d;
    d.gate = matrix(std::as_const(d_gate), tokens, top_k);
    if (load) d.importance = d_importance;
    auto bytes = route_scratch_for(on, tokens, experts, top_k);
    return route_backward(on, matrix(std::as_const(logits), tokens, experts), with, out.plain(), d,
                          matrix(d_logits, tokens, experts), arena<>(bytes), what.options);
  }
  oracle_row row(offset_t t) const {
    return oracle_scores(row_of(in_double(logits), t, experts), what.options);
  }
};

/// Roundings of a result whose exp was taken of a difference of logits: `few`, and the difference's own.
double lost(double few, double far) { return few + 2.0 * std::min(std::abs(far), 1e3); }

/// The largest of the chosen logits, or of all: what scores are taken over.
double pivot(oracle_row const& r, std::vector<int> const& ids) {
  double top = masked;
  for (int id : ids) top = std::max(top, r.z[at(id)]);
  return top;
}

/// Each gate within a few roundings of itself, however small, and a few of the smallest float.
void expect_gates(range_run const& q, std::string const& what) {
  std::vector<expectation> expected;
  for (offset_t t = 0; t < q.tokens; ++t) {
    oracle_row const r = q.row(t);
    auto const ids = ids_of(q.out.expert, t, top_k);
    auto const gate = oracle_gates(r, ids, q.what.options);
    double const top = pivot(r, ids), scale = static_cast<double>(q.what.options.scale);
    for (std::size_t k = 0; k < ids.size(); ++k) {
      double const far = q.what.options.score == score_kind::softmax
                             ? r.peak - r.z[at(ids[k])]
                             : std::min(top, 0.0) - std::min(r.z[at(ids[k])], 0.0);
      expected.push_back({gate[k], gate[k] * lost(12.0, far) + 0x1p-122 * std::max(scale, 1.0)});
    }
  }
  EXPECT_TRUE(not_flat(expected));
  EXPECT_TRUE(close(q.out.gate, expected, 1.0)) << what;
}

void expect_gradients(range_run const& q, bool load, std::string const& what) {
  std::vector<expectation> expected;
  std::vector<double> d_load;
  for (offset_t e = 0; load && e < experts; ++e) {
    d_load.push_back(static_cast<double>(q.d_importance[at(e)]));
  }
  for (offset_t t = 0; t < q.tokens; ++t) {
    oracle_row const r = q.row(t);
    auto const ids = ids_of(q.out.expert, t, top_k);
    std::vector<double> d_gate;
    for (offset_t k = 0; k < top_k; ++k) {
      d_gate.push_back(static_cast<double>(q.d_gate[at(t * top_k + k)]));
    }
    auto g = oracle_backward(r, ids, d_gate, d_load, 0.0, q.what.options);
    double const chosen = pivot(r, ids), top = load ? r.peak : chosen;
    bool const softmax = q.what.options.score == score_kind::softmax;
    for (std::size_t e = 0; e < g.size(); ++e) {
      // A softmax's epsilon carries what the chosen lose, twice, to every logit.
      double const z = r.z[e], far = softmax ? r.peak - z + 2.0 * (r.peak - chosen)
                                             : std::min(top, 0.0) - std::min(z, 0.0);
      g[e].magnitude = g[e].magnitude * lost(24.0, far) + 0x1p-120;
    }
    expected.insert(expected.end(), g.begin(), g.end());
  }
  EXPECT_TRUE(not_flat(expected));
  EXPECT_TRUE(close(q.d_logits, expected, 1.0)) << what;
}

// At -100 gates were 1 % off, from -96 on the gradient NaN, from -92 on infinite.
TEST(RouteRange, Battery33_RenormalizedGatesAndGradientsOfAnyLogits) {
  for (range_case const& c : cases()) {
    range_run q(logits_of_all_levels(experts), c);
    for (bool load : {false, true}) {
      status const done = q.run({.threads = 2}, load);
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(all_finite(q.out.gate)) << c.name;
      EXPECT_TRUE(all_finite(q.d_logits)) << c.name;
      expect_gates(q, c.name);
      expect_gradients(q, load, c.name + (load ? " with the load" : ""));
    }
  }
}

// Probabilities of the load are scores over their sum: the same quotient, of all experts.
TEST(RouteRange, Battery33_SharesOfTheLoadOfAnyLogits) {
  std::vector<float> const all = logits_of_all_levels(experts);
  for (range_case const& c : cases()) {
    for (std::size_t first = 0; first + at(experts) <= all.size(); first += at(experts)) {
      auto const from = all.begin() + static_cast<std::ptrdiff_t>(first);
      range_run q(std::vector<float>(from, from + experts), c);
      ASSERT_TRUE(q.run({.threads = 1}, false).ok());
      oracle_row const r = q.row(0);
      std::vector<expectation> expected;
      for (std::size_t e = 0; e < r.probability.size(); ++e) {
        double const p = r.probability[e], far = r.peak - r.z[e];
        expected.push_back({p, p * lost(70.0, far) + 0x1p-122});
      }
      ASSERT_TRUE(close(q.out.importance, expected, 1.0)) << c.name << " at " << all[first];
    }
  }
}

// The formula's own numbers, by hand: equal logits share evenly, at any depth.
TEST(RouteRange, Battery33_EqualLogitsShareEvenlyAtAnyDepth) {
  for (score_kind score : {score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (float level : logit_levels) {
      if (level > 0.0f) continue;
      range_run q(std::vector<float>(at(experts), level),
                  {"", {.score = score, .gates = gate_kind::renormalized}});
      for (std::size_t k = 0; k < at(top_k); ++k) q.d_gate[k] = k == 0 ? 1.0f : 0.0f;
      ASSERT_TRUE(q.run({.threads = 1}, false).ok());
      double const s = 1.0 / (1.0 + std::exp(-static_cast<double>(level)));
      double const softplus = std::log1p(std::exp(static_cast<double>(level)));
      double const slope = score == score_kind::sigmoid ? 1.0 - s
                           : level < -40.0f             ? 0.5
                                                        : 0.5 * s / softplus;
      for (std::size_t k = 0; k < at(top_k); ++k) EXPECT_EQ(q.out.gate[k], 0.25f) << level;
      for (std::size_t e = 0; e < at(experts); ++e) {
        double const d = e == 0 ? 0.1875 : e < at(top_k) ? -0.0625 : 0.0;
        EXPECT_NEAR(q.d_logits[e], d * slope, 1e-6) << level << " expert " << e;
      }
    }
  }
}

TEST(RouteRange, Battery33_MasksLeaveNothingOrTheRest) {
  float const inf = std::numeric_limits<float>::infinity();
  for (range_case const& c : cases()) {
    std::vector<float> z(at(4 * experts), -inf);
    z[at(experts) + 5] = -1e4f;                                 // one left
    z[at(2 * experts) + 0] = z[at(2 * experts) + 10] = -98.5f;  // two, both of them forced
    for (std::size_t e = 0; e < 24; ++e) z[at(3 * experts) + e] = e < 12 ? -inf : -120.0f;
    range_run q(z, c);
    for (offset_t t = 0; t < 4; ++t) {
      for (offset_t k = 0; k < top_k; ++k) q.ids[at(t * top_k + k)] = static_cast<index_t>(5 * k);
    }
    ASSERT_TRUE(q.run({.threads = 1}, true).ok());
    EXPECT_TRUE(all_finite(q.out.gate)) << c.name;
    EXPECT_TRUE(all_finite(q.d_logits)) << c.name;
    for (offset_t t = 0; t < 4; ++t) {
      oracle_row const r = q.row(t);
      auto const gate = oracle_gates(r, ids_of(q.out.expert, t, top_k), c.options);
      for (std::size_t k = 0; k < at(top_k); ++k) {
        EXPECT_NEAR(q.out.gate[at(t * top_k) + k], gate[k], 1e-5 * gate[k] + 1e-44)
            << c.name << " token " << t;
      }
      for (std::size_t e = 0; e < at(experts); ++e) {
        if (std::isinf(z[at(t * experts) + e])) {
          EXPECT_EQ(q.d_logits[at(t * experts) + e], 0.0f) << c.name << " token " << t;
        }
      }
    }
  }
}

TEST(RouteRange, AnyInstructionSetThreadCountAndBatchGiveTheSameBits) {
  std::vector<float> const z = logits_of_all_levels(experts);
  for (range_case const& c : cases()) {
    range_run first(z, c);
    ASSERT_TRUE(first.run(host_configs()[0], true).ok());
    for (on_host const& on : host_configs()) {
      range_run q(z, c);
      ASSERT_TRUE(q.run(on, true).ok());
      EXPECT_TRUE(same_routing(first.out, q.out)) << c.name << " " << name_of(on);
      EXPECT_TRUE(same_bits(first.d_logits, q.d_logits)) << c.name << " " << name_of(on);
    }
    range_run alone(std::vector<float>(z.begin(), z.begin() + 7 * experts), c);
    ASSERT_TRUE(alone.run({}, true).ok());
    for (std::size_t i = 0; i < alone.out.gate.size(); ++i) {
      EXPECT_EQ(alone.out.gate[i], first.out.gate[i]) << c.name;
    }
    for (std::size_t i = 0; i < alone.d_logits.size(); ++i) {
      EXPECT_EQ(alone.d_logits[i], first.d_logits[i]) << c.name;
    }
  }
}

}  // namespace route_range_test
}  // namespace shunt::test
