// The router on a device: every output has the host's bits, whose numbers are the oracle's.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "shunt/route.cuh"
#include "support/device_plan.hpp"
#include "support/route_levels.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_test {

struct inputs {
  offset_t tokens, experts, top_k;
  route_options o = {};
  offset_t sequences = 1, bins = 0;
  std::vector<float> logits = {}, bias = {};
  std::vector<std::uint8_t> valid = {};
  std::vector<index_t> ids = {}, token = {};  // forced, of a table where token is there
  bool load = true;
};

std::vector<float> normal(offset_t count, std::uint64_t seed, float scale = 2.0f) {
  rng d(seed);
  std::vector<float> v(static_cast<std::size_t>(count));
  for (float& x : v) x = scale * static_cast<float>(d.normal());
  return v;
}
template <class T> std::vector<T> stored(std::vector<float> const& from) {
  std::vector<T> v(from.size());
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = from_float<T>(from[i]);
  return v;
}

/// All outputs, on one side. What is added to starts at 1.
template <template <class> class Buffer> struct outputs {
  Buffer<index_t> expert, counts, total, sequence_counts, sequence_tokens, histogram;
  Buffer<float> gate, z, importance, sequence_importance;
  Buffer<std::int16_t> recorded;
  Buffer<std::int64_t> report;
  template <class T> static std::vector<T> ones(offset_t n) {
    return std::vector<T>(static_cast<std::size_t>(n), T{1});
  }
  explicit outputs(inputs const& q)
      : expert(ones<index_t>(q.tokens * q.top_k)),
        counts(ones<index_t>(q.experts)),
        total(ones<index_t>(1)),
        sequence_counts(ones<index_t>(q.sequences * q.experts)),
        sequence_tokens(ones<index_t>(q.sequences)),
        histogram(ones<index_t>(q.experts * q.bins)),
        gate(ones<float>(q.tokens * q.top_k)),
        z(ones<float>(q.tokens)),
        importance(ones<float>(q.experts)),
        sequence_importance(ones<float>(q.sequences * q.experts)),
        recorded(ones<std::int16_t>(q.tokens * q.top_k)),
        report(ones<std::int64_t>(route_events)) {}
};
template <class T> using host_buffer = std::vector<T>;

