// Expert choice, and the gate projection.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_expert_choice_test {

struct chosen_tokens {
  offset_t tokens, experts, each;
  guarded<index_t> token, counts, coverage;
  guarded<float> gate;
  guarded<std::int64_t> report;
  chosen_tokens(offset_t t, offset_t e, offset_t c)
      : tokens(t),
        experts(e),
        each(c),
        token(at(e * c)),
        counts(at(e)),
        coverage(at(t)),
        gate(at(e * c)),
        report(at(route_events)) {}
  expert_choice<> views() {
    return {.token = matrix(token, experts, each),
            .gate = matrix(gate, experts, each),
            .counts = counts,
            .coverage = coverage,
            .report = report};
  }
};

guarded<std::byte> choice_scratch(on_host const& on, offset_t tokens, offset_t experts) {
  guarded<std::byte> bytes(route_expert_choice_scratch_bytes(
      on, {.tokens = static_cast<index_t>(tokens), .experts = static_cast<index_t>(experts)}));
  std::memset(static_cast<void*>(bytes.data()), 0xff, bytes.size());
  return bytes;
}

/// The gradient of every logit through the gates of the tokens that were chosen.
std::vector<expectation> expected_gradients(std::vector<oracle_row> const& rows,
                                            chosen_tokens const& out, guarded<float> const& d_gate,
                                            guarded<std::uint8_t> const& valid, offset_t experts,
                                            offset_t each, route_options const& o) {
  std::vector<expectation> expected;
  for (offset_t t = 0; t < static_cast<offset_t>(rows.size()); ++t) {
    std::vector<int> ids;
    std::vector<double> d;
    for (offset_t i = 0; i < experts * each; ++i) {
      if (out.token[at(i)] != t) continue;
      ids.push_back(static_cast<int>(i / each));
      d.push_back(static_cast<double>(d_gate[at(i)]));
    }
    auto g = valid[at(t)] != 0 ? oracle_backward(rows[at(t)], ids, d, {}, 0.0, o)
                               : std::vector<expectation>(at(experts));
    for (auto& x : g) x.magnitude *= 3.0;
    expected.insert(expected.end(), g.begin(), g.end());
  }
  return expected;
}

