// What the layer promises beside its formulas, on every instruction set and thread count.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "shunt/layer.hpp"
#include "support/layer_cases.hpp"

namespace shunt::test {
namespace layer_contract_test {

using setup = layer_setup<float>;
using run = layer_run<float>;
on_host const one{.threads = 1};

layer_case larger(char const* name, int tokens) {
  layer_case c = family(name);
  c.f.tokens = tokens;
  return c;
}

TEST(LayerContract, SameBitsInEveryWorld) {
  for (layer_case c : layer_families()) {
    SCOPED_TRACE(c.name);
    if (c.f.tokens > 1) c.f.tokens = small_scale() ? 33 : 131;
    setup const s(c);
    run first(one, s, s.options());
    for (on_host const& on : host_configs()) {
      SCOPED_TRACE(name_of(on));
      run again(on, s, s.options());
      EXPECT_TRUE(same_results(first, again));
    }
  }
}

TEST(LayerContract, Battery15_SameBitsOnEveryRun) {
  setup const s(larger("deepseek_v3", 200));
  run first(on_host{.threads = 7}, s, s.options());
  for (int i = 0; i < 5; ++i) {
    run again(on_host{.threads = 7}, s, s.options());
    ASSERT_TRUE(same_results(first, again));
  }
}

TEST(LayerContract, Battery16_ATokensBitsDoNotDependOnTheBatch) {
  for (char const* name : {"olmoe", "deepseek_v3", "gpt_oss", "kimi_k3", "longcat", "llama4"}) {
    SCOPED_TRACE(name);
    layer_case c = larger(name, 257);
    c.f.balance = c.f.z = 0.0;  // whose gradient is the batch's
    setup const all(c);
    run whole(on_host{.threads = 2}, all, all.options());
    ASSERT_TRUE(whole.backward.ok()) << whole.backward.message();
    for (int tokens : {1, 4, 16, 64}) {
      SCOPED_TRACE(tokens);
      c.f.tokens = tokens;
      setup part(c);  // the same weights; the tokens are the last of the whole batch
      std::size_t const count = part.x.size(), from = all.x.size() - count;
      std::memcpy(part.x.data(), all.x.data() + from, count * sizeof(float));
      std::memcpy(part.d_y.data(), all.d_y.data() + from, count * sizeof(float));
      run alone(
          one, part,
          [&] {
            auto o = part.options();
            return o;
          }(),
          all.weights(), true);
      ASSERT_TRUE(alone.backward.ok()) << alone.backward.message();
      EXPECT_EQ(0, std::memcmp(alone.y.data(), whole.y.data() + from, count * sizeof(float)));
      EXPECT_EQ(0, std::memcmp(alone.d_x.data(), whole.d_x.data() + from, count * sizeof(float)));
    }
  }
}

TEST(LayerContract, Battery10_RecomputingGivesTheSameBitsAndCountsTheLoadOnce) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup const s(c);
    auto o = s.options();
    run kept(one, s, o);
    guarded<index_t> counts(std::vector<index_t>(static_cast<std::size_t>(c.f.experts), 0));
    guarded<float> importance(static_cast<std::size_t>(c.f.experts));
    guarded<index_t> tokens(std::vector<index_t>{0});
    std::fill(importance.begin(), importance.end(), 0.0f);
    o.memory = memory_mode::recompute;
    moe_outputs<float> outputs;
    if (c.taken == 0) {
      o.route.accumulate = true;
      outputs.route.counts = counts.as(c.f.experts);
      outputs.route.importance = importance.as(c.f.experts);
      outputs.route.tokens = tokens.as(1);
    }
    run again(one, s, o, true, outputs);
    EXPECT_TRUE(same_results(kept, again));
    EXPECT_FALSE(again.saved.pre);
    if (c.taken > 0) continue;
    index_t load = 0, chosen = 0;
    for (index_t n : counts) load += n;
    for (int t = 0; t < c.f.tokens; ++t) {
      for (int k = 0; k < c.f.top_k; ++k) chosen += again.saved.choice.expert(t, k) >= 0 ? 1 : 0;
    }
    EXPECT_EQ(load, chosen);
    EXPECT_EQ(tokens[0], c.f.tokens);
  }
}

