// The plan on a device: every number is the host's, whose numbers are the oracle's.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace plan_test {

/// A question to both backends. Masks and gates are the host's.
struct inputs {
  shape s;
  std::vector<index_t> ids;
  plan_options<> o = {};
  std::vector<float> gate = {};
  std::vector<std::uint8_t> valid = {};
};

template <class A> std::vector<index_t> ints(A const& a) { return {a.begin(), a.end()}; }

void expect_same(inputs const& q, std::string const& what) {
  SCOPED_TRACE(what);
  shape const& s = q.s;
  constexpr offset_t spare = 3;
  std::vector<index_t> wanted(static_cast<std::size_t>(s.experts), -7), kept = wanted;
  std::vector<plan_counts> totals(1);
  plan_options<> o = q.o;
  o.gate = view<float const, 2>(q.gate.data(), {{s.tokens, s.top_k}});
  if (q.gate.empty()) o.gate = {};
  if (!q.valid.empty()) o.valid = q.valid;
  o.report = {.wanted = wanted, .kept = kept, .totals = totals};
  plan_fixture const want = plan_of(on_host{.threads = 2}, s, q.ids, o, spare);

  on_device<index_t> const ids(q.ids), d_wanted(s.experts), d_kept(s.experts);
  on_device<float> const gate(q.gate);
  on_device<std::uint8_t> const valid(q.valid);
  on_device<plan_counts> const d_totals(1);
  plan_options<space::device> d{.capacity = o.capacity,
                                .drop = o.drop,
                                .segment_multiple = o.segment_multiple,
                                .first_expert = o.first_expert,
                                .experts = o.experts,
                                .zero_experts = o.zero_experts};
  if (!q.gate.empty()) d.gate = gate.as(s.tokens, s.top_k);
  if (!q.valid.empty()) d.valid = valid.as(s.tokens);
  d.report = {d_wanted.as(s.experts), d_kept.as(s.experts), d_totals.as(1)};
  device_plan_fixture const got(s, plan_rows_bound(s, d) + spare);
  on_cuda const on;
  on_device<std::byte> const work(static_cast<offset_t>(plan_scratch_bytes(on, s, d)));
  status const done =
      plan_dispatch(on, ids.as(s.tokens, s.top_k), got.plan, {work.data(), work.size()}, d);
  ASSERT_TRUE(done.ok()) << done.message();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(got.offset.host(), ints(want.offset));
  EXPECT_EQ(got.row_slot.host(), ints(want.row_slot));
  EXPECT_EQ(got.slot_row.host(), ints(want.slot_row));
  EXPECT_EQ(d_wanted.host(), wanted);
  EXPECT_EQ(d_kept.host(), kept);
  plan_counts const a = d_totals.host()[0], &b = totals[0];
  EXPECT_EQ(std::memcmp(&a, &b, sizeof a), 0) << "totals differ: rows " << a.rows << ", " << b.rows;
}

std::vector<float> gates(std::size_t count, std::uint64_t seed) {
  rng d(seed);
  std::vector<float> g(count);
  for (float& x : g) x = static_cast<float>(d.below(9)) / 8.0f - 0.25f;  // many ties, some negative
  for (std::size_t i = 0; i < count; i += 7) g[i] = std::numeric_limits<float>::quiet_NaN();
  return g;
}
std::vector<index_t> any_ids(std::size_t count, index_t experts, std::uint64_t seed) {
  rng d(seed);
  std::vector<index_t> ids(count);
  for (index_t& id : ids) id = static_cast<index_t>(d.below(experts));
  return ids;
}
constexpr drop_policy policies[] = {drop_policy::by_position, drop_policy::by_choice,
                                    drop_policy::by_gate};

