// The router backward: against the oracle and against central differences in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_backward_test {

struct case_options {
  route_options options;
  bool bias = false;
};
std::vector<case_options> cases() {
  std::vector<case_options> all;
  for (score_kind score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      if (score == score_kind::logits && gates == gate_kind::renormalized) continue;
      all.push_back({{.score = score, .gates = gates, .scale = 2.5f}, false});
      all.push_back({{.score = score, .gates = gates, .scale = 0.5f, .epsilon = 0.125f}, true});
    }
  }
  all.push_back({{.gates = gate_kind::renormalized, .groups = 4, .top_groups = 2}, false});
  all.push_back({{.jitter = 0.2f, .seed = 5, .first_token = 77}, false});
  return all;
}

/// Gradients of everything at once: gates, importance (of all and of each sequence) and z.
struct upstream {
  guarded<float> gate, importance, sequence, z;
  offset_t tokens, experts, top_k, sequences;
  upstream(offset_t t, offset_t e, offset_t k, offset_t n, std::uint64_t seed)
      : gate(normal_values<float>(at(t * k), seed)),
        importance(normal_values<float>(at(e), seed + 1)),
        sequence(normal_values<float>(at(n * e), seed + 2)),
        z(normal_values<float>(at(t), seed + 3)),
        tokens(t),
        experts(e),
        top_k(k),
        sequences(n) {}
  route_gradients<> gate_only() const {
    route_gradients<> d;
    d.gate = matrix(gate, tokens, top_k);
    return d;
  }
  route_gradients<> all() const {
    route_gradients<> d = gate_only();
    d.importance = importance;
    d.sequence_importance = matrix(sequence, sequences, experts);
    d.z = z;
    return d;
  }
  std::vector<double> load_of(offset_t token) const {
    offset_t const n = token / (tokens / sequences);
    std::vector<double> d(at(experts));
    for (offset_t e = 0; e < experts; ++e) {
      d[at(e)] = static_cast<double>(importance[at(e)] + sequence[at(n * experts + e)]);
    }
    return d;
  }
};

template <class T, class G>
status run_backward(on_host const& on, guarded<T> const& logits, route_outputs& out,
                    route_gradients<> const& d, guarded<G>& d_logits, route_options const& o,
                    route_inputs<> const& with = {}) {
  auto bytes = route_scratch_for(on, out.tokens, out.experts, out.top_k, out.sequences);
  return route_backward(on, matrix(logits, out.tokens, out.experts), with, out.plain(), d,
                        matrix(d_logits, out.tokens, out.experts), arena<>(bytes), o);
}

template <class T>
void against_oracle(offset_t tokens, offset_t experts, offset_t top_k, bool losses) {
  auto const logits = normal_values<T>(at(tokens * experts), 31, 2.0);
  auto const bias_float = normal_values<float>(at(experts), 32, 0.2);
  upstream const d(tokens, experts, top_k, 1, 33);
  for (auto const& c : cases()) {
    if (experts % c.options.groups != 0 || experts < 2 * top_k) continue;
    SCOPED_TRACE(testing::Message()
                 << to_string(c.options.score) << " gates " << static_cast<int>(c.options.gates)
                 << " E" << experts << " K" << top_k << " losses " << losses);
    route_inputs<> with;
    if (c.bias) with.choice_bias = bias_float;
    route_outputs out(tokens, experts, top_k);
    ASSERT_TRUE(run_route<T>({.threads = 2}, logits, out, c.options, with).ok());
    guarded<float> d_logits(logits.size());
    status const s = run_backward<T>({.threads = 2}, logits, out, losses ? d.all() : d.gate_only(),
                                     d_logits, c.options, with);
    ASSERT_TRUE(s.ok()) << s.message();
    auto const z = in_double(logits);
    std::vector<expectation> expected;
    for (offset_t t = 0; t < tokens; ++t) {
      auto const row = jittered(row_of(z, t, experts), c.options, t);
      auto const r = oracle_scores(row, c.options);
      std::vector<double> d_gate;
      for (offset_t k = 0; k < top_k; ++k) {
        d_gate.push_back(static_cast<double>(d.gate[at(t * top_k + k)]));
      }
      auto g = oracle_backward(r, ids_of(out.expert, t, top_k), d_gate,
                               losses ? d.load_of(t) : std::vector<double>{},
                               losses ? static_cast<double>(d.z[at(t)]) : 0.0, c.options);
      for (offset_t e = 0; e < experts; ++e) {
        double const j = static_cast<double>(c.options.jitter);
        double const factor = j > 0.0 ? 1.0 - j + 2.0 * j * noise_at(c.options, t, e) : 1.0;
        g[at(e)].value *= factor;
        g[at(e)].magnitude *= 1.0 + std::min(r.peak - row[at(e)], 100.0) / 8.0;
      }
      expected.insert(expected.end(), g.begin(), g.end());
    }
    // The one gate of a renormalized choice of one is 1 whatever the logits are.
    bool const constant = top_k == 1 && !losses && c.options.gates != gate_kind::raw;
    if (!constant) { ASSERT_TRUE(not_flat(expected)); }
    ASSERT_TRUE(close(d_logits, expected, 24.0));
  }
}

