#pragma once
#include <utility>
#include <vector>

#include "support/layer_setup.hpp"

namespace shunt::test {

/// A size that a tape can hold and no multiple of anything, changed.
template <class Change> layer_formula small_formula(Change change) {
  layer_formula f{.tokens = 13, .width = 19, .intermediate = 9, .experts = 7, .top_k = 3};
  change(f);
  return f;
}

/// Softmax's families, and DeepSeek's.
inline std::vector<layer_case> first_layer_families() {
  using enum score_kind;
  using enum gate_kind;
  return {
      {.name = "switch",
       .f = small_formula([](auto& f) {
         f.top_k = 1;
         f.activation = activation_kind::relu;
         f.balance = 0.05;
       }),
       .capacity = 2},
      {.name = "gshard",
       .f = small_formula([](auto& f) {
         f.top_k = 2;
         f.activation = activation_kind::relu;
         f.balance = 0.05;
       }),
       .route = {.gates = renormalized},
       .capacity = 4,
       .drop = drop_policy::by_choice},
      {.name = "mixtral",
       .f = small_formula([](auto& f) { f.top_k = 2; }),
       .route = {.gates = renormalized}},
      {.name = "olmoe", .f = small_formula([](auto& f) {
                          f.balance = 0.1;
                          f.z = 0.05;
                        })},
      {.name = "qwen_shared_gate", .f = small_formula([](auto& f) {
                                     f.shared = 11;
                                     f.shared_gated = true;
                                   })},
      {.name = "deepseek_v2",
       .f = small_formula([](auto& f) {
         f.experts = 8;
         f.shared = 6;
       }),
       .route = {.scale = 16.0f, .groups = 4, .top_groups = 2, .group_by = group_rule::best}},
      {.name = "deepseek_v3",
       .f = small_formula([](auto& f) {
         f.experts = 8;
         f.shared = 5;
       }),
       .route = {.score = sigmoid,
                 .gates = renormalized,
                 .scale = 2.5f,
                 .epsilon = 1e-20f,
                 .groups = 4,
                 .top_groups = 2,
                 .group_by = group_rule::sum_of_two_best},
       .choice_bias = true},
      {.name = "deepseek_v4",
       .f = small_formula([](auto& f) {
         f.shared = 5;
         f.activation = activation_kind::swiglu_capped;
       }),
       .route = {.score = sqrt_softplus, .gates = renormalized, .scale = 1.5f},
       .choice_bias = true},
      {.name = "deepseek_v4_hash",
       .f = small_formula([](auto& f) {
         f.shared = 5;
         f.activation = activation_kind::swiglu_capped;
       }),
       .route = {.score = sqrt_softplus, .gates = renormalized, .scale = 1.5f},
       .table = 17},
  };
}

/// Families that differ in more than their router, and the limits of sizes.
inline std::vector<layer_case> more_layer_families() {
  using enum score_kind;
  using enum gate_kind;
  return {
      {.name = "gpt_oss",
       .f = small_formula([](auto& f) {
         f.activation = activation_kind::swiglu_clamped;
         f.biases = f.gate_bias = true;
         f.interleave = 1;
       }),
       .route = {.score = score_kind::logits, .gates = softmax_chosen}},
      {.name = "llama4",
       .f = small_formula([](auto& f) {
         f.top_k = 1;
         f.shared = 9;
       }),
       .route = {.score = sigmoid, .gate_on_input = true}},
      {.name = "kimi_k3",
       .f = small_formula([](auto& f) {
         f.latent = true;
         f.hidden = 10;
         f.shared = 7;
         f.activation = activation_kind::situ_glu;
       }),
       .route = {.score = sigmoid, .gates = renormalized, .scale = 2.0f},
       .choice_bias = true},
      {.name = "nemotron",
       .f = small_formula([](auto& f) {
         f.latent = true;
         f.hidden = 6;
         f.shared = 15;
         f.activation = activation_kind::relu2;
       }),
       .route = {.score = sigmoid, .gates = renormalized, .scale = 5.0f},
       .choice_bias = true},
      {.name = "longcat",
       .f = small_formula([](auto& f) {
         f.experts = 9;
         f.top_k = 4;
       }),
       .route = {.scale = 6.0f, .zero_experts = 3},
       .choice_bias = true},
      {.name = "latent_zero_biases",
       .f = small_formula([](auto& f) {
         f.experts = 9;
         f.latent = f.biases = true;
         f.hidden = 12;
         f.interleave = 2;
         f.up_first = true;
       }),
       .route = {.gates = renormalized, .zero_experts = 2}},
      {.name = "band",
       .f = small_formula([](auto& f) { f.biases = true; }),
       .route = {.gate_on_input = true}},
      {.name = "expert_choice", .f = small_formula([](auto& f) { f.balance = 0.0; }), .taken = 5},
      {.name = "all_experts", .f = small_formula([](auto& f) { f.top_k = 7; })},
      {.name = "one_expert",
       .f = small_formula([](auto& f) { f.experts = f.top_k = 1; }),
       .route = {.score = sigmoid}},
      {.name = "ones", .f = {.tokens = 1, .width = 1, .intermediate = 1, .experts = 1, .top_k = 1}},
  };
}

/// Every family of the published layers.
inline std::vector<layer_case> layer_families() {
  std::vector<layer_case> all = first_layer_families();
  for (layer_case& c : more_layer_families()) all.push_back(std::move(c));
  return all;
}

[[nodiscard]] inline layer_case family(std::string const& name) {
  for (layer_case const& c : layer_families()) {
    if (name == c.name) return c;
  }
  ADD_FAILURE() << "there is no case " << name;
  return {};
}

/// A family with so many tokens.
inline layer_case larger(char const* name, int tokens) {
  layer_case c = family(name);
  c.f.tokens = tokens;
  return c;
}

}  // namespace shunt::test