template <class T>
void choose_and_check(offset_t tokens, offset_t experts, offset_t each, score_kind score,
                      bool padded) {
  SCOPED_TRACE(testing::Message() << "T" << tokens << " E" << experts << " C" << each);
  auto const logits = normal_values<T>(at(tokens * experts), 3, 2.0);
  guarded<std::uint8_t> valid(at(tokens));
  for (std::size_t t = 0; t < valid.size(); ++t) valid[t] = padded && t % 4 == 1 ? 0 : 1;
  route_options const o{.score = score, .scale = 1.5f};
  chosen_tokens out(tokens, experts, each), first(tokens, experts, each);
  auto const z = in_double(logits);
  std::vector<oracle_row> rows;
  for (offset_t t = 0; t < tokens; ++t) rows.push_back(oracle_scores(row_of(z, t, experts), o));
  bool begun = false;
  for (on_host const& on : host_configs()) {
    auto bytes = choice_scratch(on, tokens, experts);
    status const s = route_expert_choice(on, matrix(logits, tokens, experts), out.views(),
                                         arena<>(bytes), o, valid);
    ASSERT_TRUE(s.ok()) << s.message();
    if (!begun) {
      first = out;
      begun = true;
    }
    ASSERT_TRUE(same_bits(out.token, first.token) && same_bits(out.gate, first.gate) &&
                same_bits(out.coverage, first.coverage));
  }
  std::vector<index_t> coverage(at(tokens), 0);
  for (offset_t e = 0; e < experts; ++e) {
    std::vector<double> column;
    for (offset_t t = 0; t < tokens; ++t) {
      column.push_back(valid[at(t)] != 0 ? rows[at(t)].score[at(e)] : masked);
    }
    auto best = oracle_best(column, at(std::min(each, tokens)));
    best.erase(std::remove(best.begin(), best.end(), -1), best.end());
    double least = 1e300;
    for (int t : best) least = std::min(least, column[at(t)]);
    ASSERT_EQ(out.counts[at(e)], static_cast<index_t>(best.size()));
    for (offset_t i = 0; i < each; ++i) {
      index_t const t = out.token[at(e * each + i)];
      if (i >= out.counts[at(e)]) {
        ASSERT_EQ(t, -1);
        ASSERT_EQ(out.gate[at(e * each + i)], 0.0f);
        continue;
      }
      ASSERT_GE(t, 0);
      if (i > 0) { ASSERT_GT(t, out.token[at(e * each + i - 1)]) << "tokens ascend"; }
      ASSERT_NE(valid[at(t)], 0);
      ASSERT_GE(column[at(t)], least * (1.0 - 1e-5)) << "not among the best";
      ASSERT_NEAR(out.gate[at(e * each + i)], 1.5 * column[at(t)], 4e-6 * column[at(t)]);
      ++coverage[at(t)];
    }
  }
  for (std::size_t t = 0; t < coverage.size(); ++t) ASSERT_EQ(out.coverage[t], coverage[t]);

  auto const d_gate = normal_values<float>(at(experts * each), 4);
  guarded<float> d_logits(logits.size()), d_first(logits.size());
  begun = false;
  for (on_host const& on : host_configs()) {
    auto bytes = choice_scratch(on, tokens, experts);
    ASSERT_TRUE(route_expert_choice_backward(
                    on, matrix(logits, tokens, experts), out.views(), matrix(d_gate, experts, each),
                    matrix(d_logits, tokens, experts), arena<>(bytes), o, valid)
                    .ok());
    if (!begun) d_first = d_logits;
    begun = true;
    ASSERT_TRUE(same_bits(d_first, d_logits));
  }
  ASSERT_TRUE(
      close(d_logits, expected_gradients(rows, out, d_gate, valid, experts, each, o), 32.0));
}

TEST(ExpertChoice, TakesTheBestTokensOfEachExpert) {
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid}) {
    for (bool padded : {false, true}) {
      for (auto [tokens, experts, each] : {std::array<offset_t, 3>{0, 4, 3},
                                           {1, 4, 1},
                                           {17, 5, 3},
                                           {64, 8, 16},
                                           {257, 60, 9},
                                           {9, 3, 20},
                                           {1100, 4, 550}}) {
        choose_and_check<float>(tokens, experts, each, score, padded);
      }
    }
  }
  choose_and_check<bf16>(40, 6, 7, score_kind::softmax, true);
  choose_and_check<fp16>(40, 6, 7, score_kind::softmax, false);
}

TEST(ExpertChoice, TiesGoToTheLowerTokenAndMasksAreNeverTaken) {
  guarded<float> logits(6 * 2);
  for (auto& z : logits) z = 0.0f;
  logits[2] = -std::numeric_limits<float>::infinity();  // token 1, expert 0
  logits[9] = std::nanf("");                            // token 4, expert 1
  chosen_tokens out(6, 2, 5);
  auto bytes = choice_scratch({}, 6, 2);
  ASSERT_TRUE(route_expert_choice(on_host{}, matrix(std::as_const(logits), 6, 2), out.views(),
                                  arena<>(bytes), {.score = score_kind::sigmoid})
                  .ok());
  EXPECT_EQ(ids_of(out.token, 0, 5), (std::vector<int>{0, 2, 3, 4, 5}));
  EXPECT_EQ(ids_of(out.token, 1, 5), (std::vector<int>{0, 1, 2, 3, 5}));
  EXPECT_EQ(out.report[static_cast<std::size_t>(route_event::non_finite_logits)], 1);
}

