// What training moves: the choice by its bias, the gate, the loss; how weights begin.
#include <gtest/gtest.h>

#include "shunt/nn/model.hpp"
#include "support/compare.hpp"
#include "support/host_configs.hpp"
#include "support/model_case.hpp"

namespace shunt {
namespace nn_model_training_test {

using namespace test::model_case;
using test::guarded;
namespace oracle = test::oracle;

TEST(Model, ChoiceBiasMovesTheChoiceOnly) {
  model_config const c = small(false);
  auto const w = some_weights(c, 3);
  auto const tokens = some_tokens(c, 2, 8, false);
  guarded<float> bias(static_cast<std::size_t>(c.layers * c.experts));
  for (float& b : bias) b = 0.0f;
  bias[1] = 10.0f;
  auto const got = train<float>(on_host{}, c, w, tokens, 2, 8, &bias);
  EXPECT_EQ(got.counts[1], 16);
  std::vector<index_t> const ids(tokens.begin(), tokens.end());
  auto const want =
      oracle::model(numbers_of(c, 2, 8), test::in_double(w), ids, test::in_double(bias));
  EXPECT_NEAR(got.loss[0], want.loss, 1e-5 * (1 + want.loss));
}

// The router's gradient must be right too when the loss is: 14.
TEST(Model, Battery14_TheGateLearnsAlthoughTheLossIsRight) {
  model_config c = small(false);
  c.balance_loss = c.z_loss = 0.0f;
  auto const w = some_weights(c, 3);
  auto const got = train<float>(on_host{}, c, w, some_tokens(c, 2, 8, false), 2, 8);
  for (int n = 0; n < c.layers; ++n) {
    auto const gate = places(c).at("layers." + std::to_string(n) + ".gate");
    double sum = 0;
    for (offset_t i = 0; i < gate.size; ++i) {
      sum += std::abs(double{got.gradients[static_cast<std::size_t>(gate.offset + i)]});
    }
    EXPECT_GT(sum, 1e-4);
  }
}

TEST(Model, TrainingLowersTheLossAndTheSameSeedGivesTheSameBits) {
  model_config const c = small(false);
  auto const count = static_cast<std::size_t>(nn::parameter_count(c));
  auto run = [&](on_host const& on) {
    guarded<float> w(count), g(count), m(count), v(count), norm(1), loss(1);
    EXPECT_TRUE(nn::model_init(on, c, w.as(count), 11).ok());
    for (std::size_t i = 0; i < count; ++i) m[i] = v[i] = 0.0f;
    guarded<index_t> tokens(2 * 25);
    for (std::size_t i = 0; i < 50; ++i) tokens[i] = static_cast<index_t>(i % 25 * 3 % 13);
    guarded<std::byte> bytes(nn::model_train_scratch_bytes<float>(on, c, 2, 24));
    float first = 0;
    for (std::int64_t step = 1; step <= 60; ++step) {
      status s = nn::model_train<float>(on, c, {.values = std::as_const(w).as(count)},
                                        std::as_const(tokens).as(2, 25), g.as(count),
                                        {.loss = loss.as(1)}, bytes);
      EXPECT_TRUE(s.ok()) << s.message();
      if (step == 1) first = loss[0];
      nn::adamw_state<float> const state{w.as(count), std::as_const(g).as(count), m.as(count),
                                         v.as(count)};
      s = nn::model_update<float>(on, c, state, norm.as(1), bytes,
                                  {.rate = 0.02f, .weight_decay = 0.01f, .step = step, .clip = 1});
      EXPECT_TRUE(s.ok()) << s.message();
    }
    EXPECT_NEAR(first, std::log(13.0), 0.2);
    EXPECT_LT(loss[0], 0.2f * first);
    return w;
  };
  auto const one = run({.threads = 1});
  EXPECT_TRUE(test::same_bits(one, run({.threads = 3})));
}

TEST(Model, InitialWeightsHaveTheirDeviations) {
  model_config c = small(false);
  c.width = 96;
  c.intermediate = 64;
  auto const count = static_cast<std::size_t>(nn::parameter_count(c));
  guarded<float> w(count), again(count);
  ASSERT_TRUE(nn::model_init(on_host{.threads = 1}, c, w.as(count), 5).ok());
  ASSERT_TRUE(nn::model_init(on_host{.threads = 7}, c, again.as(count), 5).ok());
  EXPECT_TRUE(test::same_bits(w, again));
  ASSERT_TRUE(nn::model_init(on_host{}, c, again.as(count), 6).ok());
  EXPECT_FALSE(test::same_bits(w, again));
  for (auto const& [name, where] : places(c)) {
    double sum = 0, squares = 0;
    for (offset_t i = 0; i < where.size; ++i) {
      double const x = w[static_cast<std::size_t>(where.offset + i)];
      sum += x;
      squares += x * x;
    }
    auto const n = static_cast<double>(where.size);
    if (name.find("norm") != std::string::npos) {
      EXPECT_EQ(sum, n) << name;
      continue;
    }
    bool const writes =
        name.find(".out") != std::string::npos || name.find(".down") != std::string::npos;
    double const want = writes ? 0.01 : 0.02;  // two layers: divided by the root of four
    EXPECT_NEAR(std::sqrt(squares / n), want, want * 4 / std::sqrt(n)) << name;
    EXPECT_NEAR(sum / n, 0.0, want * 4 / std::sqrt(n)) << name;
  }
}

}  // namespace nn_model_training_test
}  // namespace shunt
