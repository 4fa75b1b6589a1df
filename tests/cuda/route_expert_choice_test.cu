// Expert choice, both ways, on a device: the host's bits, whose numbers are the oracle's.
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "shunt/route.cuh"
#include "support/device_graph.hpp"
#include "support/device_values.hpp"
#include "support/normal_vector.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_expert_choice_test {

constexpr float inf = std::numeric_limits<float>::infinity(),
                nan = std::numeric_limits<float>::quiet_NaN();

/// Tokens that experts choose, and the gradients of their gates.
template <class T = float, class G = float> struct choice {
  offset_t tokens, experts, each;
  route_options o;
  twin<T> logits;
  twin<index_t> token, counts, coverage;
  twin<float> gate, d_gate;
  twin<std::int64_t> report;
  twin<std::uint8_t> valid;
  twin<G> d_logits;
  bool masked = false;

  choice(offset_t t, offset_t e, offset_t c, score_kind score = score_kind::softmax)
      : tokens(t),
        experts(e),
        each(c),
        o{.score = score, .scale = 1.5f, .accumulate = true},  // which means nothing here
        logits(normal_vector<T>(t * e, 1)),
        token(values<index_t>(e * c, 2)),
        counts(values<index_t>(e, 3)),
        coverage(values<index_t>(t, 4)),
        gate(normal_vector(e * c, 5)),
        d_gate(normal_vector(e * c, 6)),
        report(values<std::int64_t>(route_events, 7)),
        valid(std::vector<std::uint8_t>(static_cast<std::size_t>(t), 1)),
        d_logits(normal_vector<G>(t * e, 8)) {}

  template <execution P> expert_choice<P::memory> out(P const& on) {
    return {.token = token.of(on, experts, each),
            .gate = gate.of(on, experts, each),
            .counts = counts.of(on, experts),
            .coverage = coverage.of(on, tokens),
            .report = report.of(on, route_events)};
  }
  template <execution P> std::size_t bytes(P const& on) const {
    return route_expert_choice_scratch_bytes(
        on, {.tokens = static_cast<index_t>(tokens), .experts = static_cast<index_t>(experts)});
  }
  template <execution P> auto mask(P const& on) {
    return masked ? valid.of(on, tokens) : decltype(valid.of(on, tokens)){};
  }
  template <execution P, class Bytes> status forward(P const& on, Bytes& work) {
    return route_expert_choice(on, logits.of(on, tokens, experts), out(on), arena_of(on, work), o,
                               mask(on));
  }
  template <execution P, class Bytes> status backward(P const& on, Bytes& work) {
    return route_expert_choice_backward(
        on, logits.of(on, tokens, experts), out(on), d_gate.of(on, experts, each),
        d_logits.of(on, tokens, experts), arena_of(on, work), o, mask(on));
  }
  void expect_forward(std::string const& what) {
    SCOPED_TRACE(what);
    on_both_policies([&](auto on) {
      auto work = scratch_for(on, bytes(on));
      return forward(on, work);
    });
    EXPECT_TRUE(token.same()) << "token";
    EXPECT_TRUE(gate.same()) << "gate";
    EXPECT_TRUE(counts.same()) << "counts";
    EXPECT_TRUE(coverage.same()) << "coverage";
    EXPECT_TRUE(report.same()) << "report";
  }
  void expect_backward(std::string const& what) {
    SCOPED_TRACE(what);
    on_both_policies([&](auto on) {
      auto work = scratch_for(on, bytes(on));
      return backward(on, work);
    });
    EXPECT_TRUE(d_logits.same()) << "d_logits";
  }
  void expect_same(std::string const& what) {
    expect_forward(what);
    expect_backward(what);
    masked = true;
    for (std::size_t t = 0; t < valid.host.size(); ++t) valid.host[t] = t % 4 != 1;
    valid.device.fill(valid.host);
    expect_forward(what + ", padded");
    expect_backward(what + ", padded");
  }
};

