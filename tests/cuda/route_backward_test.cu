// The router's backward on a device: the host's bits, whose numbers are the oracle's.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "shunt/counter.cuh"
#include "shunt/route.cuh"
#include "support/device_graph.hpp"
#include "support/device_values.hpp"
#include "support/normal_vector.hpp"
#include "support/route_levels.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_backward_test {

constexpr float inf = std::numeric_limits<float>::infinity(),
                nan = std::numeric_limits<float>::quiet_NaN();

/// A batch that was routed on the host, and the gradients that come back.
template <class T = float, class G = float> struct batch {
  offset_t tokens, experts, top_k, sequences;
  route_options o;
  twin<T> logits;
  twin<index_t> expert;
  twin<float> d_gate, d_importance, d_sequence, d_z, bias;
  twin<std::uint8_t> valid;
  twin<G> d_logits;
  bool load = true, z = true, biased = false, masked = false;

  batch(offset_t t, offset_t e, offset_t k, route_options const& options = {}, offset_t n = 1,
        std::uint64_t seed = 1)
      : tokens(t),
        experts(e),
        top_k(k),
        sequences(n),
        o(options),
        logits(normal_vector<T>(t * e, seed)),
        expert(std::vector<index_t>(static_cast<std::size_t>(t * k), -1)),
        d_gate(normal_vector(t * k, seed + 1)),
        d_importance(normal_vector(e, seed + 2)),
        d_sequence(normal_vector(n * e, seed + 3)),
        d_z(normal_vector(t, seed + 4)),
        bias(normal_vector(e, seed + 5, 0.2f)),
        valid(std::vector<std::uint8_t>(static_cast<std::size_t>(t), 1)),
        d_logits(normal_vector<G>(t * e, seed + 6)) {}

  template <execution P> std::size_t bytes(P const& on) const {
    return route_scratch_bytes(on,
                               {.tokens = static_cast<index_t>(tokens),
                                .experts = static_cast<index_t>(experts),
                                .top_k = static_cast<index_t>(top_k)},
                               static_cast<index_t>(sequences));
  }
  template <execution P> route_inputs<P::memory> inputs(P const& on) {
    route_inputs<P::memory> with;
    if (biased) with.choice_bias = bias.of(on, experts);
    if (masked) with.valid = valid.of(on, tokens);
    return with;
  }
  void choose() {
    std::vector<float> gate(expert.host.size());
    on_host const on;
    routing<> out;
    out.expert = expert.of(on, tokens, top_k);
    out.gate = {gate.data(), {{tokens, top_k}}};
    auto work = scratch_for(on, bytes(on));
    status const done = route(on, logits.of(on, tokens, experts), inputs(on), out, work, o);
    ASSERT_TRUE(done.ok()) << done.message();
    expert.device.fill(expert.host);
  }
  template <execution P, class D, class Bytes> status backward(P const& on, D d_to, Bytes& work) {
    routing<P::memory> chosen;
    chosen.expert = expert.of(on, tokens, top_k);
    route_gradients<P::memory> d;
    d.gate = d_gate.of(on, tokens, top_k);
    if (load) d.importance = d_importance.of(on, experts);
    if (load) d.sequence_importance = d_sequence.of(on, sequences, experts);
    if (z) d.z = d_z.of(on, tokens);
    return route_backward(on, logits.of(on, tokens, experts), inputs(on), chosen, d, d_to,
                          arena_of(on, work), o);
  }
  void expect_same(std::string const& what) {
    SCOPED_TRACE(what);
    on_both_policies([&](auto on) {
      auto work = scratch_for(on, bytes(on));
      return backward(on, d_logits.of(on, tokens, experts), work);
    });
    EXPECT_TRUE(d_logits.same()) << what;
  }
  void choose_and_expect_same(std::string const& what) {
    choose();
    expect_same(what);
    load = false;
    expect_same(what + ", no load");
    z = false;
    expect_same(what + ", gates alone");
  }
};