TEST(CudaPlan, EveryShapeSkewAndPolicy) {
  for (auto const& named : battery) {
    for (skew how : skews) {
      inputs q{named.is, chosen_experts(named.is, how, 1)};
      std::string const what = std::string(named.name) + " " + to_string(how);
      expect_same(q, what);
      q.gate = gates(q.ids.size(), 2);
      for (std::size_t t = 0; t < static_cast<std::size_t>(q.s.tokens); ++t) {
        q.valid.push_back(t % 5 != 1);
      }
      q.o.segment_multiple = 4;
      for (drop_policy policy : policies) {
        q.o.capacity = 1 + named.is.tokens / 4;
        q.o.drop = policy;
        expect_same(q, what + ", capacity, policy " + std::to_string(static_cast<int>(policy)));
      }
    }
  }
}

TEST(CudaPlan, Battery03_SentinelIdsAreNoIndex) {
  constexpr index_t least = std::numeric_limits<index_t>::min(),
                    most = std::numeric_limits<index_t>::max();
  inputs q{{.tokens = 4, .experts = 3, .top_k = 2}, {least, most, 3, 0, -2, 2, 1 << 20, -1}};
  expect_same(q, "sentinels");
  q.o.first_expert = 7;
  q.o.experts = 40;
  q.o.zero_experts = 4;
  expect_same(q, "sentinels, a shard");
}

TEST(CudaPlan, Battery02_ExpertNamedTwiceByOneTokenGetsTwoRows) {
  expect_same({{.tokens = 3, .experts = 4, .top_k = 3}, {1, 1, 2, 3, 3, 3, 0, 2, 0}}, "repeats");
}

TEST(CudaPlan, Battery08_Shards) {
  inputs q{{.tokens = 300, .experts = 10, .top_k = 4}, any_ids(1200, 44, 3)};
  q.o.experts = 40;
  q.o.zero_experts = 3;
  for (index_t first : {0, 10, 30}) {
    q.o.first_expert = first;
    expect_same(q, "shard from " + std::to_string(first));
  }
}

/// Several launches, several chunks a warp's width apart, and one expert for all.
TEST(CudaPlan, LargeBatches) {
  for (index_t tokens : {4096, 4097, 20011}) {
    inputs q{{.tokens = tokens, .experts = 129, .top_k = 5}, {}};
    auto const slots = static_cast<std::size_t>(tokens) * 5;
    q.ids = any_ids(slots, 131, 4);
    expect_same(q, "dropless");
    q.o.capacity = tokens / 40;
    q.gate = gates(slots, 5);
    for (drop_policy policy : policies) {
      q.o.drop = policy;
      expect_same(q, "policy " + std::to_string(static_cast<int>(policy)));
    }
    q.ids.assign(slots, 128);
    expect_same(q, "one expert for all");
  }
}

TEST(CudaPlan, Battery19_ManyExperts) {
  for (index_t experts : expert_counts) {
    expect_same({{.tokens = 61, .experts = experts, .top_k = 3}, any_ids(183, experts, 6)},
                std::to_string(experts) + " experts");
  }
}

TEST(CudaPlan, RefusesBeforeAnythingIsEnqueued) {
  shape const s{.tokens = 4, .experts = 3, .top_k = 2};
  device_plan_fixture const p(s, 8);
  on_device<index_t> const ids(std::vector<index_t>(8, 1));
  on_device<std::byte> const work(64);
  status const is = plan_dispatch(on_cuda{}, ids.as(4, 2), p.plan, {work.data(), work.size()});
  EXPECT_EQ(is.code(), error::arena_too_small);
  EXPECT_NE(std::string(is.message()).find("plan_dispatch.arena: the arena has 64 bytes"),
            std::string::npos);
  EXPECT_EQ(plan_dispatch(on_cuda{}, ids.as(3, 2), p.plan, {work.data(), work.size()}).code(),
            error::bad_shape);
}