template <class T> void expect_same(inputs const& q, std::string const& what) {
  SCOPED_TRACE(what);
  auto const logits = stored<T>(q.logits);
  outputs<host_buffer> h(q);
  outputs<on_device> d(q);
  routing<> hr;
  routing<space::device> dr;
  auto const rows = [&](auto& buffer, offset_t n, offset_t m) {
    return view<std::remove_cvref_t<decltype(buffer[0])>, 2>(buffer.data(), {{n, m}});
  };
  hr.expert = rows(h.expert, q.tokens, q.top_k), dr.expert = d.expert.as(q.tokens, q.top_k);
  hr.gate = rows(h.gate, q.tokens, q.top_k), dr.gate = d.gate.as(q.tokens, q.top_k);
  if (q.load) {
    hr.recorded = rows(h.recorded, q.tokens, q.top_k),
    dr.recorded = d.recorded.as(q.tokens, q.top_k);
    hr.z = h.z, dr.z = d.z.as(q.tokens);
    hr.counts = h.counts, dr.counts = d.counts.as(q.experts);
    hr.importance = h.importance, dr.importance = d.importance.as(q.experts);
    hr.tokens = h.total, dr.tokens = d.total.as(1);
    hr.sequence_counts = rows(h.sequence_counts, q.sequences, q.experts);
    dr.sequence_counts = d.sequence_counts.as(q.sequences, q.experts);
    hr.sequence_importance = rows(h.sequence_importance, q.sequences, q.experts);
    dr.sequence_importance = d.sequence_importance.as(q.sequences, q.experts);
    hr.sequence_tokens = h.sequence_tokens, dr.sequence_tokens = d.sequence_tokens.as(q.sequences);
    hr.report = h.report, dr.report = d.report.as(route_events);
  }
  if (q.bins > 0) {
    hr.histogram = rows(h.histogram, q.experts, q.bins);
    dr.histogram = d.histogram.as(q.experts, q.bins);
  }
  route_inputs<> hi;
  route_inputs<space::device> di;
  on_device<float> const bias(q.bias);
  on_device<std::uint8_t> const valid(q.valid);
  on_device<index_t> const ids(q.ids), token(q.token);
  auto const n_ids = static_cast<offset_t>(q.ids.size()) / q.top_k;
  if (!q.bias.empty()) hi.choice_bias = q.bias, di.choice_bias = bias.as(q.experts);
  if (!q.valid.empty()) hi.valid = q.valid, di.valid = valid.as(q.tokens);
  if (!q.ids.empty()) {
    hi.ids = view<index_t const, 2>(q.ids.data(), {{n_ids, q.top_k}});
    di.ids = view<index_t const, 2, space::device>(ids.as(n_ids, q.top_k));
  }
  if (!q.token.empty()) hi.token = q.token, di.token = token.as(q.tokens);

  shape const s{.tokens = static_cast<index_t>(q.tokens),
                .experts = static_cast<index_t>(q.experts),
                .top_k = static_cast<index_t>(q.top_k)};
  auto const n = static_cast<index_t>(q.sequences);
  on_host const host{.threads = 2};
  std::vector<std::byte> host_work(route_scratch_bytes(host, s, n));
  status const wanted =
      route(host, view<T const, 2>(logits.data(), {{q.tokens, q.experts}}), hi, hr, host_work, q.o);
  ASSERT_TRUE(wanted.ok()) << wanted.message();
  on_cuda const on;
  on_device<T> const d_logits(logits);
  on_device<std::byte> const work(static_cast<offset_t>(route_scratch_bytes(on, s, n)));
  status const done =
      route(on, d_logits.as(q.tokens, q.experts), di, dr, {work.data(), work.size()}, q.o);
  ASSERT_TRUE(done.ok()) << done.message();
  EXPECT_TRUE(same_values(d.expert.host(), h.expert)) << "expert";
  EXPECT_TRUE(same_values(d.gate.host(), h.gate)) << "gate";
  EXPECT_TRUE(same_values(d.recorded.host(), h.recorded)) << "recorded";
  EXPECT_TRUE(same_values(d.z.host(), h.z)) << "z";
  EXPECT_EQ(d.counts.host(), h.counts);
  EXPECT_TRUE(same_values(d.importance.host(), h.importance)) << "importance";
  EXPECT_EQ(d.total.host(), h.total);
  EXPECT_EQ(d.sequence_counts.host(), h.sequence_counts);
  EXPECT_TRUE(same_values(d.sequence_importance.host(), h.sequence_importance));
  EXPECT_EQ(d.sequence_tokens.host(), h.sequence_tokens);
  EXPECT_EQ(d.histogram.host(), h.histogram);
  EXPECT_EQ(d.report.host(), h.report);
}

inputs of(offset_t tokens, offset_t experts, offset_t top_k, route_options const& o = {},
          std::uint64_t seed = 1) {
  inputs q{.tokens = tokens, .experts = experts, .top_k = top_k, .o = o};
  q.logits = normal(tokens * experts, seed);
  return q;
}

TEST(CudaRoute, EveryPreset) {
  for (preset const* const p : presets::all) {
    offset_t const top_k = p->sizes.top_k > 0 ? p->sizes.top_k : 2;
    inputs q = of(45, p->sizes.experts + p->route.zero_experts, top_k, p->route, 2);
    q.sequences = 3;
    if (p->choice_bias) q.bias = normal(q.experts, 3, 0.1f);
    expect_same<float>(q, p->name);
    expect_same<bf16>(q, std::string(p->name) + ", bf16");
  }
}