// The host is given seed and first token by value, the graph reads them from memory and adds to them.
TEST(CudaRouteBackward, Battery18_ACapturedGraphDrawsAnewInEachReplay) {
  constexpr offset_t tokens = 40;
  for (bool second : {false, true}) {
    SCOPED_TRACE(second);
    batch<> q(tokens, 16, 2,
              {.gates = gate_kind::renormalized,
               .jitter = second ? 0.0f : 0.3f,
               .random_second = second,
               .seed = 5,
               .first_token = 7});
    twin<float> gate(normal_vector(tokens * 2, 9));
    twin<std::uint64_t> seed{{5}}, first{{7}};
    auto const call = [&](auto const& on, auto const& with, auto& work) {
      constexpr space S = std::remove_cvref_t<decltype(on)>::memory;
      routing<S> out;
      out.expert = q.expert.of(on, tokens, 2);
      out.gate = gate.of(on, tokens, 2);
      auto const logits = q.logits.of(on, tokens, 16);
      status const done = route(on, logits, with, out, arena_of(on, work), q.o);
      route_gradients<S> d;
      d.gate = q.d_gate.of(on, tokens, 2);
      if (!done.ok()) return done;
      return route_backward(on, logits, with, out, d, q.d_logits.of(on, tokens, 16),
                            arena_of(on, work), q.o);
    };
    auto work = scratch_for(on_cuda{}, q.bytes(on_cuda{}));
    auto host_work = scratch_for(on_host{}, q.bytes(on_host{}));
    captured graph([&](on_cuda const& on) {
      route_inputs<space::device> with;
      with.draws = {seed.of(on, 1), first.of(on, 1)};
      status done = call(on, with, work);
      if (done.ok()) done = advance(on, seed.of(on, 1), 3);
      return done.ok() ? advance(on, first.of(on, 1), tokens) : done;
    });
    std::vector<std::vector<float>> gates, gradients;
    for (int n = 0; n < 4; ++n) {
      graph.replay();
      ASSERT_TRUE(call(on_host{}, route_inputs<>{}, host_work).ok());
      EXPECT_TRUE(q.expert.same() && gate.same() && q.d_logits.same()) << n;
      gates.push_back(gate.host);
      gradients.push_back(q.d_logits.host);
      q.o.seed += 3;
      q.o.first_token += tokens;
    }
    for (std::size_t n = 1; n < gates.size(); ++n) {
      EXPECT_NE(gates[n], gates[n - 1]) << "the draws are the last ones";
      EXPECT_NE(gradients[n], gradients[n - 1]);
    }
  }
}

TEST(CudaRouteBackward, EveryPreset) {
  for (preset const* const p : presets::all) {
    offset_t const top_k = p->sizes.top_k > 0 ? p->sizes.top_k : 2;
    batch<> q(24, p->sizes.experts + p->route.zero_experts, top_k, p->route, 3);
    q.biased = p->choice_bias;
    q.choose_and_expect_same(p->name);
  }
}

TEST(CudaRouteBackward, EveryScoreAndGate) {
  for (auto score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    for (auto gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      for (float epsilon : {0.0f, 0.125f}) {
        batch<bf16, fp16> q(
            19, 60, 6,
            {.score = score, .gates = gates, .scale = 2.5f, .epsilon = epsilon, .jitter = 0.1f});
        q.choose_and_expect_same(std::string(to_string(score)) + " gates " +
                                 std::to_string(static_cast<int>(gates)));
      }
    }
  }
}

TEST(CudaRouteBackward, Battery03_WhatIsNotFiniteAndSlotsThatAreEmptyGetNothing) {
  for (auto score :
       {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus, score_kind::logits}) {
    batch<> q(12, 40, 4, {.score = score, .gates = gate_kind::renormalized, .jitter = 0.2f});
    auto z = q.logits.host;
    auto const row = [&](offset_t t) { return z.begin() + t * 40; };
    std::fill(row(0), row(1), nan);
    std::fill(row(1), row(2), -inf);
    std::fill(row(2), row(3), inf);
    std::fill(row(4), row(5), -inf), *(row(4) + 17) = -3.0f;
    *(row(5) + 3) = nan, *(row(5) + 4) = inf, *(row(5) + 5) = -inf;
    std::fill(row(6), row(7), 200.0f);
    std::fill(row(7), row(8), -200.0f);
    *(row(8) + 39) = std::numeric_limits<float>::max();
    q.logits.fill(z);
    q.choose();
    auto ids = q.expert.host;
    auto d = q.d_gate.host;
    ids[36] = -1, d[36] = nan;  // taken away by another stage
    ids[37] = 40, d[37] = nan;  // wild
    ids[38] = -7, ids[39] = ids[40] = 2;
    q.expert.fill(ids);
    q.d_gate.fill(d);
    q.expect_same(to_string(score));
    q.masked = true;
    for (std::size_t t = 0; t < 12; ++t) q.valid.host[t] = t % 3 != 1;
    q.valid.device.fill(q.valid.host);
    q.expect_same(std::string(to_string(score)) + ", padding");
  }
}

TEST(CudaRouteBackward, Battery33_GradientsOfAnyLogits) {
  for (auto score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (auto gates : {gate_kind::raw, gate_kind::renormalized}) {
      for (float epsilon : {0.0f, 1e-20f}) {
        auto const z = logits_of_all_levels(24);
        batch<> q(static_cast<offset_t>(z.size()) / 24, 24, 4,
                  {.score = score, .gates = gates, .scale = 2.5f, .epsilon = epsilon});
        q.logits.fill(z);
        for (bool biased : {false, true}) {
          q.biased = biased, q.load = q.z = true;
          q.choose_and_expect_same(to_string(score) + (" epsilon " + std::to_string(epsilon)));
          for (float d : q.d_logits.device.host()) ASSERT_TRUE(std::isfinite(d));
        }
      }
    }
  }
}

