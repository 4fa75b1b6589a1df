#include "shunt/nn/model.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_model.hpp"
#include "support/random.hpp"

namespace shunt {
namespace nn_model_test {

using nn::model_config;
using test::expect_error;
using test::guarded;
namespace oracle = test::oracle;

model_config small(bool dense) {
  model_config c;
  c.vocabulary = 13;
  c.layers = 2;
  c.width = 12;
  c.heads = 3;
  c.kv_heads = 1;
  c.context = 64;
  c.dense = dense;
  c.experts = 5;
  c.top_k = 2;
  c.intermediate = 7;
  c.balance_loss = 0.05f;
  c.z_loss = 0.01f;
  return c;
}
std::vector<std::pair<char const*, model_config>> variants() {
  model_config shared = small(false), tied = small(false), dense = small(true), one = small(false);
  shared.shared_intermediate = 5;
  shared.kv_heads = 3;
  tied.tied_head = true;
  tied.top_k = 5;
  dense.tied_head = true;
  one.experts = one.top_k = 1;
  one.layers = 1;
  return {{"mixture", small(false)}, {"dense", small(true)}, {"shared", shared}, {"tied", tied},
          {"tied dense", dense},     {"one expert", one}};
}

struct place {
  offset_t offset, size;
};
std::map<std::string, place> places(model_config const& c) {
  std::map<std::string, place> found;
  nn::for_each_parameter(c, [&](nn::model_parameter const& p) {
    EXPECT_TRUE(found.emplace(p.name, place{p.offset, p.size()}).second) << p.name << " twice";
  });
  return found;
}

/// Weights large enough that every gradient shows.
template <class T = float> guarded<T> some_weights(model_config const& c, std::uint64_t seed) {
  auto const count = static_cast<std::size_t>(nn::parameter_count(c));
  auto w = test::normal_values<T>(count, seed, 0.4);
  for (auto i = static_cast<std::size_t>(nn::decayed_count(c)); i < count; ++i) {
    w[i] = from_float<T>(1.0f + 0.5f * to_float(w[i]));
  }
  return w;
}
guarded<index_t> some_tokens(model_config const& c, index_t batch, index_t length, bool holes) {
  test::rng d(static_cast<std::uint64_t>(batch * 100 + length));
  guarded<index_t> tokens(static_cast<std::size_t>(batch * (length + 1)));
  for (index_t& t : tokens) {
    t = static_cast<index_t>(d.below(c.vocabulary));
    if (holes && d.below(6) == 0) t = -1;
  }
  return tokens;
}

oracle::model_numbers numbers_of(model_config const& c, index_t batch, index_t length) {
  auto const n = [](index_t x) { return static_cast<std::size_t>(x); };
  oracle::model_numbers m;
  m.block = {n(batch), n(length), n(c.width), n(c.heads), n(c.kv_heads)};
  m.block.intermediate = n(c.intermediate);
  m.block.epsilon = static_cast<double>(c.norm_epsilon);
  m.block.rotary_base = c.rotary_base;
  if (!c.dense) {
    m.block.experts = n(c.experts);
    m.block.top_k = n(c.top_k);
    m.block.shared = n(c.shared_intermediate);
    m.block.balance_loss = static_cast<double>(c.balance_loss);
    m.block.z_loss = static_cast<double>(c.z_loss);
  }
  m.vocabulary = n(c.vocabulary);
  m.layers = n(c.layers);
  m.tied_head = c.tied_head;
  m.find = [found = places(c)](std::string const& name) {
    return static_cast<std::size_t>(found.at(name).offset);
  };
  return m;
}

template <class T> struct outcome {
  guarded<float> loss{1}, token_loss, gradients;
  guarded<index_t> counts;
};
template <class T>
outcome<T> train(on_host const& on, model_config const& c, guarded<T> const& w,
                 guarded<index_t> const& tokens, index_t batch, index_t length,
                 guarded<float> const* bias = nullptr) {
  outcome<T> r;
  r.token_loss = guarded<float>(static_cast<std::size_t>(batch * length));
  r.gradients = guarded<float>(w.size());
  r.counts = guarded<index_t>(static_cast<std::size_t>(c.layers * c.experts));
  guarded<std::byte> bytes(nn::model_train_scratch_bytes<T>(on, c, batch, length));
  nn::model_weights<T> weights{.values = w.as(w.size())};
  if (bias != nullptr) weights.choice_bias = bias->as(c.layers, c.experts);
  status const s =
      nn::model_train<T>(on, c, weights, tokens.as(batch, length + 1), r.gradients.as(w.size()),
                         {.loss = r.loss.as(1),
                          .token_loss = r.token_loss.as(batch, length),
                          .counts = r.counts.as(c.layers, c.experts)},
                         bytes);
  EXPECT_TRUE(s.ok()) << s.message();
  return r;
}

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

template <class T> void decoding_gives_the_bits_of_the_whole() {
  for (auto const& variant : variants()) {
    auto const& name = variant.first;
    auto const& c = variant.second;
    index_t const batch = 2, length = 21;
    auto const w = some_weights<T>(c, 9);
    auto const tokens = some_tokens(c, batch, length - 1, false);
    nn::model_weights<T> const weights{.values = w.as(w.size())};
    auto const feed = [&](on_host const& on, index_t piece) {
      guarded<T> memory(static_cast<std::size_t>(nn::model_cache_elements(c, batch, 40)));
      nn::model_cache<T> const cache{memory.as(memory.size()), batch, 40};
      guarded<float> logits(static_cast<std::size_t>(batch * c.vocabulary));
      guarded<std::byte> bytes(nn::model_decode_scratch_bytes<T>(on, c, batch, piece));
      for (index_t at = 0; at < length; at += piece) {
        index_t const n = std::min<index_t>(piece, length - at);
        view<index_t const, 2> const part(tokens.data() + at, {{batch, n}}, {{length, 1}});
        status const s = nn::model_decode<T>(on, c, weights, part, at, cache,
                                             logits.as(batch, c.vocabulary), bytes);
        EXPECT_TRUE(s.ok()) << s.message();
      }
      return logits;
    };
    auto const whole = feed(on_host{}, length);
    EXPECT_TRUE(test::all_finite(whole));
    for (index_t piece : {1, 4, 20}) {
      EXPECT_TRUE(test::same_bits(whole, feed({.threads = 2}, piece))) << name << " " << piece;
    }
    EXPECT_TRUE(test::same_bits(whole, feed({.threads = 1, .instructions = isa::portable}, 1)));

    // The loss of the last target, from evaluation, is that of these logits.
    guarded<index_t> next(static_cast<std::size_t>(batch * (length + 1)));
    for (index_t b = 0; b < batch; ++b) {
      for (index_t i = 0; i < length; ++i) {
        next[static_cast<std::size_t>(b * (length + 1) + i)] =
            tokens[static_cast<std::size_t>(b * length + i)];
      }
      next[static_cast<std::size_t>(b * (length + 1) + length)] = b + 3;
    }
    guarded<float> loss(1), token_loss(static_cast<std::size_t>(batch * length));
    guarded<std::byte> bytes(nn::model_evaluate_scratch_bytes<T>(on_host{}, c, batch, length));
    ASSERT_TRUE(nn::model_evaluate<T>(
                    on_host{}, c, weights, std::as_const(next).as(batch, length + 1),
                    {.loss = loss.as(1), .token_loss = token_loss.as(batch, length)}, bytes)
                    .ok());
    for (index_t b = 0; b < batch; ++b) {
      std::vector<double> z;
      for (index_t i = 0; i < c.vocabulary; ++i) {
        z.push_back(whole[static_cast<std::size_t>(b * c.vocabulary + i)]);
      }
      EXPECT_NEAR(token_loss[static_cast<std::size_t>((b + 1) * length - 1)],
                  oracle::cross_entropy(z, {b + 3}).mean, 1e-4)
          << name;
    }
  }
}
TEST(Model, DecodingInAnyPiecesGivesTheBitsOfTheWhole) {
  decoding_gives_the_bits_of_the_whole<float>();
}
TEST(Model, DecodingInAnyPiecesGivesTheBitsOfTheWholeInBf16) {
  decoding_gives_the_bits_of_the_whole<bf16>();
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
