// The small language model on a device: the host's bits in loss, load and every gradient, over steps
// of training; a captured step replayed with other tokens; decoding.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "shunt/nn/model.cuh"
#include "support/device_graph.hpp"
#include "support/device_values.hpp"

namespace shunt::test {
namespace model_test {

using nn::model_config;

model_config small() {
  model_config c;
  c.vocabulary = 13;
  c.layers = 2;
  c.width = 12;
  c.heads = 3;
  c.kv_heads = 1;
  c.context = 64;
  c.experts = 5;
  c.top_k = 2;
  c.intermediate = 7;
  c.balance_loss = 0.05f;
  c.z_loss = 0.01f;
  return c;
}
std::vector<std::pair<char const*, model_config>> variants() {
  model_config shared = small(), tied = small(), dense = small();
  shared.shared_intermediate = 5;
  shared.kv_heads = 3;
  tied.tied_head = true;
  tied.top_k = 5;
  dense.dense = true;
  return {{"mixture", small()}, {"dense", dense}, {"shared", shared}, {"tied", tied}};
}

std::vector<index_t> some_tokens(model_config const& c, index_t batch, index_t length,
                                 std::uint64_t seed) {
  dice d(seed);
  std::vector<index_t> tokens(static_cast<std::size_t>(batch * length));
  for (index_t& t : tokens) t = d.below(7) == 0 ? -1 : static_cast<index_t>(d.below(c.vocabulary));
  return tokens;
}

/// A model in training, in the memory of both policies.
struct trainee {
  model_config c;
  index_t batch, length;
  offset_t count = nn::parameter_count(c);
  twin<float> values{std::vector<float>(size())}, gradients{nans(size())};
  twin<float> first{std::vector<float>(size())}, second{std::vector<float>(size())};
  twin<float> loss{nans(1)}, token_loss, norm{nans(1)};
  twin<index_t> counts, tokens;
  std::vector<std::byte> host_work;
  on_device<std::byte> device_work;

  trainee(model_config const& config, index_t B, index_t S)
      : c(config),
        batch(B),
        length(S),
        token_loss(nans(static_cast<std::size_t>(B * S))),
        counts(std::vector<index_t>(static_cast<std::size_t>(c.layers * c.experts))),
        tokens(some_tokens(c, B, S + 1, 5)),
        host_work(nn::model_train_bytes<float>(on_host{}, c, B, S)),
        device_work(static_cast<offset_t>(nn::model_train_bytes<float>(on_cuda{}, c, B, S))) {
    EXPECT_TRUE(nn::model_init(on_host{}, c, values.of(on_host{}, count), 3).ok());
    EXPECT_TRUE(nn::model_init(on_cuda{}, c, values.of(on_cuda{}, count), 3).ok());
  }
  static std::vector<float> nans(std::size_t n) { return std::vector<float>(n, std::nanf("")); }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(count); }
  arena<space::host> work(on_host const&) { return host_work; }
  arena<space::device> work(on_cuda const&) { return {device_work.data(), device_work.size()}; }

  template <class P> status train(P const& on) {
    constexpr space S = P::memory;
    nn::model_weights<float, S> const weights{.values = values.of(on, count)};
    nn::model_report<S> const report{.loss = loss.of(on, 1),
                                     .token_loss = token_loss.of(on, batch, length),
                                     .counts = counts.of(on, c.layers, c.experts)};
    return nn::model_train<float>(on, c, weights, tokens.of(on, batch, length + 1),
                                  gradients.of(on, count), report, work(on));
  }
  template <class P> status update(P const& on, int step) {
    nn::adamw_state<float, P::memory> const state{.parameter = values.of(on, count),
                                                  .gradient = gradients.of(on, count),
                                                  .first_moment = first.of(on, count),
                                                  .second_moment = second.of(on, count)};
    return nn::model_update<float>(on, c, state, norm.of(on, 1), work(on), {.step = step});
  }
  void expect_same() const {
    EXPECT_TRUE(same_values(loss.device.host(), loss.host)) << "loss";
    EXPECT_TRUE(same_values(token_loss.device.host(), token_loss.host)) << "token_loss";
    EXPECT_TRUE(same_values(counts.device.host(), counts.host)) << "counts";
    EXPECT_TRUE(same_values(gradients.device.host(), gradients.host)) << "gradients";
    EXPECT_TRUE(same_values(values.device.host(), values.host)) << "values";
    EXPECT_TRUE(std::isfinite(loss.host[0]));
  }
};

TEST(CudaModel, TrainsWithTheHostsBits) {
  for (auto const& [name, c] : variants()) {
    SCOPED_TRACE(name);
    trainee t(c, 2, 33);
    for (int step = 1; step <= 3; ++step) {
      SCOPED_TRACE(step);
      t.tokens.fill(some_tokens(c, 2, 34, static_cast<std::uint64_t>(step)));
      status const h = t.train(on_host{}), d = t.train(on_cuda{});
      ASSERT_TRUE(h.ok()) << h.message();
      ASSERT_TRUE(d.ok()) << d.message();
      t.expect_same();
      ASSERT_TRUE(t.update(on_host{}, step).ok() && t.update(on_cuda{}, step).ok());
      t.expect_same();
    }
  }
}

TEST(CudaModel, Battery18_ACapturedStepReplayedWithOtherTokens) {
  trainee t(small(), 2, 20);
  captured step([&](on_cuda const& on) {
    status const done = t.train(on);
    return done.ok() ? t.update(on, 1) : done;
  });
  for (std::uint64_t seed : {7u, 8u, 9u}) {
    t.tokens.fill(some_tokens(t.c, 2, 21, seed));
    step.replay();
    ASSERT_TRUE(t.train(on_host{}).ok() && t.update(on_host{}, 1).ok());
    t.expect_same();
  }
}

TEST(CudaModel, DecodesInPiecesWithTheHostsBits) {
  model_config const c = small();
  trainee t(c, 2, 12);
  index_t const capacity = 16;
  auto const elements = nn::model_cache_elements(c, 2, capacity);
  twin<float> memory{trainee::nans(static_cast<std::size_t>(elements))};
  twin<float> logits{trainee::nans(static_cast<std::size_t>(2 * c.vocabulary))};
  twin<index_t> ids(some_tokens(c, 2, 9, 4));
  for (index_t& id : ids.host) id = id < 0 ? 0 : id;
  ids.fill(ids.host);
  index_t at = 0;
  for (index_t n : {5, 1, 3}) {
    auto const feed = [&](auto on) {
      constexpr space S = decltype(on)::memory;
      auto const all = ids.of(on, 2, 9);
      view<index_t const, 2, S> const piece(all.data() + at, {{2, n}}, {{9, 1}});
      nn::model_weights<float, S> const weights{.values = t.values.of(on, t.count)};
      nn::model_cache<float, S> const cache{memory.of(on, elements), 2, capacity};
      return nn::model_decode<float>(on, c, weights, piece, at, cache,
                                     logits.of(on, 2, c.vocabulary), t.work(on));
    };
    status const h = feed(on_host{}), d = feed(on_cuda{});
    ASSERT_TRUE(h.ok()) << h.message();
    ASSERT_TRUE(d.ok()) << d.message();
    EXPECT_TRUE(same_values(logits.device.host(), logits.host)) << "at " << at;
    at += n;
  }
}

}  // namespace model_test
}  // namespace shunt::test
