#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "shunt/nn/model.hpp"
#include "support/compare.hpp"
#include "support/oracle_model.hpp"
#include "support/random.hpp"

namespace shunt::test {
namespace model_case {

using nn::model_config;

inline model_config small(bool dense) {
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
inline std::vector<std::pair<char const*, model_config>> variants() {
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
inline std::map<std::string, place> places(model_config const& c) {
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
inline guarded<index_t> some_tokens(model_config const& c, index_t batch, index_t length,
                                    bool holes) {
  test::rng d(static_cast<std::uint64_t>(batch * 100 + length));
  guarded<index_t> tokens(static_cast<std::size_t>(batch * (length + 1)));
  for (index_t& t : tokens) {
    t = static_cast<index_t>(d.below(c.vocabulary));
    if (holes && d.below(6) == 0) t = -1;
  }
  return tokens;
}

inline oracle::model_numbers numbers_of(model_config const& c, index_t batch, index_t length) {
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

}  // namespace model_case
}  // namespace shunt::test