/// One graph, replayed with ids that were not there when it was captured.
TEST(CudaPlan, CapturedAndReplayedWithAnotherRouting) {
  shape const s{.tokens = 5000, .experts = 16, .top_k = 4};
  on_device<index_t> ids(std::vector<index_t>(20000, 3));
  device_plan_fixture const p(s, 20000);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  on_cuda const on{stream};
  plan_options<space::device> const o{.capacity = 700, .drop = drop_policy::by_choice};
  on_device<std::byte> const work(static_cast<offset_t>(plan_scratch_bytes(on, s, o)));
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_TRUE(plan_dispatch(on, ids.as(5000, 4), p.plan, {work.data(), work.size()}, o).ok());
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  for (std::uint64_t seed : {1, 2}) {
    auto const fresh = any_ids(20000, 16, seed);
    ids.fill(fresh);
    ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    plan_fixture const want =
        plan_of({}, s, fresh, {.capacity = 700, .drop = drop_policy::by_choice},
                20000 - plan_rows_bound(s, plan_options<>{.capacity = 700}));
    EXPECT_EQ(p.row_slot.host(), ints(want.row_slot));
    EXPECT_EQ(p.slot_row.host(), ints(want.slot_row));
  }
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

/// Tokens chosen by experts, with repeats, sentinels, padding and tokens nobody wants.
TEST(CudaPlan, ExpertChoice) {
  for (auto const& [tokens, experts, chosen] :
       {std::array{0, 3, 2}, std::array{1, 1, 1}, std::array{37, 7, 12}, std::array{700, 5, 400}}) {
    SCOPED_TRACE(tokens);
    rng d(7);
    std::vector<index_t> token(static_cast<std::size_t>(experts * chosen));
    for (index_t& t : token) t = static_cast<index_t>(d.below(tokens + 3)) - 1;
    auto const gate = gates(token.size(), 8);
    std::vector<std::uint8_t> valid;
    for (int t = 0; t < tokens; ++t) valid.push_back(t % 6 != 2);
    shape const s{.tokens = tokens, .experts = experts, .top_k = experts};
    offset_t const rows = expert_choice_rows_bound(experts, chosen, 4);

    plan_fixture want(s, rows);
    std::vector<float> dense(static_cast<std::size_t>(tokens * experts), -3.0f);
    std::vector<plan_counts> totals(1);
    std::vector<index_t> kept(static_cast<std::size_t>(experts));
    std::vector<std::byte> scratch(plan_from_expert_choice_scratch_bytes(on_host{}, experts));
    status const host = plan_from_expert_choice(
        on_host{}, view<index_t const, 2>(token.data(), {{experts, chosen}}), want.plan, scratch,
        {.gate = view<float const, 2>(gate.data(), {{experts, chosen}}),
         .dense_gate = view<float, 2>(dense.data(), {{tokens, experts}}),
         .valid = valid,
         .segment_multiple = 4,
         .report = {.kept = kept, .totals = totals}});
    ASSERT_TRUE(host.ok()) << host.message();

    device_plan_fixture const got(s, rows);
    on_device<index_t> const d_token(token), d_kept(experts);
    on_device<float> const d_gate(gate), d_dense(offset_t{tokens} * experts);
    on_device<std::uint8_t> const d_valid(valid);
    on_device<plan_counts> const d_totals(1);
    on_cuda const on;
    on_device<std::byte> const work(
        static_cast<offset_t>(plan_from_expert_choice_scratch_bytes(on, experts)));
    status const done = plan_from_expert_choice(
        on, d_token.as(experts, chosen), got.plan, {work.data(), work.size()},
        {.gate = d_gate.as(experts, chosen),
         .dense_gate = d_dense.as(tokens, experts),
         .valid = d_valid.as(tokens),
         .segment_multiple = 4,
         .report = {.kept = d_kept.as(experts), .totals = d_totals.as(1)}});
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_EQ(got.offset.host(), ints(want.offset));
    EXPECT_EQ(got.row_slot.host(), ints(want.row_slot));
    EXPECT_EQ(got.slot_row.host(), ints(want.slot_row));
    EXPECT_EQ(d_kept.host(), kept);
    EXPECT_TRUE(same_values(d_dense.host(), dense));
    plan_counts const a = d_totals.host()[0];
    EXPECT_EQ(std::memcmp(&a, totals.data(), sizeof a), 0);
  }
}

}  // namespace plan_test
}  // namespace shunt::test
