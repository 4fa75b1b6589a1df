#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "shunt/dispatch.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_dispatch.hpp"
#include "support/plan_fixture.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace dispatch_plan_test {

using oracle::plan_answer;
using oracle::plan_inputs;
using oracle::refuse;

template <class A> std::vector<int> ints(A const& a) { return {a.begin(), a.end()}; }

/// Runs the library on a inputs, on one world, and compares every number.
void expect_plan(plan_inputs const& q, on_host const& on, std::string const& what) {
  SCOPED_TRACE(what + ", " + name_of(on));
  plan_answer const want = oracle::plan(q);
  shape const s{.tokens = q.tokens, .experts = q.local, .top_k = q.top_k};
  std::vector<std::uint8_t> mask(q.valid.begin(), q.valid.end());
  guarded<std::uint8_t> const valid(mask);
  guarded<float> const gate(q.gate);
  auto const experts = static_cast<std::size_t>(s.experts);
  guarded<index_t> wanted(experts), kept(experts);
  guarded<plan_counts> totals(1);
  plan_options<> o{.capacity = q.capacity,
                   .drop = q.drop == refuse::later           ? drop_policy::by_position
                           : q.drop == refuse::later_choices ? drop_policy::by_choice
                                                             : drop_policy::by_gate,
                   .segment_multiple = q.multiple,
                   .first_expert = q.first,
                   .experts = q.real,
                   .zero_experts = q.zero,
                   .report = {wanted.as(s.experts), kept.as(s.experts), totals.as(1)}};
  if (!q.gate.empty()) o.gate = gate.as(q.tokens, q.top_k);
  if (!q.valid.empty()) o.valid = valid.as(q.tokens);
  constexpr offset_t spare = 3;
  plan_fixture const got = plan_of(on, s, q.expert, o, spare);

  EXPECT_EQ(ints(got.offset), want.offset);
  EXPECT_EQ(ints(got.slot_row), want.slot_row);
  std::vector<int> row_slot = want.row_slot;
  row_slot.resize(got.rows(), -1);
  EXPECT_EQ(ints(got.row_slot), row_slot);
  EXPECT_EQ(ints(wanted), want.wanted);
  EXPECT_EQ(ints(kept), want.kept);
  plan_counts const& c = totals[0];
  EXPECT_EQ(c.rows, want.rows);
  EXPECT_EQ(c.padding, want.padding);
  EXPECT_EQ(c.dropped, want.dropped);
  EXPECT_EQ(c.unrouted, want.unrouted);
  EXPECT_EQ(c.foreign, want.foreign);
  EXPECT_EQ(c.zero, want.zero);
  EXPECT_EQ(c.out_of_range, want.out_of_range);
  EXPECT_EQ(c.repeated, 0);
  EXPECT_EQ(c.invalid, want.invalid);
  EXPECT_EQ(c.rows + c.dropped + c.unrouted + c.foreign + c.zero + c.out_of_range + c.invalid,
            q.tokens * q.top_k);
}

void expect_plan(plan_inputs const& q, std::string const& what) {
  for (int threads : {1, 2, 7}) expect_plan(q, {.threads = threads}, what);
}

plan_inputs inputs(shape const& s, skew how, std::uint64_t seed) {
  return {.tokens = s.tokens,
          .top_k = s.top_k,
          .local = s.experts,
          .expert = chosen_experts(s, how, seed)};
}
/// Ids of any experts, repeats and all: fast for large batches.
plan_inputs dense_question(int tokens, int experts, int top_k, std::uint64_t seed) {
  plan_inputs q{.tokens = tokens, .top_k = top_k, .local = experts};
  rng d(seed);
  for (int i = 0; i < tokens * top_k; ++i) q.expert.push_back(static_cast<int>(d.below(experts)));
  return q;
}
std::vector<float> gates(std::size_t count, std::uint64_t seed) {
  rng d(seed);
  std::vector<float> g(count);
  for (float& x : g) x = static_cast<float>(d.below(9)) / 8.0f - 0.25f;  // many ties, some negative
  return g;
}

