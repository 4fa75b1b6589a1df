#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "shunt/dispatch.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_dispatch.hpp"
#include "support/plan_fixture.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace dispatch_expert_choice_test {

template <class A> std::vector<int> ints(A const& a) { return {a.begin(), a.end()}; }

struct choice {
  int tokens = 0, experts = 0, chosen = 0;
  std::vector<int> token = {}, valid = {};
  int multiple = 1;
};

/// Distinct tokens for each expert, in no order.
choice random_choice(int tokens, int experts, int chosen, std::uint64_t seed) {
  choice c{.tokens = tokens, .experts = experts, .chosen = chosen};
  rng d(seed);
  for (int e = 0; e < experts; ++e) {
    std::vector<int> order(static_cast<std::size_t>(tokens));
    for (int t = 0; t < tokens; ++t) order[static_cast<std::size_t>(t)] = t;
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[static_cast<std::size_t>(d.below(static_cast<int>(i)))]);
    }
    c.token.insert(c.token.end(), order.begin(), order.begin() + chosen);
  }
  return c;
}

void expect_choice(choice const& c, on_host const& on) {
  SCOPED_TRACE(name_of(on));
  oracle::plan_answer const want =
      oracle::choice_plan(c.tokens, c.experts, c.chosen, c.token, c.valid, c.multiple);
  auto const experts = static_cast<std::size_t>(c.experts), tokens = std::size_t(c.tokens),
             chosen = static_cast<std::size_t>(c.chosen);
  shape const s{.tokens = c.tokens, .experts = c.experts, .top_k = c.experts};
  plan_fixture got(s, expert_choice_rows_bound(c.experts, c.chosen, c.multiple) + 2);
  guarded<index_t> const token(c.token);
  guarded<float> gate(c.token.size()), dense(tokens * experts);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = 1.0f + static_cast<float>(i);
  guarded<std::uint8_t> const valid(std::vector<std::uint8_t>(c.valid.begin(), c.valid.end()));
  guarded<index_t> wanted(experts), kept(experts);
  guarded<plan_counts> totals(1);
  guarded<std::byte> scratch(plan_from_expert_choice_scratch_bytes(on, c.experts));
  expert_choice_options<> o{.gate = gate.as(experts, chosen),
                            .dense_gate = dense.as(tokens, experts),
                            .segment_multiple = c.multiple,
                            .report = {wanted.as(experts), kept.as(experts), totals.as(1)}};
  if (!c.valid.empty()) o.valid = valid.as(tokens);
  status const done = plan_from_expert_choice(on, token.as(experts, chosen), got.plan, scratch, o);
  ASSERT_TRUE(done.ok()) << done.message();

  EXPECT_EQ(ints(got.offset), want.offset);
  EXPECT_EQ(ints(got.slot_row), want.slot_row);
  std::vector<int> row_slot = want.row_slot;
  row_slot.resize(got.rows(), -1);
  EXPECT_EQ(ints(got.row_slot), row_slot);
  EXPECT_EQ(ints(kept), want.kept);
  EXPECT_EQ(ints(wanted), want.kept);
  EXPECT_EQ(totals[0].rows, want.rows);
  EXPECT_EQ(totals[0].padding, want.padding);
  EXPECT_EQ(totals[0].unrouted, want.unrouted);
  EXPECT_EQ(totals[0].out_of_range, want.out_of_range);
  EXPECT_EQ(totals[0].repeated, want.repeated);
  EXPECT_EQ(totals[0].invalid, want.invalid);
  // Each slot's gate is that of the first choice that names it.
  for (std::size_t slot = 0; slot < tokens * experts; ++slot) {
    std::size_t const e = slot % experts;
    float expected = 0.0f;
    for (std::size_t at = e * chosen; at < (e + 1) * chosen; ++at) {
      if (c.token[at] != static_cast<int>(slot / experts) || want.slot_row[slot] < 0) continue;
      expected = gate[at];
      break;
    }
    EXPECT_EQ(dense[slot], expected) << slot;
  }
}