TEST(CudaRouteBackward, Battery19And20_AnyExpertsAndChoices) {
  for (index_t experts : expert_counts) {
    batch<> q(9, experts, std::min<offset_t>(experts, 8), {.score = score_kind::sigmoid});
    q.choose_and_expect_same(std::to_string(experts) + " experts");
  }
  batch<> many(1100, 8, 2, {.gates = gate_kind::renormalized}, 11);
  many.choose_and_expect_same("many tokens");
  batch<> wide(70, 64, 50, {.gates = gate_kind::renormalized, .epsilon = 1e-6f});
  wide.choose_and_expect_same("fifty of 64");
  batch<> general(600, 1100, 40, {.jitter = 0.1f});
  general.choose_and_expect_same("forty of 1100");
}

/// GShard: the first gate's share was taken against the second expert, dropped or not.
TEST(CudaRouteBackward, ADroppedSecondIsChosenAgain) {
  for (bool biased : {false, true}) {
    for (index_t groups : {1, 4}) {
      for (auto score : {score_kind::softmax, score_kind::sigmoid}) {
        batch<> q(150, 16, 2,
                  {.score = score,
                   .gates = gate_kind::renormalized,
                   .groups = groups,
                   .top_groups = groups == 1 ? 1 : 2,
                   .group_by = group_rule::sum_of_two_best,
                   .jitter = 0.1f,
                   .random_second = true,
                   .seed = 3});
        q.biased = biased;
        q.choose();
        ASSERT_GT(std::count(q.expert.host.begin(), q.expert.host.end(), -1), 0);
        q.expect_same("second");
      }
    }
  }
}

TEST(CudaRouteBackward, InPlaceAndInStridedRows) {
  batch<> q(21, 13, 3);
  q.choose();
  on_host const host;
  auto work = scratch_for(host, q.bytes(host));
  ASSERT_TRUE(q.backward(host, q.d_logits.of(host, 21, 13), work).ok());
  std::vector<float> wide(21 * 20, 7.0f);
  on_device<float> const to(wide);
  on_cuda const on;
  auto device_work = scratch_for(on, q.bytes(on));
  view<float, 2, space::device> const rows(to.data(), {{21, 13}}, {{20, 1}});
  ASSERT_TRUE(q.backward(on, rows, device_work).ok());
  for (std::size_t i = 0; i < q.d_logits.host.size(); ++i) {
    wide[i / 13 * 20 + i % 13] = q.d_logits.host[i];
  }
  EXPECT_TRUE(same_values(to.host(), wide));
  ASSERT_TRUE(q.backward(on, q.logits.of(on, 21, 13), device_work).ok());
  EXPECT_TRUE(same_values(q.logits.device.host(), q.d_logits.host));
}

TEST(CudaRouteBackward, CapturedAndReplayedWithAnotherBatch) {
  batch<> q(40, 24, 4, {.gates = gate_kind::renormalized}, 2);
  q.choose();
  on_cuda const sizing;
  auto work = scratch_for(sizing, q.bytes(sizing));
  captured graph(
      [&](on_cuda const& on) { return q.backward(on, q.d_logits.of(on, 40, 24), work); });
  on_host const host;
  auto host_work = scratch_for(host, q.bytes(host));
  for (std::uint64_t seed : {11, 12}) {
    q.logits.fill(normal_vector(40 * 24, seed));
    q.d_gate.fill(normal_vector(160, seed + 5));
    q.d_importance.fill(normal_vector(24, seed + 10));
    q.choose();
    graph.replay();
    ASSERT_TRUE(q.backward(host, q.d_logits.of(host, 40, 24), host_work).ok());
    EXPECT_TRUE(q.d_logits.same());
  }
}

TEST(CudaRouteBackward, RefusesBeforeAnythingIsEnqueued) {
  batch<> q(4, 6, 2);
  on_cuda const on;
  auto const before = q.d_logits.device.host();
  on_device<std::byte> work(64);
  status is = q.backward(on, q.d_logits.of(on, 4, 6), work);
  EXPECT_EQ(is.code(), error::arena_too_small);
  EXPECT_NE(std::string(is.message()).find("route_backward: the arena has 64 bytes"),
            std::string::npos);
  EXPECT_EQ(q.backward(on, q.d_logits.of(on, 6, 4), work).code(), error::bad_shape);
  EXPECT_TRUE(same_values(q.d_logits.device.host(), before));
}

}  // namespace route_backward_test
}  // namespace shunt::test