TEST(CudaExpertChoice, AnyShapeAndScore) {
  for (auto [tokens, experts, each] : {std::array<offset_t, 3>{0, 4, 3},
                                       {1, 4, 1},
                                       {17, 5, 3},
                                       {64, 8, 16},
                                       {257, 60, 9},
                                       {9, 3, 20},
                                       {3000, 3, 550},
                                       {12, 200, 5},
                                       {40, 1025, 2}}) {
    std::string const what = "T" + std::to_string(tokens) + " E" + std::to_string(experts);
    choice<>(tokens, experts, each).expect_same(what);
    choice<>(tokens, experts, each, score_kind::logits).expect_same(what + " logits");
  }
  choice<bf16, fp16>(65, 6, 7, score_kind::sigmoid).expect_same("bf16 to fp16");
  choice<bf16, fp16>(65, 6, 7, score_kind::sqrt_softplus).expect_same("bf16 to fp16");
}

/// Equal scores, both zeros, masks, numbers that are none, and an expert that nobody may go to.
TEST(CudaExpertChoice, TiesGoToTheLowerTokenAndMasksAreNeverTaken) {
  for (auto score : {score_kind::softmax, score_kind::sigmoid, score_kind::logits}) {
    for (offset_t each : {1, 700, 1500}) {
      choice<> q(1500, 5, each, score);
      auto z = q.logits.host;
      rng d(3);
      constexpr float few[] = {0.0f, -0.0f, 1.0f, -2.0f, -inf, nan, inf, 0.5f};
      for (float& x : z) x = few[d.below(8)];
      for (std::size_t t = 0; t < 1500; ++t) z[t * 5 + 2] = t == 1203 ? 4.0f : -inf;
      for (std::size_t t = 0; t < 1500; ++t) z[t * 5 + 3] = -inf;
      std::fill(z.begin(), z.begin() + 5, -inf);
      q.logits.fill(z);
      q.expect_same(std::string(to_string(score)) + " C" + std::to_string(each));
    }
  }
}

TEST(CudaExpertChoice, BackwardTakesAnyTable) {
  choice<> q(30, 7, 12);
  rng d(5);
  std::vector<index_t> token;
  for (int i = 0; i < 7 * 12; ++i) token.push_back(static_cast<index_t>(d.below(34)) - 2);
  q.token.fill(token);
  q.expect_backward("with repeats and wild tokens");
}

TEST(CudaExpertChoice, CapturedAndReplayedWithAnotherBatch) {
  choice<> q(300, 6, 50, score_kind::sigmoid);
  on_cuda const sizing;
  auto work = scratch_for(sizing, q.bytes(sizing));
  captured graph([&](on_cuda const& on) {
    status const done = q.forward(on, work);
    return done.ok() ? q.backward(on, work) : done;
  });
  on_host const host;
  auto host_work = scratch_for(host, q.bytes(host));
  for (std::uint64_t seed : {1, 2}) {
    q.logits.fill(normal_vector(300 * 6, seed));
    graph.replay();
    ASSERT_TRUE(q.forward(host, host_work).ok());
    ASSERT_TRUE(q.backward(host, host_work).ok());
    EXPECT_TRUE(q.token.same());
    EXPECT_TRUE(q.coverage.same());
    EXPECT_TRUE(q.d_logits.same());
  }
}

TEST(CudaExpertChoice, RefusesBeforeAnythingIsEnqueued) {
  choice<> q(4, 6, 2);
  on_device<std::byte> work(64);
  auto const before = q.token.device.host();
  EXPECT_EQ(q.forward(on_cuda{}, work).code(), error::arena_too_small);
  EXPECT_EQ(q.backward(on_cuda{}, work).code(), error::arena_too_small);
  q.o.groups = 2;
  EXPECT_EQ(q.forward(on_cuda{}, work).code(), error::bad_argument);
  EXPECT_EQ(q.token.device.host(), before);
}

}  // namespace route_expert_choice_test
}  // namespace shunt::test
