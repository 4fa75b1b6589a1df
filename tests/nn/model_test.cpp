#include "shunt/nn/model.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/model_case.hpp"

namespace shunt {
namespace nn_model_test {

using namespace test::model_case;
using test::expect_error;
using test::guarded;
namespace oracle = test::oracle;

TEST(Model, FlatBufferIsInTheOrderThatIsNamed) {
  for (auto const& variant : variants()) {
    auto const& [name, c] = variant;
    auto const found = places(c);
    offset_t end = 0;
    nn::for_each_parameter(c, [&](nn::model_parameter const& p) {
      EXPECT_EQ(p.offset, end) << p.name;
      end += p.size();
    });
    EXPECT_EQ(end, nn::parameter_count(c));
    EXPECT_EQ(end, nn::detail::model_layout(c).count);
    EXPECT_EQ(nn::decayed_count(c), nn::detail::model_layout(c).norms);
    std::vector<float> values(static_cast<std::size_t>(end));
    view<float const, 1> const flat(values.data(), {{end}});
    auto at = [&](std::string const& tensor, float const* data) {
      EXPECT_EQ(data - values.data(), found.at(tensor).offset) << variant.first << " " << tensor;
    };
    for (int n = 0; n < c.layers; ++n) {
      std::string const l = "layers." + std::to_string(n) + ".";
      auto const w = nn::detail::layer_weights<float>(c, n, flat, {});
      at(l + "attention.qkv", w.qkv.data());
      at(l + "attention.out", w.out.data());
      at(l + "attention.norm", w.attention_norm.data());
      at(l + "feed.norm", w.feed_norm.data());
      if (c.dense) {
        at(l + "dense.up", w.up.data());
        at(l + "dense.down", w.down.data());
        continue;
      }
      at(l + "gate", w.experts.gate.data());
      at(l + "experts.up", w.experts.up.data());
      at(l + "experts.down", w.experts.down.data());
      if (c.shared_intermediate > 0) {
        at(l + "shared.up", w.experts.shared_up.data());
        at(l + "shared.down", w.experts.shared_down.data());
      }
    }
    at("norm", nn::detail::last_norm_of(c, flat).data());
    at(c.tied_head ? "embedding" : "head", nn::detail::head_of(c, flat).data());
  }
}

TEST(Model, LossAndEveryGradientMatchCentralDifferencesOfTheOracle) {
  index_t const batch = 2, length = 7;
  for (auto const& [name, c] : variants()) {
    auto const w = some_weights(c, 3);
    auto const tokens = some_tokens(c, batch, length, true);
    auto const m = numbers_of(c, batch, length);
    auto flat = test::in_double(w);
    std::vector<index_t> const ids(tokens.begin(), tokens.end());
    auto const want = oracle::model(m, flat, ids);
    auto const got = train<float>(on_host{}, c, w, tokens, batch, length);
    EXPECT_NEAR(got.loss[0], want.loss, 1e-5 * (1 + want.loss)) << name;
    ASSERT_TRUE(test::not_flat(want.token_loss));
    for (std::size_t t = 0; t < want.token_loss.size(); ++t) {
      EXPECT_NEAR(got.token_loss[t], want.token_loss[t], 2e-5 * (1 + want.token_loss[t])) << name;
    }
    for (index_t l = 0; !c.dense && l < c.layers; ++l) {
      for (index_t e = 0; e < c.experts; ++e) {
        EXPECT_EQ(got.counts[static_cast<std::size_t>(l * c.experts + e)],
                  want.counts[static_cast<std::size_t>(l)][static_cast<std::size_t>(e)]);
      }
    }
    auto const total = [&] {
      auto const o = oracle::model(m, flat, ids);
      return o.loss + o.extra;
    };
    // A few elements of each tensor (all of the small ones), against the largest of its gradients.
    for (auto const& [tensor, where] : places(c)) {
      auto const first = static_cast<std::size_t>(where.offset);
      auto const size = static_cast<std::size_t>(where.size);
      std::size_t const stride = size / (test::small_scale() ? 6 : 24) + 1;
      double largest = 0.0, worst = 0.0;
      for (std::size_t i = 0; i < size; i += stride) {
        double const d = oracle::central_difference(flat[first + i], total);
        largest = std::max(largest, std::abs(d));
        worst = std::max(worst, std::abs(d - static_cast<double>(got.gradients[first + i])));
      }
      EXPECT_LE(worst, 1e-4 * largest + 1e-7) << name << " " << tensor << ", largest " << largest;
      EXPECT_TRUE(largest > 1e-5 || (c.experts == 1 && tensor.find("gate") != std::string::npos))
          << name << " " << tensor << ": the oracle's gradient is flat";
    }
    EXPECT_TRUE(test::all_finite(got.gradients)) << name;
  }
}

TEST(Model, BitsAreTheSameOnEveryWorld) {
  for (auto const& [name, c] : variants()) {
    auto const w = some_weights(c, 5);
    auto const tokens = some_tokens(c, 3, 33, true);
    bool first = true;
    outcome<float> reference;
    for (on_host const& on : test::host_configs()) {
      auto const got = train<float>(on, c, w, tokens, 3, 33);
      if (first) reference = got;
      first = false;
      EXPECT_TRUE(test::same_bits(reference.loss, got.loss)) << name << test::name_of(on);
      EXPECT_TRUE(test::same_bits(reference.gradients, got.gradients)) << name << test::name_of(on);
    }
  }
}

TEST(Model, Bf16StaysNearTheOracle) {
  for (bool dense : {false, true}) {
    model_config const c = small(dense);
    auto const w = some_weights<bf16>(c, 3);
    auto const tokens = some_tokens(c, 4, 16, false);
    auto const got = train<bf16>(on_host{}, c, w, tokens, 4, 16);
    guarded<float> wide(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) wide[i] = to_float(w[i]);
    auto const exact = train<float>(on_host{}, c, wide, tokens, 4, 16);
    EXPECT_NEAR(got.loss[0], exact.loss[0], 0.02 * exact.loss[0]);
    double dot = 0, a = 0, b = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      dot += double{got.gradients[i]} * exact.gradients[i];
      a += double{got.gradients[i]} * got.gradients[i];
      b += double{exact.gradients[i]} * exact.gradients[i];
    }
    EXPECT_GT(dot / std::sqrt(a * b), 0.98);
    EXPECT_NEAR(std::sqrt(a / b), 1.0, 0.05);
  }
}

TEST(Model, EvaluateGivesTheLossesOfTrain) {
  for (auto const& [name, c] : variants()) {
    auto const w = some_weights(c, 7);
    auto const tokens = some_tokens(c, 2, 20, true);
    auto const want = train<float>(on_host{}, c, w, tokens, 2, 20);
    guarded<float> loss(1), token_loss(40);
    guarded<std::byte> bytes(nn::model_evaluate_scratch_bytes<float>(on_host{}, c, 2, 20));
    status const s =
        nn::model_evaluate<float>(on_host{}, c, {.values = w.as(w.size())}, tokens.as(2, 21),
                                  {.loss = loss.as(1), .token_loss = token_loss.as(2, 20)}, bytes);
    ASSERT_TRUE(s.ok()) << s.message();
    EXPECT_TRUE(test::same_bits(loss, want.loss)) << name;
    EXPECT_TRUE(test::same_bits(token_loss, want.token_loss)) << name;
  }
}

TEST(Model, MicroBatchesAddUpToTheBatch) {
  model_config c = small(false);
  c.balance_loss = c.z_loss = 0.0f;  // these are means over each call's tokens
  auto const w = some_weights(c, 3);
  auto const tokens = some_tokens(c, 4, 9, false);
  auto const whole = train<float>(on_host{}, c, w, tokens, 4, 9);
  guarded<float> gradients(w.size());
  guarded<std::byte> bytes(nn::model_train_scratch_bytes<float>(on_host{}, c, 2, 9));
  for (offset_t first : {0, 2}) {
    status const s = nn::model_train<float>(
        on_host{}, c, {.values = w.as(w.size())}, tokens.as(4, 10).slice(first, 2),
        gradients.as(w.size()), {}, bytes, {.accumulate = first > 0, .divisor = 36});
    ASSERT_TRUE(s.ok()) << s.message();
  }
  double largest = 0;
  for (float g : whole.gradients) largest = std::max(largest, std::abs(double{g}));
  for (std::size_t i = 0; i < w.size(); ++i) {
    EXPECT_NEAR(gradients[i], whole.gradients[i], 1e-5 * largest);
  }
}

TEST(Model, EmptyBatchHasZeroLossAndZeroGradients) {
  for (auto const& [name, c] : variants()) {
    auto const w = some_weights(c, 3);
    for (auto [batch, length] : {std::pair<index_t, index_t>{0, 5}, {3, 0}}) {
      auto const got =
          train<float>(on_host{}, c, w, some_tokens(c, batch, length, false), batch, length);
      EXPECT_EQ(got.loss[0], 0.0f) << name;
      for (float g : got.gradients) ASSERT_EQ(g, 0.0f) << name << batch << length;
    }
  }
}

TEST(Model, BadArgumentsAreSentences) {
  model_config const c = small(false);
  auto const w = some_weights(c, 3);
  auto tokens = some_tokens(c, 2, 8, false);
  guarded<float> g(w.size());
  guarded<std::byte> bytes(nn::model_train_scratch_bytes<float>(on_host{}, c, 2, 8));
  nn::model_weights<float> const weights{.values = w.as(w.size())};
  auto run = [&](model_config const& config, arena<> work) {
    return nn::model_train<float>(on_host{}, config, weights, std::as_const(tokens).as(2, 9),
                                  g.as(w.size()), {}, work);
  };
  expect_error(run(c, arena<>{}), "model_train.work: the arena has 0 bytes; it must have");
  model_config other = c;
  other.context = 7;
  expect_error(run(other, bytes), "model.tokens: extent 1 is 9; it must be from 1 to 8");
  other = c;
  other.heads = 5;
  expect_error(run(other, bytes),
               "width 12, heads 5, kv_heads 1; each must be a multiple of the next");
  other = c;
  other.top_k = 6;
  expect_error(run(other, bytes), "model_config.top_k is 6; it must be from 1 to 5");
  other = c;
  other.layers = 3;
  expect_error(run(other, bytes), "model_weights.values: extent 0 is");
  tokens[10] = 13;
  expect_error(run(c, bytes), "model_train.tokens: entry 1, 1 is 13; it must be below 13");
  for (float x : g) ASSERT_TRUE(std::isnan(x)) << "an error came after the first write";

  guarded<float> memory(static_cast<std::size_t>(nn::model_cache_elements(c, 2, 10))), logits(26);
  nn::model_cache<float> const cache{memory.as(memory.size()), 2, 10};
  tokens[10] = 0;
  auto const some = view<index_t const, 2>(tokens.data(), {{2, 4}});
  expect_error(
      nn::model_decode<float>(on_host{}, c, weights, some, 7, cache, logits.as(2, 13), bytes),
      "model_decode.first_position plus the new tokens is 11; it must be from 4 to 10");
  expect_error(
      nn::model_decode<float>(on_host{}, c, weights, some, 0, cache, logits.as(1, 26), bytes),
      "model_decode.logits: extent 0 is 1; it must be 2");
}

}  // namespace nn_model_test
}  // namespace shunt