TEST(CudaRoute, EveryScoreAndGate) {
  for (auto score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (auto gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      for (float epsilon : {0.0f, 1e-20f}) {
        route_options const o{.score = score, .gates = gates, .scale = 2.5f, .epsilon = epsilon};
        std::string const what =
            std::string(to_string(score)) + " gates " + std::to_string(static_cast<int>(gates));
        inputs q = of(37, 60, 6, o);
        expect_same<fp16>(q, what);
        q.load = false;
        expect_same<float>(q, what + ", nothing else wanted");
        q.bias = normal(60, 4);
        q.bias[7] = std::numeric_limits<float>::quiet_NaN();
        q.bins = 50;
        q.load = true;
        expect_same<float>(q, what + ", biased, with a histogram");
      }
    }
  }
}

TEST(CudaRoute, Battery03And04_WhatIsNotFiniteAndWhatTies) {
  constexpr float inf = std::numeric_limits<float>::infinity(),
                  nan = std::numeric_limits<float>::quiet_NaN();
  for (auto score : {score_kind::softmax, score_kind::sigmoid, score_kind::logits}) {
    inputs q = of(12, 40, 4, {.score = score, .gates = gate_kind::renormalized});
    auto const row = [&](offset_t t) { return q.logits.begin() + t * 40; };
    std::fill(row(0), row(1), nan);
    std::fill(row(1), row(2), -inf);
    std::fill(row(2), row(3), inf);
    std::fill(row(3), row(4), 1.0f);
    std::fill(row(4), row(5), -inf), *(row(4) + 17) = -3.0f;
    *(row(5) + 3) = nan, *(row(5) + 4) = inf, *(row(5) + 5) = -inf;
    std::fill(row(6), row(7), 200.0f);
    std::fill(row(7), row(8), -200.0f);
    *(row(8) + 39) = std::numeric_limits<float>::max();
    expect_same<float>(q, to_string(score));
  }
}

TEST(CudaRoute, Battery33_RenormalizedGatesOfAnyLogits) {
  for (auto score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (float epsilon : {0.0f, 1e-20f}) {
      inputs q{.tokens = 0, .experts = 24, .top_k = 4};
      q.o = {.score = score, .gates = gate_kind::renormalized, .scale = 2.5f, .epsilon = epsilon};
      q.logits = logits_of_all_levels(q.experts);
      q.tokens = static_cast<offset_t>(q.logits.size()) / q.experts;
      std::string const what = to_string(score) + (" epsilon " + std::to_string(epsilon));
      expect_same<float>(q, what);
      expect_same<bf16>(q, what + ", bf16");
      q.bias = normal(q.experts, 4);
      q.bins = 50;
      expect_same<float>(q, what + ", biased, with a histogram");
      q.bias.clear();
      q.bins = 0;
      for (offset_t t = 0; t < q.tokens; ++t) {
        for (offset_t k = 0; k < q.top_k; ++k) {
          q.ids.push_back(static_cast<index_t>((t + 5 * k) % q.experts));
        }
      }
      expect_same<float>(q, what + ", forced");
    }
  }
}

TEST(CudaRoute, Battery19And21_ManyExpertsAndGroups) {
  for (index_t experts : expert_counts) {
    offset_t const k = std::min<offset_t>(experts, 8);
    expect_same<float>(of(9, experts, k, {.gates = gate_kind::renormalized}, 5),
                       std::to_string(experts) + " experts");
  }
  for (auto by : {group_rule::best, group_rule::sum_of_two_best}) {
    for (auto const& [experts, groups, top] :
         {std::array{256, 8, 4}, std::array{40, 40, 36}, std::array{60, 4, 1},
          std::array{1024, 256, 100}, std::array{2048, 64, 40}}) {
      route_options const o{.score = score_kind::sigmoid,
                            .gates = gate_kind::renormalized,
                            .groups = groups,
                            .top_groups = top,
                            .group_by = by};
      inputs q = of(11, experts, 6, o, 6);
      q.bias = normal(experts, 7, 0.3f);
      for (std::size_t i = 0; i < 40; ++i) q.logits[i] = 1.0f;  // ties
      expect_same<float>(q, std::to_string(groups) + " groups of " + std::to_string(experts));
    }
  }
}