TEST(LayerContract, NothingSavedNothingChanged) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup const s(c);
    run training(one, s, s.options()), inference(one, s, s.options(), false);
    ASSERT_TRUE(inference.forward.ok()) << inference.forward.message();
    EXPECT_TRUE(same_bits(training.y, inference.y));
  }
}

TEST(LayerContract, Battery01_NoTokensAndExpertsWithoutTokens) {
  for (layer_case c : layer_families()) {
    SCOPED_TRACE(c.name);
    c.f.tokens = 0;
    setup const none(c);
    run empty(on_host{.threads = 2}, none, none.options());
    ASSERT_TRUE(empty.forward.ok()) << empty.forward.message();
    ASSERT_TRUE(empty.backward.ok()) << empty.backward.message();
    empty.d.each_weight([&](char const* name, guarded<float>& g) {
      for (float v : g) ASSERT_EQ(v, 0.0f) << name;
    });
  }
  // All tokens at three of seven experts: the others' gradients are zeros, not what was there.
  setup const s(family("gpt_oss"));
  layer_formula const& f = s.is.f;
  std::vector<index_t> ids;
  for (int t = 0; t < f.tokens; ++t) ids.insert(ids.end(), {5, 2, 3});
  guarded<index_t> const forced(ids);
  auto o = s.options();
  o.ids = forced.as(f.tokens, 3);
  run few(one, s, o);
  ASSERT_TRUE(few.backward.ok()) << few.backward.message();
  std::size_t const matrix = few.d.up.size() / 7;
  for (std::size_t e = 0; e < 7; ++e) {
    bool const used = e == 5 || e == 2 || e == 3;
    float largest = 0.0f;
    for (std::size_t i = 0; i < matrix; ++i) {
      largest = std::max(largest, std::abs(few.d.up[e * matrix + i]));
      ASSERT_FALSE(std::isnan(few.d.up[e * matrix + i]));
    }
    EXPECT_EQ(largest > 0.0f, used) << e;
  }
}

/// y and all gradients are the oracle's, with the choice as the library has it.
void expect_formulas(setup& s, run& r) {
  ASSERT_TRUE(r.forward.ok()) << r.forward.message();
  ASSERT_TRUE(r.backward.ok()) << r.backward.message();
  r.tell(s.is.f);
  layer_result<var> result;
  auto const g = layer_gradients(s.is.f, s.numbers(), in_double(s.d_y), &result);
  std::vector<expectation> y;
  for (var const& v : result.y) y.push_back({v.v, v.m});
  EXPECT_TRUE(close(r.y, y, 24.0));
  EXPECT_TRUE(close(r.d_x, g.x, 24.0));
  EXPECT_TRUE(close(r.d.gate, g.gate, 24.0));
  EXPECT_TRUE(close(r.d.up, g.up, 24.0));
  EXPECT_TRUE(close(r.d.down, g.down, 24.0));
}

TEST(LayerContract, Battery02_ForcedIdsThatRepeatAnExpertCountOnce) {
  setup s(family("deepseek_v3"));
  layer_formula const& f = s.is.f;
  std::vector<index_t> ids;
  for (int t = 0; t < f.tokens; ++t) ids.insert(ids.end(), {t % 8, t % 8, (t + 3) % 8});
  guarded<index_t> const forced(ids);
  auto o = s.options();
  o.ids = forced.as(f.tokens, 3);
  run r(one, s, o);
  for (int t = 0; t < f.tokens; ++t) EXPECT_EQ(r.saved.choice.expert(t, 1), -1);
  expect_formulas(s, r);
}

