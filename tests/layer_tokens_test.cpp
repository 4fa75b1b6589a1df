// What a layer makes of tokens without experts, experts without tokens, padding and shards.
#include <gtest/gtest.h>

#include "shunt/layer.hpp"
#include "support/layer_cases.hpp"
#include "support/layer_formulas.hpp"

namespace shunt::test {
namespace layer_tokens_test {

using setup = layer_setup<float>;
using run = layer_run<float>;
on_host const one{.threads = 1};

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

}  // namespace layer_tokens_test
}  // namespace shunt::test