TEST(RouteBackward, AgreesWithTheOracle) {
  for (offset_t experts : {4, 60, 129, 256}) {
    for (offset_t top_k : {1, 2, 8, 22}) {
      if (2 * top_k > experts) continue;
      against_oracle<float>(7, experts, top_k, false);
      against_oracle<float>(7, experts, top_k, true);
    }
  }
  against_oracle<float>(3, 1025, 40, true);
  against_oracle<float>(33, 12, 3, true);
}

TEST(RouteBackward, ReadsEveryStorageType) {
  against_oracle<bf16>(9, 60, 4, true);
  against_oracle<fp16>(9, 60, 4, true);
}

// The oracle's own gradient, by differences of its own forward: the choice stays, as it must.
TEST(RouteBackward, TheOracleAgreesWithCentralDifferences) {
  rng d(41);
  for (auto const& c : cases()) {
    std::size_t const n = 12;
    std::vector<double> z(n), d_load(n), d_gate(3);
    for (double& x : z) x = 1.5 * d.normal();
    for (double& x : d_load) x = d.normal();
    for (double& x : d_gate) x = d.normal();
    std::vector<int> const ids{7, 2, 11};
    double const d_z = d.normal();
    auto const loss = [&](std::vector<double> const& at_z) {
      auto const r = oracle_scores(at_z, c.options);
      auto const gate = oracle_gates(r, ids, c.options);
      double sum = d_z * r.lse;
      for (std::size_t k = 0; k < 3; ++k) sum += d_gate[k] * gate[k];
      for (std::size_t e = 0; e < n; ++e) sum += d_load[e] * r.probability[e];
      return sum;
    };
    auto const gradient =
        oracle_backward(oracle_scores(z, c.options), ids, d_gate, d_load, d_z, c.options);
    for (std::size_t e = 0; e < n; ++e) {
      double const h = 1e-5;
      auto up = z, down = z;
      up[e] += h;
      down[e] -= h;
      EXPECT_NEAR(gradient[e].value, (loss(up) - loss(down)) / (2.0 * h),
                  1e-8 * (1.0 + gradient[e].magnitude))
          << to_string(c.options.score) << " gates " << static_cast<int>(c.options.gates);
    }
  }
}

// Softmax, top-k, renormalize is top-k, softmax of the chosen: backward as well.
TEST(RouteBackward, Battery14_RenormalizedGatesReachTheChosenLogitsOnly) {
  auto const logits = normal_values<float>(20 * 30, 51, 2.0);
  upstream const d(20, 30, 4, 1, 52);
  route_options const a{.gates = gate_kind::renormalized};
  route_options const b{.score = score_kind::logits, .gates = gate_kind::softmax_chosen};
  route_outputs out(20, 30, 4), other(20, 30, 4);
  guarded<float> da(600), db(600), raw(600);
  ASSERT_TRUE(run_route<float>({}, logits, out, a).ok());
  ASSERT_TRUE(run_route<float>({}, logits, other, b).ok());
  EXPECT_TRUE(same_bits(out.gate, other.gate));
  ASSERT_TRUE(run_backward<float>({}, logits, out, d.gate_only(), da, a).ok());
  ASSERT_TRUE(run_backward<float>({}, logits, other, d.gate_only(), db, b).ok());
  ASSERT_TRUE(run_backward<float>({}, logits, out, d.gate_only(), raw, {}).ok());
  EXPECT_TRUE(same_bits(da, db));
  for (offset_t t = 0; t < 20; ++t) {
    auto const ids = ids_of(out.expert, t, 4);
    for (int e = 0; e < 30; ++e) {
      bool const chosen = std::find(ids.begin(), ids.end(), e) != ids.end();
      EXPECT_EQ(da[at(t * 30 + e)] != 0.0f, chosen);
      EXPECT_NE(raw[at(t * 30 + e)], 0.0f) << "a raw gate moves every logit";
    }
  }
}