TEST(LayerContract, Battery06_SlotsWithoutAnExpertAddNothing) {
  setup s(family("mixtral"));
  layer_formula const& f = s.is.f;
  std::vector<index_t> ids;
  for (int t = 0; t < f.tokens; ++t) {
    ids.push_back(t % 3 == 0 ? -1 : t % 7);
    ids.push_back(t % 5 == 0 ? -1 : (t + 1) % 7);
  }
  guarded<index_t> const forced(ids);
  auto o = s.options();
  o.ids = forced.as(f.tokens, 2);
  run r(one, s, o);
  expect_formulas(s, r);
  for (int h = 0; h < f.width; ++h) EXPECT_EQ(r.y[static_cast<std::size_t>(h)], 0.0f);
}

TEST(LayerContract, AForcedChoiceKeepsTheGatesGradient) {
  setup s(family("deepseek_v3"));
  run free(one, s, s.options());
  ASSERT_TRUE(free.forward.ok());
  auto o = s.options();
  guarded<std::int16_t> recorded(static_cast<std::size_t>(s.is.f.tokens * s.is.f.top_k));
  run recording(one, s, o, true, {.route = {.recorded = recorded.as(s.is.f.tokens, s.is.f.top_k)}});
  ASSERT_TRUE(recording.forward.ok()) << recording.forward.message();
  o = s.options();
  o.ids = view<std::int16_t const, 2>(recorded.as(s.is.f.tokens, s.is.f.top_k));
  run replayed(one, s, o);
  EXPECT_TRUE(same_results(free, replayed));
}

// What CUDA's tiles are chosen by: the rows of an expert among all that the tokens choose from, though
// a shard has room for the rows of all.
TEST(LayerContract, AShardExpectsItsShareOfTheRows) {
  guarded<float> const memory(64 * 3);
  auto const expected = [&](index_t tokens, index_t experts, index_t local, auto set) {
    moe_weights<float> const w{.gate = view<float const, 2>(memory.data(), {{experts, 3}}),
                               .up = view<float const, 3>(memory.data(), {{local, 2, 3}}),
                               .down = view<float const, 3>(memory.data(), {{local, 3, 1}})};
    layer_options<> o{.top_k = 4};
    set(o);
    auto from = arena<>::measuring();
    return carve_moe_saved(from, tokens, w, o).plan.segments().expected;
  };
  auto const plain = [](auto&) {};
  EXPECT_EQ(expected(256, 64, 64, plain), 16);
  EXPECT_EQ(expected(256, 64, 8, plain), 16);
  EXPECT_EQ(expected(3, 64, 8, plain), 1);  // fewer slots than experts
  EXPECT_EQ(expected(256, 64, 8, [](auto& o) { o.capacity = 5; }), 5);
  EXPECT_EQ(expected(256, 64, 8, [](auto& o) { o.capacity = 500; }), 16);
  EXPECT_EQ(expected(256, 64, 64, [](auto& o) { o.tokens_per_expert = 9; }), 9);
}