TEST(DispatchPlan, EveryShapeAndSkewMatchesTheOracle) {
  for (auto const& named : battery) {
    for (skew how : skews) {
      expect_plan(inputs(named.is, how, 1), std::string(named.name) + " " + to_string(how));
    }
  }
}

TEST(DispatchPlan, Battery01_NoTokensGiveEmptySegments) {
  plan_inputs q{.tokens = 0, .top_k = 2, .local = 5};
  expect_plan(q, "no tokens");
  q.multiple = 64;
  q.capacity = 3;
  expect_plan(q, "no tokens, padded");
}

TEST(DispatchPlan, Battery02_ExpertNamedTwiceByOneTokenGetsTwoRows) {
  plan_inputs const q{.tokens = 3, .top_k = 3, .local = 4, .expert = {1, 1, 2, 3, 3, 3, 0, 2, 0}};
  expect_plan(q, "repeats");
  plan_fixture const p = plan_of({}, {.tokens = 3, .experts = 4, .top_k = 3}, q.expert);
  EXPECT_EQ(ints(p.row_slot), (std::vector<int>{6, 8, 0, 1, 2, 7, 3, 4, 5}));
}

TEST(DispatchPlan, Battery03_SentinelIdsAreNoIndex) {
  constexpr int least = std::numeric_limits<int>::min(), most = std::numeric_limits<int>::max();
  plan_inputs q{.tokens = 4, .top_k = 2, .local = 3};
  q.expert = {least, most, 3, 0, -2, 2, 1 << 20, -1};
  expect_plan(q, "sentinels");
  q.first = 7;
  expect_plan(q, "sentinels, a shard");
}

TEST(DispatchPlan, Battery06_SlotsWithoutExpertGetNoRow) {
  plan_inputs q = inputs({.tokens = 37, .experts = 6, .top_k = 3}, skew::zipf, 4);
  for (std::size_t i = 0; i < q.expert.size(); i += 4) q.expert[i] = -1;
  expect_plan(q, "some slots");
  for (int& id : q.expert) id = -1;
  expect_plan(q, "all slots");
}

TEST(DispatchPlan, Battery08_ShardsTogetherAreTheWhole) {
  constexpr shape s{.tokens = 91, .experts = 12, .top_k = 4};
  plan_inputs q = inputs(s, skew::zipf, 5);
  plan_answer const whole = oracle::plan(q);
  int rows = 0;
  q.real = 12;
  for (int first : {0, 1, 5, 9}) {
    int const next = first == 0 ? 1 : first == 1 ? 5 : first == 5 ? 9 : 12;
    q.first = first;
    q.local = next - first;
    expect_plan(q, "shard at " + std::to_string(first));
    plan_fixture const p = plan_of({}, {.tokens = s.tokens, .experts = q.local, .top_k = s.top_k},
                                   q.expert, {.first_expert = first, .experts = 12});
    for (int e = 0; e < q.local; ++e) {
      for (int r = p.offset[std::size_t(e)]; r < p.offset[std::size_t(e) + 1]; ++r) {
        int const at = whole.offset[std::size_t(first + e)] + r - p.offset[std::size_t(e)];
        EXPECT_EQ(p.row_slot[std::size_t(r)], whole.row_slot[std::size_t(at)]);
      }
    }
    rows += p.offset[std::size_t(q.local)];
  }
  EXPECT_EQ(rows, whole.rows);
}