void expect_choice(choice const& c) {
  for (int threads : {1, 2, 7}) expect_choice(c, {.threads = threads});
}

TEST(ExpertChoice, EachExpertsTokensStandInTokenOrder) {
  expect_choice(random_choice(64, 8, 16, 1));
  expect_choice(random_choice(37, 5, 37, 2));
  expect_choice(random_choice(9, 129, 2, 3));
  expect_choice(random_choice(700, 61, 33, 4));
}

TEST(ExpertChoice, Battery01_NothingChosenAndNoTokens) {
  expect_choice(random_choice(12, 3, 0, 5));
  expect_choice({.tokens = 0, .experts = 3, .chosen = 2, .token = std::vector<int>(6, -1)});
}

TEST(ExpertChoice, Battery02_TokenNamedTwiceByOneExpertHasOneRow) {
  expect_choice({.tokens = 5, .experts = 2, .chosen = 4, .token = {3, 3, 1, 3, 0, 4, 4, 0}});
}

TEST(ExpertChoice, Battery06_NoTokenAndWildTokensAreNoIndex) {
  constexpr int most = std::numeric_limits<int>::max(), least = std::numeric_limits<int>::min();
  expect_choice(
      {.tokens = 5, .experts = 2, .chosen = 4, .token = {-1, 5, 1, most, least, 4, -2, 0}});
}

TEST(ExpertChoice, Battery09_PaddingTokensHaveNoRow) {
  choice c = random_choice(30, 6, 9, 6);
  for (int t = 0; t < c.tokens; ++t) c.valid.push_back(t % 4 == 1 ? 0 : 1);
  expect_choice(c);
  c.multiple = 5;
  expect_choice(c);
}

TEST(ExpertChoice, BadInputHasItsSentence) {
  choice const c = random_choice(10, 3, 4, 7);
  shape const s{.tokens = 10, .experts = 3, .top_k = 3};
  plan_fixture got(s, 12);
  guarded<std::byte> scratch(plan_from_expert_choice_scratch_bytes(on_host{}, 3));
  view<index_t const, 2> const token(c.token.data(), {{3, 4}});
  auto const expect_error = [&](status const& is, std::string const& sentence) {
    EXPECT_FALSE(is.ok());
    EXPECT_EQ(std::string(is.message()), sentence);
    EXPECT_TRUE(same_bits(got.offset, guarded<index_t>(4))) << "written";
  };
  expect_error(plan_from_expert_choice(on_host{}, view<index_t const, 2>(c.token.data(), {{2, 4}}),
                                       got.plan, scratch),
               "plan_from_expert_choice.token: extent 0 is 2; it must be 3 (experts)");
  dispatch_plan<> narrow = got.plan;
  narrow.top_k = 2;
  narrow.slot_row = got.plan.slot_row.slice(0, 20);
  expect_error(
      plan_from_expert_choice(on_host{}, token, narrow, scratch),
      "plan_from_expert_choice.plan.top_k: extent 0 is 2; it must be 3 (experts: slots are "
      "token·E + e)");
  dispatch_plan<> shallow = got.plan;
  shallow.row_slot = got.plan.row_slot.slice(0, 11);
  expect_error(
      plan_from_expert_choice(on_host{}, token, shallow, scratch),
      "plan_from_expert_choice.plan.row_slot: extent 0 is 11; it must be 12 or more (the rows that "
      "any choice may need)");
  guarded<float> dense(30);
  expect_error(
      plan_from_expert_choice(on_host{}, token, got.plan, scratch, {.dense_gate = dense.as(10, 3)}),
      "plan_from_expert_choice.options.gate: the pointer is null; writing dense_gate it must have "
      "gates [3,4]");
  status const small = plan_from_expert_choice(on_host{}, token, got.plan, arena<>{});
  EXPECT_EQ(small.code(), error::arena_too_small);
}

}  // namespace dispatch_expert_choice_test
}  // namespace shunt::test