TEST(LayerContract, Battery08_ShardsAddUpToTheWhole) {
  for (char const* name : {"deepseek_v3", "gpt_oss", "longcat", "kimi_k3", "gshard"}) {
    SCOPED_TRACE(name);
    layer_case c = larger(name, 29);
    c.f.balance = c.f.z = 0.0;
    setup const s(c);
    layer_formula const& f = s.is.f;
    run whole(one, s, s.options());
    ASSERT_TRUE(whole.backward.ok()) << whole.backward.message();
    std::vector<double> y(s.x.size(), 0.0), d_x = y, y_size = y, d_x_size = y;
    std::vector<double> d_gate(whole.d.gate.size(), 0.0), d_gate_size = d_gate;
    int const half = f.local() / 2;
    for (int shard = 0; shard < 2; ++shard) {
      int const first = shard * half, count = shard == 0 ? half : f.local() - half;
      moe_weights<float> w = s.weights();
      w.up = w.up.slice(first, count);
      w.down = w.down.slice(first, count);
      if (f.biases) {
        w.up_bias = s.up_bias.as(f.local(), f.halves() * f.intermediate).slice(first, count);
        w.down_bias = s.down_bias.as(f.local(), f.hidden).slice(first, count);
      }
      if (shard == 1) w.shared_up = w.shared_down = {};
      auto o = s.options();
      o.first_expert = first;
      o.zero_experts_here = shard == 0;
      layer_case part = s.is;
      run r(one, s, o, w, true, count);
      ASSERT_TRUE(r.forward.ok()) << r.forward.message();
      ASSERT_TRUE(r.backward.ok()) << r.backward.message();
      double largest = 0.0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        y[i] += static_cast<double>(r.y[i]);
        y_size[i] += std::abs(static_cast<double>(r.y[i]));
        d_x[i] += static_cast<double>(r.d_x[i]);
        d_x_size[i] += std::abs(static_cast<double>(r.d_x[i]));
        largest = std::max(largest, std::abs(static_cast<double>(r.y[i])));
      }
      EXPECT_GT(largest, 1e-2) << "shard " << shard << " adds nothing";
      for (std::size_t i = 0; i < d_gate.size(); ++i) {
        d_gate[i] += static_cast<double>(r.d.gate[i]);
        d_gate_size[i] += std::abs(static_cast<double>(r.d.gate[i]));
      }
      std::size_t const matrix = whole.d.down.size() / static_cast<std::size_t>(f.local());
      EXPECT_EQ(0, std::memcmp(r.d.down.data(),
                               whole.d.down.data() + matrix * static_cast<std::size_t>(first),
                               matrix * static_cast<std::size_t>(count) * sizeof(float)));
    }
    auto const near = [](auto const& whole_values, auto const& sum, auto const& size) {
      std::vector<expectation> e;
      for (std::size_t i = 0; i < sum.size(); ++i) e.push_back({sum[i], 16.0 * size[i]});
      return close(whole_values, e, 16.0);
    };
    EXPECT_TRUE(near(whole.y, y, y_size));
    EXPECT_TRUE(near(whole.d_x, d_x, d_x_size));
    EXPECT_TRUE(near(whole.d.gate, d_gate, d_gate_size));
  }
}

TEST(LayerContract, Battery09And17_PaddingIsNobodyAndItsNanGoesNowhere) {
  for (layer_case c : layer_families()) {
    SCOPED_TRACE(c.name);
    if (c.f.tokens == 1) continue;
    c.f.tokens = 12;
    setup small(c);
    run expected(one, small, small.options());
    ASSERT_TRUE(expected.backward.ok()) << expected.backward.message();
    // The same twelve tokens, with padding of NaN between and behind them.
    c.f.tokens = 20;
    setup padded(c);
    std::vector<std::uint8_t> mask(20, 0);
    std::size_t const width = static_cast<std::size_t>(c.f.width);
    std::vector<std::size_t> place;
    for (std::size_t t = 0; t < 20; ++t) {
      if (t % 5 != 1 && t % 5 != 4) place.push_back(t);
    }
    padded.x.wipe();
    padded.d_y.wipe();
    for (std::size_t i = 0; i < place.size(); ++i) {
      mask[place[i]] = 1;
      std::memcpy(&padded.x[place[i] * width], &small.x[i * width], width * sizeof(float));
      std::memcpy(&padded.d_y[place[i] * width], &small.d_y[i * width], width * sizeof(float));
      if (c.table > 0) padded.token[place[i]] = small.token[i];
    }
    padded.set_valid(mask);
    run got(on_host{.threads = 2}, padded, padded.options(), small.weights(), true);
    ASSERT_TRUE(got.forward.ok()) << got.forward.message();
    ASSERT_TRUE(got.backward.ok()) << got.backward.message();
    for (std::size_t t = 0, i = 0; t < 20; ++t) {
      for (std::size_t h = 0; h < width; ++h) {
        float const y = mask[t] ? expected.y[i * width + h] : 0.0f;
        float const d = mask[t] ? expected.d_x[i * width + h] : 0.0f;
        ASSERT_EQ(got.y[t * width + h], y) << t;
        ASSERT_EQ(got.d_x[t * width + h], d) << t;
      }
      i += mask[t];
    }
    std::vector<guarded<float> const*> want;
    expected.d.each_weight([&](char const*, guarded<float>& g) { want.push_back(&g); });
    std::size_t at = 0;
    got.d.each_weight([&](char const* name, guarded<float>& g) {
      EXPECT_TRUE(same_bits(g, *want[at++])) << name;
    });
  }
}

