// The small language model on a device: the host's bits in loss, load and every gradient, over steps
// of training; a captured step replayed as the next ones; decoding, and a captured step of it.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "shunt/counter.cuh"
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
  rng d(seed);
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
  twin<std::int64_t> taken{{0}};  // steps
  twin<float> rate{nans(1)};
  twin<std::uint64_t> first_token{{0}};
  std::vector<std::byte> host_work;
  on_device<std::byte> device_work;

  trainee(model_config const& config, index_t B, index_t S)
      : c(config),
        batch(B),
        length(S),
        token_loss(nans(static_cast<std::size_t>(B * S))),
        counts(std::vector<index_t>(static_cast<std::size_t>(c.layers * c.experts))),
        tokens(some_tokens(c, B, S + 1, 5)),
        host_work(nn::model_train_scratch_bytes<float>(on_host{}, c, B, S)),
        device_work(
            static_cast<offset_t>(nn::model_train_scratch_bytes<float>(on_cuda{}, c, B, S))) {
    EXPECT_TRUE(nn::model_init(on_host{}, c, values.of(on_host{}, count), 3).ok());
    EXPECT_TRUE(nn::model_init(on_cuda{}, c, values.of(on_cuda{}, count), 3).ok());
  }
  static std::vector<float> nans(std::size_t n) { return std::vector<float>(n, std::nanf("")); }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(count); }
  arena<space::host> work(on_host const&) { return host_work; }
  arena<space::device> work(on_cuda const&) { return {device_work.data(), device_work.size()}; }

  template <class P> status train(P const& on, route_draws<P::memory> const& draws = {}) {
    constexpr space S = P::memory;
    nn::model_weights<float, S> const weights{.values = values.of(on, count)};
    nn::model_report<S> const report{.loss = loss.of(on, 1),
                                     .token_loss = token_loss.of(on, batch, length),
                                     .counts = counts.of(on, c.layers, c.experts)};
    return nn::model_train<float>(on, c, weights, tokens.of(on, batch, length + 1),
                                  gradients.of(on, count), report, work(on), {}, draws);
  }
  template <class P>
  status update(P const& on, nn::adamw_options const& o,
                nn::adamw_scalars<P::memory> const& scalars = {}) {
    nn::adamw_state<float, P::memory> const state{.parameter = values.of(on, count),
                                                  .gradient = gradients.of(on, count),
                                                  .first_moment = first.of(on, count),
                                                  .second_moment = second.of(on, count)};
    return nn::model_update<float>(on, c, state, norm.of(on, 1), work(on), o, scalars);
  }
  template <class P> status update(P const& on, int step) {
    return update(on, nn::adamw_options{.step = step});
  }
  /// A step whose rate, bias corrections and draws are of numbers in memory, and those numbers for
  /// the next.
  template <class P>
  status step_from_memory(P const& on, nn::cosine_schedule const& schedule,
                          nn::adamw_options const& o) {
    auto const n = taken.of(on, 1);
    auto const eta = rate.of(on, 1);
    auto const token = first_token.of(on, 1);
    status done = train(on, {.first_token = token});
    if (done.ok()) done = nn::scheduled_rate(on, schedule, n, eta);
    if (done.ok()) done = advance(on, n);
    if (done.ok()) done = update(on, o, {.step = n, .rate = eta});
    if (done.ok()) done = advance(on, token, static_cast<std::uint64_t>(batch * length));
    return done;
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

// The host's steps have scalars, which a graph would freeze: rate, bias corrections, the routers' draws.
TEST(CudaModel, Battery18_ACapturedStepReplayedIsTheNextStep) {
  model_config c = small();
  c.route.jitter = 0.2f;
  c.route.random_second = true;
  c.route.seed = 9;
  nn::cosine_schedule const schedule{.peak = 0.02, .floor = 0.001, .warm_up = 4, .steps = 17};
  nn::adamw_options const fixed{.weight_decay = 0.1f, .clip = 0.5f};
  trainee t(c, 2, 20);
  captured step([&](on_cuda const& on) { return t.step_from_memory(on, schedule, fixed); });
  for (int n = 1; n <= 20; ++n) {
    SCOPED_TRACE(n);
    t.tokens.fill(some_tokens(c, 2, 21, static_cast<std::uint64_t>(n)));
    step.replay();
    t.c.route.first_token = static_cast<std::uint64_t>(40 * (n - 1));
    nn::adamw_options o = fixed;
    o.step = n;
    o.rate = nn::rate_at(schedule, n - 1);
    ASSERT_TRUE(t.train(on_host{}).ok() && t.update(on_host{}, o).ok());
    ASSERT_NO_FATAL_FAILURE(t.expect_same());
    EXPECT_EQ(t.rate.device.host()[0], o.rate);
    EXPECT_EQ(t.taken.device.host()[0], n);
  }
}
TEST(CudaModel, StepsFromMemoryAreThoseFromScalarsOnAHostToo) {
  trainee memory(small(), 1, 9), scalars(small(), 1, 9);
  nn::cosine_schedule const schedule{.peak = 0.02, .floor = 0.001, .warm_up = 2, .steps = 4};
  for (int n = 1; n <= 5; ++n) {
    ASSERT_TRUE(memory.step_from_memory(on_host{}, schedule, {}).ok());
    ASSERT_TRUE(scalars.train(on_host{}).ok());
    ASSERT_TRUE(scalars.update(on_host{}, {.rate = nn::rate_at(schedule, n - 1), .step = n}).ok());
    EXPECT_TRUE(same_values(memory.values.host, scalars.values.host)) << n;
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

/// A model that writes one token of each of two sequences at a time.
template <class T> struct writer {
  static constexpr index_t capacity = 16;
  model_config c = small();
  index_t batch;
  offset_t count = nn::parameter_count(c);
  offset_t elements = nn::model_cache_elements(c, batch, capacity);
  twin<T> values, memory{std::vector<T>(static_cast<std::size_t>(elements), from_float<T>(9.0f))};
  twin<float> logits{trainee::nans(static_cast<std::size_t>(batch * c.vocabulary))};
  twin<index_t> tokens;
  std::size_t bytes = 0;
  std::vector<std::byte> host_work;
  on_device<std::byte> device_work;

  explicit writer(index_t sequences, index_t most)
      : batch(sequences),
        values(weights(count)),
        tokens(std::vector<index_t>(static_cast<std::size_t>(sequences * most))),
        host_work(nn::model_decode_scratch_bytes<T>(on_host{}, c, sequences, most)),
        device_work(static_cast<offset_t>(
            nn::model_decode_scratch_bytes<T>(on_cuda{}, c, sequences, most))) {}
  static std::vector<T> weights(offset_t count) {
    rng d(11);
    std::vector<T> w(static_cast<std::size_t>(count));
    for (T& x : w) x = from_float<T>(0.3f * static_cast<float>(d.normal()));
    return w;
  }
  arena<space::host> work(on_host const&) { return host_work; }
  arena<space::device> work(on_cuda const&) { return {device_work.data(), device_work.size()}; }

  void give(std::vector<index_t> const& next) {
    std::copy(next.begin(), next.end(), tokens.host.begin());
    tokens.device.fill(tokens.host);
  }
  template <class P>
  status decode(P const& on, index_t length,
                std::type_identity_t<nn::token_positions<P::memory>> positions) {
    constexpr space S = P::memory;
    nn::model_weights<T, S> const weights{.values = values.of(on, count)};
    nn::model_cache<T, S> const cache{memory.of(on, elements), batch, capacity};
    return nn::model_decode<T>(on, c, weights, tokens.of(on, batch, length), positions, cache,
                               logits.of(on, batch, c.vocabulary), work(on));
  }
  [[nodiscard]] index_t token(index_t sequence, index_t at) const {
    return (5 * at + 3 * sequence) % c.vocabulary;
  }
};

/// Sequence `b` alone, token by token, its position a scalar: the logits after each of `n` tokens.
template <class T, class P>
std::vector<std::vector<float>> alone(P const& on, index_t b, index_t n) {
  writer<T> w(1, 1);
  std::vector<std::vector<float>> all;
  for (index_t at = 0; at < n; ++at) {
    w.give({w.token(b, at)});
    status const done = w.decode(on, 1, at);
    EXPECT_TRUE(done.ok()) << done.message();
    all.push_back(P::memory == space::host ? w.logits.host : w.logits.device.host());
  }
  return all;
}
std::vector<float> row(std::vector<float> const& m, index_t b, std::size_t width) {
  auto const from = m.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(b) * width);
  return {from, from + static_cast<std::ptrdiff_t>(width)};
}

template <class T> class CudaModelDecode : public testing::Test {};
using decoded = testing::Types<float, bf16>;
TYPED_TEST_SUITE(CudaModelDecode, decoded);

// `apart`: the second sequence is four tokens ahead, each has a position of its own.
TYPED_TEST(CudaModelDecode, Battery18_ACapturedStepReplayedWritesTokenByToken) {
  using T = TypeParam;
  // Half precision runs on tensor cores: the device's own bits, not the host's.
  constexpr bool floats = std::is_same_v<T, float>;
  constexpr index_t steps = 10, before = 4;
  std::vector<std::vector<float>> want[2];
  for (index_t b : {0, 1}) {
    want[b] =
        floats ? alone<T>(on_host{}, b, steps + before) : alone<T>(on_cuda{}, b, steps + before);
  }
  for (bool apart : {false, true}) {
    SCOPED_TRACE(apart);
    writer<T> w(2, before);
    twin<index_t> at(apart ? std::vector<index_t>{-before, 0} : std::vector<index_t>{0});
    auto const positions = [&](auto const& on) { return at.of(on, apart ? 2 : 1); };
    auto const both = [&](auto const& call) {
      return call(on_host{}).ok() && call(on_cuda{}).ok();
    };
    if (apart) {  // the first sequence has no position yet and is left out
      std::vector<index_t> first;
      for (index_t i = 0; i < 2 * before; ++i) first.push_back(w.token(i / before, i % before));
      w.give(first);
      ASSERT_TRUE(both([&](auto const& on) { return w.decode(on, before, positions(on)); }));
      EXPECT_TRUE(same_values(row(w.logits.device.host(), 1, 13), want[1][before - 1]));
      at.fill({0, before});
    }
    captured step([&](on_cuda const& on) {
      status const done = w.decode(on, 1, positions(on));
      return done.ok() ? advance(on, positions(on)) : done;
    });
    for (index_t n = 0; n < steps; ++n) {
      SCOPED_TRACE(n);
      index_t const ahead = apart ? before : 0;
      w.give({w.token(0, n), w.token(1, n + ahead)});
      step.replay();
      ASSERT_TRUE(w.decode(on_host{}, 1, positions(on_host{})).ok());
      ASSERT_TRUE(advance(on_host{}, positions(on_host{})).ok());
      auto const got = w.logits.device.host();
      EXPECT_TRUE(same_values(row(got, 0, 13), want[0][static_cast<std::size_t>(n)]));
      EXPECT_TRUE(same_values(row(got, 1, 13), want[1][static_cast<std::size_t>(n + ahead)]));
      if (floats) EXPECT_TRUE(same_values(got, w.logits.host));
    }
    EXPECT_EQ(at.device.host(), at.host);
  }
}

}  // namespace model_test
}  // namespace shunt::test