TEST(DispatchPlan, Battery09_PaddingTokensTakeNoRowAndNoCapacity) {
  for (int tokens : {40, 6}) {  // also T = E, where a mask of the wrong axis goes unseen
    plan_inputs q = inputs({.tokens = tokens, .experts = 6, .top_k = 2}, skew::one_hot, 6);
    for (int t = 0; t < tokens; ++t) q.valid.push_back(t % 3 == 0 ? 0 : 1);
    expect_plan(q, "dropless");
    for (int capacity : {1, 4}) {
      q.capacity = capacity;
      expect_plan(q, "capacity");
      // The valid tokens alone give the same rows.
      plan_inputs alone = q;
      alone.expert.clear();
      alone.valid.clear();
      std::vector<int> token;
      for (int t = 0; t < tokens; ++t) {
        if (q.valid[std::size_t(t)] == 0) continue;
        token.push_back(t);
        for (int k = 0; k < 2; ++k) alone.expert.push_back(q.expert[std::size_t(t * 2 + k)]);
      }
      alone.tokens = static_cast<int>(token.size());
      plan_answer const a = oracle::plan(alone), b = oracle::plan(q);
      EXPECT_EQ(a.offset, b.offset);
      EXPECT_EQ(a.dropped, b.dropped);
      EXPECT_EQ(a.wanted, b.wanted);
    }
  }
}

TEST(DispatchPlan, CapacityRefusesByPositionByChoiceAndByGate) {
  for (skew how : skews) {
    plan_inputs q = inputs({.tokens = 123, .experts = 7, .top_k = 3}, how, 7);
    q.gate = gates(q.expert.size(), 8);
    for (refuse drop : {refuse::later, refuse::later_choices, refuse::lower_gates}) {
      for (int capacity : {1, 2, 20, 52, 53, 369, 1000}) {
        q.drop = drop;
        q.capacity = capacity;
        expect_plan(q, std::string(to_string(how)) + " capacity " + std::to_string(capacity));
      }
    }
  }
}

// Any capacity that the type holds: one that no expert reaches drops nothing.
TEST(DispatchPlan, Battery44_CapacityFromOneToTheLargestNumber) {
  plan_inputs q = inputs({.tokens = 123, .experts = 7, .top_k = 3}, skew::zipf, 7);
  q.gate = gates(q.expert.size(), 8);
  for (refuse drop : {refuse::later, refuse::later_choices, refuse::lower_gates}) {
    for (int capacity : {1, 1 << 16, (1 << 24) + 1, (1 << 30) + 1,
                         std::numeric_limits<int>::max() - 1, std::numeric_limits<int>::max()}) {
      q.drop = drop;
      q.capacity = capacity;
      expect_plan(q, "capacity " + std::to_string(capacity));
    }
  }
}

TEST(DispatchPlan, EqualGatesKeepTheEarlierAndNanIsLowest) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float inf = std::numeric_limits<float>::infinity();
  plan_inputs q{.tokens = 8, .top_k = 1, .local = 1, .expert = std::vector<int>(8, 0)};
  q.gate = {nan, 0.5f, -0.0f, 0.0f, -inf, 0.5f, inf, -nan};
  q.drop = refuse::lower_gates;
  for (q.capacity = 1; q.capacity <= 8; ++q.capacity) expect_plan(q, "gates");
  q.capacity = 3;
  plan_fixture const p = plan_of({}, {.tokens = 8, .experts = 1, .top_k = 1}, q.expert,
                                 {.capacity = 3,
                                  .drop = drop_policy::by_gate,
                                  .gate = view<float const, 2>(q.gate.data(), {{8, 1}})});
  EXPECT_EQ(ints(p.row_slot), (std::vector<int>{1, 5, 6}));
}

TEST(DispatchPlan, PadsSegmentsToAnyMultiple) {
  for (int multiple : {1, 2, 3, 7, 64, 128}) {
    for (skew how : skews) {
      plan_inputs q = inputs({.tokens = 61, .experts = 9, .top_k = 2}, how, 9);
      q.multiple = multiple;
      expect_plan(q, "multiple of " + std::to_string(multiple));
      q.capacity = 10;
      expect_plan(q, "capacity and multiple of " + std::to_string(multiple));
    }
  }
}

TEST(DispatchPlan, Battery15_BlocksOfTokensJoinInOrderOnAnyThreadCount) {
  plan_inputs q = dense_question(small_scale() ? 4099 : 30011, 61, 5, 10);
  expect_plan(q, "many blocks");
  q.gate = gates(q.expert.size(), 11);
  q.drop = refuse::lower_gates;
  q.capacity = q.tokens / 20;
  q.multiple = 16;
  expect_plan(q, "many blocks, drop by gate");
}