TEST(LayerContract, Battery11_LossesEnterOnceWithTheirCoefficient) {
  layer_case c = family("olmoe");
  c.f.balance = 0.3;
  c.f.z = 0.0;
  setup s(c);
  guarded<float> loss(2);
  auto o = s.options();
  run r(one, s, o, true, {.loss = loss.as(2)});
  r.tell(s.is.f);
  double const balance = layer_forward(s.is.f, s.numbers()).aux;
  EXPECT_NEAR(static_cast<double>(loss[0]), balance, 1e-6 * balance);
  EXPECT_TRUE(std::isnan(loss[1])) << "a loss without coefficient was written";
  s.is.f.balance = 0.0;
  s.is.f.z = 0.2;
  o.balance_loss = 0.0f;
  o.z_loss = 0.2f;
  run z(one, s, o, true, {.loss = loss.as(2)});
  double const squares = layer_forward(s.is.f, s.numbers()).aux;
  EXPECT_NEAR(static_cast<double>(loss[1]), squares, 1e-6 * squares);
  expect_formulas(s, z);
}

TEST(LayerContract, LossesFromOutsideTakeTheirPlace) {
  layer_case c = family("olmoe");
  setup const s(c);
  auto o = s.options();
  guarded<index_t> counts(7), tokens(1);
  guarded<float> importance(7), loss(1), d(7);
  o.z_loss = 0.0f;
  run own(one, s, o);
  o.balance_loss = 0.0f;
  routing<> const load{
      .counts = counts.as(7), .importance = importance.as(7), .tokens = tokens.as(1)};
  run first(one, s, o, true, {.route = load});
  ASSERT_TRUE(first.forward.ok()) << first.forward.message();
  ASSERT_TRUE(balance_loss(one, load, loss.as(1), d.as(7), {.coefficient = 0.1f}).ok());
  o.from_losses.importance = d.as(7);
  run outside(one, s, o);
  EXPECT_TRUE(same_results(own, outside));
}

TEST(LayerContract, Battery14_RouterGradientAgainstCentralDifferences) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup s(c);
    run r(one, s, s.options());
    ASSERT_TRUE(r.backward.ok()) << r.backward.message();
    r.tell(s.is.f);
    auto const numbers = s.numbers();
    auto const d_y = in_double(s.d_y);
    auto const tape = layer_gradients(s.is.f, numbers, d_y);
    auto const some = [&](auto which, auto magnitude, guarded<float> const& got) {
      for (std::size_t i = 0; i < got.size(); i += 1 + got.size() / 19) {
        double const size = (tape.*magnitude)[i].magnitude;
        double const is = layer_difference(s.is.f, numbers, d_y, which, i);
        ASSERT_NEAR(static_cast<double>(got[i]), is, 2e-6 * size + 1e-8) << i;
      }
    };
    using plain = layer_numbers<double>;
    using wide = layer_numbers<expectation>;
    some(&plain::gate, &wide::gate, r.d.gate);
    some(&plain::x, &wide::x, r.d_x);
    some(&plain::up, &wide::up, r.d.up);
    some(&plain::down, &wide::down, r.d.down);
  }
}