TEST(RouteBackward, EmptySlotsMasksAndPaddingGetNothing) {
  float const inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  auto logits = normal_values<float>(6 * 9, 61, 2.0);
  for (std::size_t e = 0; e < 9; ++e) {
    logits[9 + e] = nan;                   // a token without a number
    if (e != 4) logits[18 + e] = -inf;     // one expert alive, top_k 3
    if (e % 2 == 0) logits[27 + e] = nan;  // some numbers
  }
  guarded<std::uint8_t> const valid(std::vector<std::uint8_t>{1, 1, 1, 1, 0, 1});
  upstream d(6, 9, 3, 1, 62);
  for (std::size_t k = 0; k < 3; ++k) d.gate[12 + k] = nan;  // of padding: must not be read
  for (auto const& c : cases()) {
    if (c.options.groups > 1) continue;
    route_outputs out(6, 9, 3);
    guarded<float> d_logits(54);
    ASSERT_TRUE(run_route<float>({}, logits, out, c.options, {.valid = valid}).ok());
    out.expert[0] = -1;  // a slot that another stage took away: its gradient is not read
    d.gate[0] = nan;
    ASSERT_TRUE(
        run_backward<float>({}, logits, out, d.all(), d_logits, c.options, {.valid = valid}).ok());
    EXPECT_TRUE(all_finite(d_logits));
    for (std::size_t e = 0; e < 9; ++e) {
      EXPECT_EQ(d_logits[9 + e], 0.0f);
      EXPECT_EQ(d_logits[36 + e], 0.0f);
      if (e != 4) { EXPECT_EQ(d_logits[18 + e], 0.0f); }
      if (e % 2 == 0) { EXPECT_EQ(d_logits[27 + e], 0.0f); }
    }
  }
}

// GShard: the first gate's share was taken against the second expert, dropped or not.
TEST(RouteBackward, ADroppedSecondStillTakesItsPartOfTheGradient) {
  route_options const o{.gates = gate_kind::renormalized, .random_second = true, .seed = 3};
  auto const logits = normal_values<float>(50 * 10, 71, 2.0);
  upstream const d(50, 10, 2, 1, 72);
  for (bool biased : {false, true}) {
    auto const bias = normal_values<float>(10, 73, 0.5);
    route_inputs<> with;
    if (biased) with.choice_bias = bias;
    route_outputs out(50, 10, 2), full(50, 10, 2);
    guarded<float> d_logits(500);
    route_options whole = o;
    whole.random_second = false;
    ASSERT_TRUE(run_route<float>({}, logits, out, o, with).ok());
    ASSERT_TRUE(run_route<float>({}, logits, full, whole, with).ok());
    ASSERT_GT(out.count(route_event::second_dropped), 3);
    ASSERT_TRUE(run_backward<float>({}, logits, out, d.gate_only(), d_logits, o, with).ok());
    std::vector<expectation> expected;
    for (offset_t t = 0; t < 50; ++t) {
      bool const dropped = out.expert[at(2 * t + 1)] < 0;
      auto const g = oracle_backward(oracle_scores(row_of(in_double(logits), t, 10), o),
                                     ids_of(full.expert, t, 2),
                                     {static_cast<double>(d.gate[at(2 * t)]),
                                      dropped ? 0.0 : static_cast<double>(d.gate[at(2 * t + 1)])},
                                     {}, 0.0, o);
      expected.insert(expected.end(), g.begin(), g.end());
    }
    EXPECT_TRUE(close(d_logits, expected, 32.0));
  }
}