TEST(DispatchPlan, Battery19_EveryExpertCount) {
  for (index_t experts : expert_counts) {
    for (int tokens : {1, 17, 1500}) {
      int const top_k = std::min<int>(4, experts);
      expect_plan(dense_question(tokens, experts, top_k, 12),
                  "E " + std::to_string(experts) + " T " + std::to_string(tokens));
    }
  }
}

TEST(DispatchPlan, Battery20_NoLimitOnChoicesExpertsOrTokens) {
  expect_plan(dense_question(301, 64, 22, 13), "K 22");
  expect_plan(dense_question(211, 512, 32, 14), "K 32");
  expect_plan(dense_question(9, 2048, 2048, 15), "K = E = 2048");
  if (small_scale()) return;
  expect_plan(dense_question(54273 + 7, 384, 8, 16), {.threads = 2}, "384 experts, 54280 tokens");
  expect_plan(dense_question(300001, 1024, 2, 17), {.threads = 2}, "T·K beyond 2^19");
}

TEST(DispatchPlan, Battery22_ZeroExpertsAreNoRowAndNoError) {
  plan_inputs q{.tokens = 3, .top_k = 3, .local = 4, .expert = {0, 4, 6, 5, 1, 7, 3, -1, 4}};
  q.zero = 3;  // ids 4, 5, 6; 7 names nothing
  expect_plan(q, "zero experts");
  q.real = 6;  // a shard: ids 4, 5 live elsewhere, 6 to 8 are zero experts
  expect_plan(q, "zero experts behind a shard");
}

TEST(DispatchPlan, RandomQuestions) {
  rng d(18);
  int const rounds = small_scale() ? 60 : 400;
  for (int round = 0; round < rounds; ++round) {
    plan_inputs q;
    q.tokens = static_cast<int>(d.below(60));
    q.top_k = static_cast<int>(d.below(6)) + 1;
    q.local = static_cast<int>(d.below(9));
    q.first = static_cast<int>(d.below(3)) * static_cast<int>(d.below(6));
    q.real = d.below(2) == 0 ? 0 : q.first + q.local + static_cast<int>(d.below(5));
    q.zero = static_cast<int>(d.below(2) * d.below(4));
    q.capacity = static_cast<int>(d.below(2) * d.below(12));
    q.multiple = 1 + static_cast<int>(d.below(2) * d.below(9));
    q.drop = static_cast<refuse>(d.below(3));
    auto const slots = static_cast<std::size_t>(q.tokens * q.top_k);
    for (std::size_t i = 0; i < slots; ++i) q.expert.push_back(static_cast<int>(d.below(24)) - 2);
    q.gate = gates(slots, d.bits());
    if (q.gate.empty() && q.drop == refuse::lower_gates) q.drop = refuse::later;
    if (d.below(2) == 0) {
      for (int t = 0; t < q.tokens; ++t) q.valid.push_back(static_cast<int>(d.below(3)));
    }
    expect_plan(q, {.threads = 1 + static_cast<int>(d.below(3))}, std::to_string(round));
  }
}