TEST(LayerContract, Battery22_ZeroExpertsAreTheIdentityTimesTheScaledGate) {
  setup s(family("longcat"));
  layer_formula const& f = s.is.f;
  std::vector<index_t> ids;
  for (int t = 0; t < f.tokens; ++t) ids.insert(ids.end(), {6, 7, 8, -1});
  guarded<index_t> const forced(ids);
  auto o = s.options();
  o.ids = forced.as(f.tokens, 4);
  run r(one, s, o);
  ASSERT_TRUE(r.backward.ok()) << r.backward.message();
  std::vector<expectation> y;
  for (int t = 0; t < f.tokens; ++t) {
    double gates = 0.0;
    for (int k = 0; k < 3; ++k) gates += static_cast<double>(r.saved.choice.gate(t, k));
    for (int h = 0; h < f.width; ++h) {
      double const v = gates * static_cast<double>(s.x[static_cast<std::size_t>(t * f.width + h)]);
      y.push_back({v, std::abs(v)});
    }
  }
  ASSERT_TRUE(not_flat(y));
  EXPECT_TRUE(close(r.y, y, 4.0));
  for (float v : r.d.up) ASSERT_EQ(v, 0.0f) << "no real expert was chosen";
}

TEST(LayerContract, Battery24_TheBytesAskedForSufficeAndOneFewerIsRefused) {
  setup const s(family("kimi_k3"));
  layer_formula const& f = s.is.f;
  auto const o = s.options();
  auto const w = s.weights();
  guarded<float> y(s.x.size());
  for (bool training : {false, true}) {
    std::size_t const bytes = moe_layer_scratch_bytes(one, f.tokens, w, o, training);
    guarded<std::byte> keep(moe_saved_bytes(f.tokens, w, o)), work(bytes), less(bytes - 64 - 1);
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, f.tokens, w, o);
    ASSERT_TRUE(from.fits());
    moe_outputs<float> const given{.saved = training ? &saved : nullptr};
    y.wipe();
    status const refused = moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width),
                                     given, arena<>(less), o);
    EXPECT_EQ(refused.code(), error::arena_too_small);
    EXPECT_NE(std::strstr(refused.message(), "moe_layer.work"), nullptr) << refused.message();
    EXPECT_TRUE(std::isnan(y[0])) << "written before it was refused";
    status const good = moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width), given,
                                  arena<>(work), o);
    EXPECT_TRUE(good.ok()) << good.message();
  }
}

TEST(LayerContract, Battery18_WhatIsLeftInScratchDoesNotMatter) {
  layer_case c = family("gpt_oss");
  guarded<std::byte> work(1 << 22), keep(1 << 22);
  for (int tokens : {64, 5, 33}) {
    c.f.tokens = tokens;
    setup const s(c);
    run fresh(one, s, s.options());
    layer_formula const& f = s.is.f;
    auto const w = s.weights();
    auto const o = s.options();
    guarded<float> y(s.x.size()), d_x(s.x.size());
    gradient_buffers d(s);
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, f.tokens, w, o);
    ASSERT_TRUE(moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width),
                          {.saved = &saved}, arena<>(work), o)
                    .ok());
    ASSERT_TRUE(moe_layer_backward(one, s.x.as(f.tokens, f.width), w, s.d_y.as(f.tokens, f.width),
                                   saved, d_x.as(f.tokens, f.width), d.views(f, s.layout()),
                                   arena<>(work), o)
                    .ok());
    EXPECT_TRUE(same_bits(y, fresh.y));
    EXPECT_TRUE(same_bits(d_x, fresh.d_x));
    EXPECT_TRUE(same_bits(d.up, fresh.d.up));
  }
}