TEST(RouteBackward, AnyThreadCountAndInstructionSetGiveTheSameBits) {
  for (auto const& c : cases()) {
    for (offset_t experts : {16, 132}) {
      auto const logits = normal_values<float>(at(70 * experts), 81, 2.0);
      upstream const d(70, experts, 5, 2, 82);
      guarded<float> first(logits.size());
      route_outputs out(70, experts, 5, 2);
      ASSERT_TRUE(run_route<float>({}, logits, out, c.options).ok());
      ASSERT_TRUE(
          run_backward<float>(host_configs()[0], logits, out, d.all(), first, c.options).ok());
      EXPECT_TRUE(all_finite(first));
      for (on_host const& on : host_configs()) {
        guarded<float> d_logits(logits.size());
        ASSERT_TRUE(run_backward<float>(on, logits, out, d.all(), d_logits, c.options).ok());
        ASSERT_TRUE(same_bits(first, d_logits)) << name_of(on);
      }
      // Batch invariance: the first tokens alone. And in place, over the logits.
      guarded<float> part(std::vector<float>(logits.begin(), logits.begin() + 4 * experts));
      route_outputs few(4, experts, 5);
      for (std::size_t i = 0; i < few.expert.size(); ++i) few.expert[i] = out.expert[i];
      route_gradients<> d_few = d.gate_only();
      d_few.gate = d_few.gate.slice(0, 4);
      guarded<float> whole(logits.size());
      ASSERT_TRUE(run_backward<float>({}, logits, out, d.gate_only(), whole, c.options).ok());
      ASSERT_TRUE(run_backward<float>({}, part, few, d_few, part, c.options).ok());
      for (std::size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], whole[i]);
    }
  }
}

TEST(RouteBackward, RoundsOnceToTheCallersType) {
  auto const logits = normal_values<float>(5 * 20, 91, 2.0);
  upstream const d(5, 20, 3, 1, 92);
  route_outputs out(5, 20, 3);
  guarded<float> wide(100);
  guarded<bf16> narrow(100);
  guarded<fp16> half(100);
  ASSERT_TRUE(run_route<float>({}, logits, out).ok());
  ASSERT_TRUE(run_backward<float>({}, logits, out, d.all(), wide, {}).ok());
  ASSERT_TRUE(run_backward<float>({}, logits, out, d.all(), narrow, {}).ok());
  ASSERT_TRUE(run_backward<float>({}, logits, out, d.all(), half, {}).ok());
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(narrow[i], from_float<bf16>(wide[i]));
    EXPECT_EQ(half[i], from_float<fp16>(wide[i]));
  }
}

// A score far out in the tail keeps its slope: no 0/0, no lost digits.
TEST(RouteBackward, SlopesInTheTails) {
  guarded<float> const logits(std::vector<float>{-150.0f, -60.0f, -20.0f, 0.0f, 20.0f, 80.0f});
  for (score_kind score : {score_kind::sigmoid, score_kind::sqrt_softplus}) {
    route_options const o{.score = score};
    route_outputs out(1, 6, 6);
    guarded<float> d_gate(6), d_logits(6);
    for (auto& g : d_gate) g = 1.0f;
    route_gradients<> d;
    d.gate = matrix(std::as_const(d_gate), 1, 6);
    ASSERT_TRUE(run_route<float>({}, logits, out, o).ok());
    ASSERT_TRUE(run_backward<float>({}, logits, out, d, d_logits, o).ok());
    for (std::size_t e = 0; e < 6; ++e) {
      double const x = static_cast<double>(logits[e]);
      double const sigmoid = 1.0 / (1.0 + std::exp(-x)),
                   softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
      double const slope = score == score_kind::sigmoid ? sigmoid / (1.0 + std::exp(x))
                                                        : sigmoid / (2.0 * std::sqrt(softplus));
      EXPECT_NEAR(d_logits[e], slope, 1e-6 * slope + 1e-44) << x;
    }
  }
}

}  // namespace route_backward_test
}  // namespace shunt::test