template <class X, class W> void project(offset_t tokens, offset_t experts, offset_t hidden) {
  SCOPED_TRACE(testing::Message() << "T" << tokens << " E" << experts << " H" << hidden);
  auto const x = normal_values<X>(at(tokens * hidden), 5);
  auto const w = normal_values<W>(at(experts * hidden), 6, 0.2);
  auto const bias = normal_values<float>(at(experts), 7);
  auto const dl = normal_values<float>(at(tokens * experts), 8);
  auto const xd = in_double(x), wd = in_double(w);
  std::vector<expectation> logits, dx(at(tokens * hidden)), dw(at(experts * hidden)),
      db(at(experts));
  for (offset_t t = 0; t < tokens; ++t) {
    for (offset_t e = 0; e < experts; ++e) {
      expectation sum{static_cast<double>(bias[at(e)]), std::abs(static_cast<double>(bias[at(e)]))};
      double const g = static_cast<double>(dl[at(t * experts + e)]);
      for (offset_t h = 0; h < hidden; ++h) {
        double const a = xd[at(t * hidden + h)], b = wd[at(e * hidden + h)];
        sum.value += a * b;
        sum.magnitude += std::abs(a * b);
        dx[at(t * hidden + h)].value += g * b;
        dx[at(t * hidden + h)].magnitude += std::abs(g * b);
        dw[at(e * hidden + h)].value += g * a;
        dw[at(e * hidden + h)].magnitude += std::abs(g * a);
      }
      db[at(e)].value += g;
      db[at(e)].magnitude += std::abs(g);
      logits.push_back(sum);
    }
  }
  guarded<float> first;
  for (on_host const& on : host_configs()) {
    guarded<float> out(at(tokens * experts)), dwf(dw.size()), dbf(db.size());
    guarded<X> dxf(dx.size());
    status s = gate_logits(on, matrix(x, tokens, hidden), matrix(w, experts, hidden),
                           matrix(out, tokens, experts), bias);
    ASSERT_TRUE(s.ok()) << s.message();
    ASSERT_TRUE(close(out, logits, std::sqrt(static_cast<double>(hidden)) + 4.0));
    if (first.size() == 0) first = out;
    ASSERT_TRUE(same_bits(first, out)) << name_of(on);
    gate_gradients<X> d;
    d.x = matrix(dxf, tokens, hidden);
    d.w = matrix(dwf, experts, hidden);
    d.bias = dbf;
    s = gate_logits_backward(on, matrix(dl, tokens, experts), matrix(x, tokens, hidden),
                             matrix(w, experts, hidden), d);
    ASSERT_TRUE(s.ok()) << s.message();
    ASSERT_TRUE(close(dxf, dx, std::sqrt(static_cast<double>(experts)) + 4.0));
    ASSERT_TRUE(close(dwf, dw, std::sqrt(static_cast<double>(tokens)) + 4.0));
    ASSERT_TRUE(close(dbf, db, std::sqrt(static_cast<double>(tokens)) + 4.0));
    // Again, onto what is there: twice the gradient.
    d.add_weights = true;
    d.x = {};
    ASSERT_TRUE(gate_logits_backward(on, matrix(dl, tokens, experts), matrix(x, tokens, hidden),
                                     matrix(w, experts, hidden), d)
                    .ok());
    auto twice = db;
    for (auto& v : twice) v = {2.0 * v.value, 2.0 * v.magnitude};
    ASSERT_TRUE(close(dbf, twice, std::sqrt(static_cast<double>(tokens)) + 4.0));
  }
}

TEST(GateProjection, FloatLogitsFromAnyOperands) {
  for (auto [tokens, experts, hidden] :
       {std::array<offset_t, 3>{0, 4, 8}, {1, 8, 64}, {17, 60, 33}, {65, 5, 1}, {9, 129, 257}}) {
    project<float, float>(tokens, experts, hidden);
    project<bf16, bf16>(tokens, experts, hidden);
  }
  project<fp16, float>(17, 60, 33);
  project<bf16, float>(17, 60, 33);
}

}  // namespace route_expert_choice_test
}  // namespace shunt::test