TEST(LayerContract, Battery27_GradientsOverwriteOrAdd) {
  for (char const* name : {"gpt_oss", "kimi_k3", "qwen_shared_gate", "longcat"}) {
    SCOPED_TRACE(name);
    setup const s(family(name));
    layer_formula const& f = s.is.f;
    run first(one, s, s.options());
    ASSERT_TRUE(first.backward.ok()) << first.backward.message();
    auto o = s.options();
    o.accumulate = true;
    gradient_buffers d(s);
    std::uint64_t seed = 99;
    std::vector<std::vector<double>> before;
    d.each_weight([&](char const*, guarded<float>& g) {
      g = normal_values<float>(g.size(), ++seed);
      before.push_back(in_double(g));
    });
    guarded<std::byte> work(moe_layer_backward_scratch_bytes(one, f.tokens, s.weights(), o));
    guarded<float> d_x(s.x.size());
    status const done = moe_layer_backward(
        one, s.x.as(f.tokens, f.width), s.weights(), s.d_y.as(f.tokens, f.width), first.saved,
        d_x.as(f.tokens, f.width), d.views(f, s.layout()), arena<>(work), o);
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_bits(d_x, first.d_x));
    std::vector<guarded<float> const*> once;
    first.d.each_weight([&](char const*, guarded<float>& g) { once.push_back(&g); });
    std::size_t at = 0;
    d.each_weight([&](char const* which, guarded<float>& g) {
      for (std::size_t i = 0; i < g.size(); ++i) {
        ASSERT_EQ(g[i], static_cast<float>(before[at][i]) + (*once[at])[i]) << which << " " << i;
      }
      ++at;
    });
  }
}

TEST(LayerContract, AFrozenExpertsBuffersAreNotTouchedAndTheRestIsTheSame) {
  setup const s(family("gpt_oss"));
  run all(one, s, s.options());
  guarded<std::uint8_t> const frozen(std::vector<std::uint8_t>{0, 1, 0, 0, 1, 1, 0});
  auto o = s.options();
  o.frozen = frozen.as(7);
  run some(one, s, o);
  ASSERT_TRUE(some.backward.ok()) << some.backward.message();
  EXPECT_TRUE(same_bits(all.d_x, some.d_x));
  EXPECT_TRUE(same_bits(all.d.gate, some.d.gate));
  auto const compare = [&](guarded<float> const& whole, guarded<float> const& part) {
    std::size_t const each = whole.size() / 7;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      if (frozen[i / each] != 0) {
        ASSERT_TRUE(std::isnan(part[i])) << i;
      } else {
        ASSERT_EQ(part[i], whole[i]) << i;
      }
    }
  };
  compare(all.d.up, some.d.up);
  compare(all.d.down, some.d.down);
  compare(all.d.up_bias, some.d.up_bias);
  compare(all.d.down_bias, some.d.down_bias);
}

TEST(LayerContract, AddsToYOnRequest) {
  for (char const* name : {"olmoe", "kimi_k3", "qwen_shared_gate"}) {
    SCOPED_TRACE(name);
    setup const s(family(name));
    layer_formula const& f = s.is.f;
    run plain(one, s, s.options(), false);
    auto o = s.options();
    o.add_to_y = true;
    auto y = normal_values<float>(s.x.size(), 5);
    auto const before = y;
    guarded<std::byte> work(moe_layer_scratch_bytes(one, f.tokens, s.weights(), o));
    status const done = moe_layer(one, s.x.as(f.tokens, f.width), s.weights(),
                                  y.as(f.tokens, f.width), arena<>(work), o);
    ASSERT_TRUE(done.ok()) << done.message();
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], plain.y[i] + before[i]);
  }
}

TEST(LayerContract, SavesTheBytesThatItsPageSays) {
  // docs/stages/layer.md: per token 4E + 8K (choice) + 8K (plan) + K·2I·size (pre-activations),
  // and 4(L+1) once; each array rounded up to 64 bytes.
  layer_case c = family("olmoe");
  c.f.tokens = 64;
  c.f.balance = c.f.z = 0.0;
  setup const s(c);
  auto o = s.options();
  auto const up = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  std::size_t const T = 64, E = 7, K = 3, I = 9;
  std::size_t const choice = up(4 * T * E) + 2 * up(4 * T * K);
  std::size_t const plan = up(4 * (E + 1)) + 2 * up(4 * T * K);
  std::size_t const pre = up(T * K * 2 * I * sizeof(float));
  EXPECT_EQ(moe_saved_bytes(64, s.weights(), o), choice + plan + pre + 64);
  o.memory = memory_mode::recompute;
  EXPECT_EQ(moe_saved_bytes(64, s.weights(), o), choice + plan + 64);
}