// The limit of dynamic shared memory is the kernel's own: a host thread with fewer experts must not
// lower it between another one's setting it and launching.
TEST(CudaRoute, TheLimitOfSharedMemoryDoesNotDependOnTheExperts) {
  auto* const kernel = &cuda::route_tokens<cuda::shared_strips>;
  for (offset_t experts : {800, 1024, 896}) {
    expect_same<float>(of(5, experts, 4), std::to_string(experts) + " experts");
    cudaFuncAttributes is{};
    ASSERT_EQ(cudaFuncGetAttributes(&is, kernel), cudaSuccess);
    EXPECT_EQ(is.maxDynamicSharedSizeBytes, 4 * cuda::shared_warps * 1024 * 4) << experts;
  }
}

TEST(CudaRoute, Battery20_MoreChoicesThanLanesAndManyTokens) {
  expect_same<float>(of(7, 64, 50, {.gates = gate_kind::renormalized}), "fifty of 64");
  expect_same<float>(of(130, 2048, 40, {.score = score_kind::sigmoid}), "forty of 2048");
  inputs q = of(3000, 8, 2, {.gates = gate_kind::renormalized});
  q.sequences = 30;
  expect_same<float>(q, "many tokens");
}

TEST(CudaRoute, JitterAndTheRandomSecond) {
  inputs q = of(50, 16, 2,
                {.gates = gate_kind::renormalized,
                 .jitter = 0.3f,
                 .random_second = true,
                 .seed = 99,
                 .first_token = 1ull << 40});
  expect_same<float>(q, "jitter");
}

TEST(CudaRoute, Battery09_PaddingCountsNowhere) {
  inputs q = of(64, 24, 3);
  for (int t = 0; t < 64; ++t) q.valid.push_back(t % 3 != 1);
  for (std::size_t i = 24; i < 48; ++i) q.logits[i] = std::numeric_limits<float>::quiet_NaN();
  q.sequences = 4;
  expect_same<float>(q, "mask");
}

TEST(CudaRoute, Battery02And10_ForcedIdsAndTables) {
  inputs q = of(30, 20, 4, {.score = score_kind::sigmoid, .gates = gate_kind::renormalized});
  rng d(8);
  for (int i = 0; i < 120; ++i) q.ids.push_back(static_cast<index_t>(d.below(23)) - 2);
  expect_same<float>(q, "forced, with repeats and wild ids");
  for (int t = 0; t < 30; ++t) q.token.push_back(static_cast<index_t>(d.below(33)) - 1);
  expect_same<float>(q, "a table");
}

TEST(CudaRoute, GathersOverMicroBatches) {
  inputs q = of(40, 12, 3, {.score = score_kind::sigmoid, .accumulate = true});
  q.bias = normal(12, 9, 0.2f);
  q.bins = 20;
  q.sequences = 2;
  expect_same<float>(q, "added to ones");
}

TEST(CudaRoute, NoTokens) { expect_same<float>(of(0, 12, 3), "no tokens"); }

TEST(CudaRoute, RefusesBeforeAnythingIsEnqueued) {
  on_device<float> const logits(24), gate(4);
  on_device<index_t> const expert(4);
  routing<space::device> out;
  out.expert = expert.as(2, 2);
  out.gate = gate.as(2, 2);
  status const is = route(on_cuda{}, logits.as(2, 12), out, {});
  EXPECT_EQ(is.code(), error::arena_too_small) << is.message();
  out.gate = gate.as(4, 1);
  EXPECT_EQ(route(on_cuda{}, logits.as(2, 12), out, {}).code(), error::bad_shape);
}

}  // namespace route_test
}  // namespace shunt::test