TEST(DispatchPlan, Battery24_TheQueryIsWhatTheRunNeeds) {
  for (int tokens : {0, 5, 9000}) {
    for (bool by_gate : {false, true}) {
      plan_inputs const q = dense_question(tokens, 33, 3, 19);
      shape const s{.tokens = tokens, .experts = 33, .top_k = 3};
      std::vector<float> const g = gates(q.expert.size(), 20);
      plan_options<> const o{.capacity = 7,
                             .drop = by_gate ? drop_policy::by_gate : drop_policy::by_position,
                             .gate = view<float const, 2>(g.data(), {{tokens, 3}})};
      std::size_t const need = plan_scratch_bytes(on_host{}, s, o);
      plan_fixture made(s, plan_rows_bound(s, o));
      view<index_t const, 2> const ids(q.expert.data(), {{tokens, 3}});
      guarded<std::byte> bytes(need + 63);
      for (std::size_t shift : {0u, 1u, 17u, 63u}) {
        arena<> const work(bytes.data() + shift, need);
        status const done = plan_dispatch(on_host{}, ids, made.plan, work, o);
        EXPECT_TRUE(done.ok()) << done.message();
      }
      guarded<index_t> const before = made.slot_row;
      made.slot_row.wipe();
      made.offset.wipe();
      status const less =
          plan_dispatch(on_host{}, ids, made.plan, arena<>(bytes.data(), need - 64 - 64), o);
      EXPECT_EQ(less.code(), error::arena_too_small);
      EXPECT_NE(std::string(less.message()).find(std::to_string(need)), std::string::npos)
          << less.message();
      EXPECT_TRUE(same_bits(made.offset, guarded<index_t>(made.offset.size()))) << "written";
    }
  }
}

TEST(DispatchPlan, CarvedPlansFitTheirArena) {
  shape const s{.tokens = 100, .experts = 9, .top_k = 3};
  plan_options<> const o{.capacity = 11, .segment_multiple = 8};
  auto measure = arena<>::measuring();
  (void)carve_plan(measure, s, o);
  guarded<std::byte> bytes(measure.needed());
  arena<> work(bytes);
  dispatch_plan<> const plan = carve_plan(work, s, o);
  EXPECT_TRUE(work.fits());
  EXPECT_EQ(plan.row_slot.extent(0), 9 * 16);
  EXPECT_EQ(plan.experts(), 9);
  plan_inputs const q = dense_question(100, 9, 3, 21);
  guarded<std::byte> scratch(plan_scratch_bytes(on_host{}, s, o));
  status const done = plan_dispatch(on_host{}, view<index_t const, 2>(q.expert.data(), {{100, 3}}),
                                    plan, scratch, o);
  EXPECT_TRUE(done.ok()) << done.message();
}

TEST(DispatchPlan, RowsBoundIsNeverExceededAndCapacityRowsRoundsUp) {
  EXPECT_EQ(capacity_rows({.tokens = 100, .experts = 8, .top_k = 2}, 1.0), 25);
  EXPECT_EQ(capacity_rows({.tokens = 100, .experts = 8, .top_k = 2}, 1.25), 32);
  EXPECT_EQ(capacity_rows({.tokens = 3, .experts = 8, .top_k = 1}, 1.0), 1);
  EXPECT_EQ(capacity_rows({.tokens = 0, .experts = 8, .top_k = 1}, 1.0), 1);
  EXPECT_EQ(capacity_rows({.tokens = 1 << 30, .experts = 1, .top_k = 8}, 2.0),
            std::numeric_limits<index_t>::max());
  EXPECT_EQ(plan_rows_bound<space::host>({.tokens = 10, .experts = 4, .top_k = 2}), 20);
  EXPECT_EQ(plan_rows_bound<space::host>({.tokens = 10, .experts = 4, .top_k = 2},
                                         {.segment_multiple = 8}),
            48);
  EXPECT_EQ(plan_rows_bound<space::host>({.tokens = 1, .experts = 64, .top_k = 2},
                                         {.segment_multiple = 8}),
            16);
  EXPECT_EQ(plan_rows_bound<space::host>({.tokens = 1 << 30, .experts = 64, .top_k = 32}),
            offset_t{1} << 35);
}

TEST(DispatchPlan, RunsOnACallersOwnPool) {
  int calls = 0;
  host_runner const backwards{&calls, 3,
                              [](void* self, int workers, void (*body)(void*, int), void* context) {
                                ++*static_cast<int*>(self);
                                for (int w = workers; w-- > 0;) body(context, w);
                              }};
  expect_plan(dense_question(5000, 40, 4, 22), {.threads = 0, .runner = &backwards}, "own pool");
  EXPECT_GT(calls, 0);
}

}  // namespace dispatch_plan_test
}  // namespace shunt::test