TEST(LayerContract, StagesAreNamedInOrder) {
  setup const s(family("kimi_k3"));
  auto o = s.options();
  std::vector<std::string> seen;
  o.hook = {&seen, [](void* self, char const* stage) {
              auto& names = *static_cast<std::vector<std::string>*>(self);
              if (names.empty() || names.back() != stage) names.emplace_back(stage);
            }};
  run r(one, s, o);
  ASSERT_TRUE(r.backward.ok());
  std::vector<std::string> const expected{"gate",
                                          "route",
                                          "plan",
                                          "latent",
                                          "experts",
                                          "shared",
                                          "combine",
                                          "latent",
                                          "combine",
                                          "gate_backward",
                                          "latent_backward",
                                          "experts_backward",
                                          "dispatch_backward",
                                          "combine_backward",
                                          "latent_backward",
                                          "route_backward",
                                          "gate_backward",
                                          "shared_backward"};
  EXPECT_EQ(seen, expected);
}

TEST(LayerContract, ReportsTheLoad) {
  setup const s(family("gshard"));
  load_figures figures;
  plan_counts totals;
  run r(one, s, s.options(), true,
        {.load = {.figures = view(&figures, 1)}, .plan = {.totals = view(&totals, 1)}});
  ASSERT_TRUE(r.forward.ok()) << r.forward.message();
  EXPECT_EQ(figures.slots, r.saved.plan.offset[7]);
  EXPECT_EQ(totals.rows + totals.dropped, 26);
  EXPECT_GT(totals.dropped, 0);
}

TEST(LayerContract, Battery05_RowsBeyondTwoToTheThirtyOneElements) {
  // Three tokens, 2^30 elements apart: the last one's offset does not fit 31 bits.
  setup s(larger("deepseek_v3", 3));
  layer_formula const& f = s.is.f;
  offset_t const stride = offset_t{1} << 30;
  std::size_t const bytes = (2 * static_cast<std::size_t>(stride) + 4096) * sizeof(float);
  auto const map = [&] {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<float*>(at);
  };
  float* const far[4] = {map(), map(), map(), map()};
  for (float* p : far) {
    if (p == nullptr) GTEST_SKIP() << "no address space";
  }
  auto const as = [&](float* p) { return view<float, 2>(p, {{f.tokens, f.width}}, {{stride, 1}}); };
  auto const x = as(far[0]), y = as(far[1]), d_y = as(far[2]), d_x = as(far[3]);
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      x(t, h) = s.x[static_cast<std::size_t>(t * f.width + h)];
      d_y(t, h) = s.d_y[static_cast<std::size_t>(t * f.width + h)];
    }
  }
  run near(one, s, s.options());
  auto const w = s.weights();
  auto const o = s.options();
  guarded<std::byte> work(std::max(moe_layer_scratch_bytes(one, 3, w, o, true),
                                   moe_layer_backward_scratch_bytes(one, 3, w, o)));
  guarded<std::byte> keep(moe_saved_bytes(3, w, o));
  arena<> from(keep);
  auto const saved = carve_moe_saved(from, 3, w, o);
  ASSERT_TRUE(moe_layer(one, x, w, y, {.saved = &saved}, arena<>(work), o).ok());
  ASSERT_TRUE(moe_layer_backward(one, x, w, d_y, saved, d_x, {}, arena<>(work), o).ok());
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      ASSERT_EQ(y(t, h), near.y[static_cast<std::size_t>(t * f.width + h)]);
      ASSERT_EQ(d_x(t, h), near.d_x[static_cast<std::size_t>(t * f.width + h)]);
    }
  }
  for (float* p : far) munmap(p, bytes);
}

}  // namespace layer_contract_test
}  // namespace shunt::test
