#pragma once
#include <string>
#include <utility>
#include <vector>

#include "support/synthetic_checkpoint.hpp"

namespace shunt::test {

namespace published_lists {
using enum score_kind;
using enum gate_kind;
using nlohmann::json;
using families = std::vector<published_family>;

inline layer_formula const small{
    .tokens = 13, .width = 19, .intermediate = 9, .experts = 8, .top_k = 3};
inline std::vector<std::string> const w = {"w1", "w3", "w2"};
inline route_options const noaux{
    .score = sigmoid, .gates = renormalized, .scale = 2.5f, .epsilon = 1e-20f};

template <class Change> layer_formula with(Change change) {
  layer_formula f = small;
  change(f);
  return f;
}
inline auto shared(int n) {
  return [n](layer_formula& f) { f.shared = n; };
}
inline json config(char const* type, std::string const& more) {
  json j = json::parse(R"({"architectures": ["SomethingForCausalLM"], "hidden_size": 19,
                           "num_hidden_layers": 4, "hidden_act": "silu", "rope_scaling": null})");
  j["model_type"] = type;
  j.update(json::parse(more));
  return j;
}
inline std::string deepseek(char const* more) {
  json j = json::parse(R"({"n_routed_experts": 8, "num_experts_per_tok": 3,
                           "moe_intermediate_size": 9, "intermediate_size": 77,
                           "norm_topk_prob": true, "n_shared_experts": 1})");
  j.update(json::parse(more));
  return j.dump();
}

/// A softmax over experts, its best: Mixtral, OLMoE, Qwen.
inline void add_softmax(families& all) {
  all.push_back({.name = "mixtral",
                 .config = config("mixtral", R"({"num_local_experts": 8, "num_experts_per_tok": 3,
                                  "intermediate_size": 9})"),
                 .is = {.f = small, .route = {.gates = renormalized}},
                 .block = "block_sparse_moe.",
                 .parts = w});
  all.push_back({.name = "olmoe",
                 .config = config("olmoe", R"({"num_experts": 8, "num_experts_per_tok": 3,
                                  "intermediate_size": 9, "norm_topk_prob": false})"),
                 .is = {.f = small}});
  all.push_back({.name = "qwen2_moe",
                 .config = config("qwen2_moe", R"({"num_experts": 8, "num_experts_per_tok": 3,
                                  "intermediate_size": 77, "moe_intermediate_size": 9,
                                  "shared_expert_intermediate_size": 11, "norm_topk_prob":
                                  false})"),
                 .is = {.f = with([](auto& f) {
                          f.shared = 11;
                          f.shared_gated = true;
                        })},
                 .shared = "shared_expert."});
  all.push_back({.name = "qwen3_moe",
                 .config = config("qwen3_moe", R"({"num_experts": 8, "num_experts_per_tok": 3,
                                  "moe_intermediate_size": 9, "norm_topk_prob": true})"),
                 .is = {.f = small, .route = {.gates = renormalized}}});
  all.push_back({.name = "qwen3_next",
                 .config = config("qwen3_next", R"({"num_experts": 8, "num_experts_per_tok": 3,
                                  "moe_intermediate_size": 9,
                                  "shared_expert_intermediate_size": 5, "norm_topk_prob":
                                  true})"),
                 .is = {.f = with([](auto& f) {
                          f.shared = 5;
                          f.shared_gated = true;
                        }),
                        .route = {.gates = renormalized}},
                 .shared = "shared_expert."});
}

/// DeepSeek to its third version, and those that took its router.
inline void add_deepseek(families& all) {
  route_options grouped = noaux, kimi = noaux;
  grouped.groups = 4;
  grouped.top_groups = 2;
  grouped.group_by = group_rule::sum_of_two_best;
  kimi.scale = 2.827f;
  all.push_back(
      {.name = "deepseek_v2_lite",
       .config = config("deepseek_v2", deepseek(R"({"norm_topk_prob": false, "n_shared_experts": 2,
                                  "scoring_func": "softmax", "topk_method": "greedy",
                                  "n_group": 1, "topk_group": 1, "routed_scaling_factor":
                                  1.0})")),
       .is = {.f = with(shared(18))}});
  all.push_back(
      {.name = "deepseek_v2",
       .config = config("deepseek_v2", deepseek(R"({"norm_topk_prob": false, "n_shared_experts": 2,
                                  "topk_method": "group_limited_greedy", "n_group": 4,
                                  "topk_group": 2, "routed_scaling_factor": 16.0})")),
       .is = {.f = with(shared(18)), .route = {.scale = 16.0f, .groups = 4, .top_groups = 2}}});
  all.push_back({.name = "deepseek_v3",
                 .config = config("deepseek_v3",
                                  deepseek(R"({"scoring_func": "sigmoid", "topk_method": "noaux_tc",
                                  "n_group": 4, "topk_group": 2, "routed_scaling_factor":
                                  2.5})")),
                 .is = {.f = with(shared(9)), .route = grouped, .choice_bias = true}});
  all.push_back({.name = "kimi_k2",
                 .config = config("kimi_k2",
                                  deepseek(R"({"scoring_func": "sigmoid", "topk_method": "noaux_tc",
                                  "n_group": 1, "topk_group": 1, "routed_scaling_factor":
                                  2.827})")),
                 .is = {.f = with(shared(9)), .route = kimi, .choice_bias = true}});
  all.push_back({.name = "kimi_linear",
                 .config = config("kimi_linear", R"({"num_experts": 8, "num_experts_per_token": 3,
                                  "moe_intermediate_size": 9, "moe_renormalize": true,
                                  "moe_router_activation_func": "sigmoid",
                                  "num_shared_experts": 1, "num_expert_group": 1,
                                  "topk_group": 1, "routed_scaling_factor": 2.5})"),
                 .is = {.f = with(shared(9)), .route = noaux, .choice_bias = true},
                 .block = "block_sparse_moe.",
                 .parts = w});
  for (auto const& [name, type] : {std::pair{"glm_4_5", "glm4_moe"}, {"glm_5", "glm_moe_dsa"}}) {
    all.push_back(
        {.name = name,
         .config = config(type, deepseek(R"({"n_group": 1, "topk_group": 1, "routed_scaling_factor":
                                  2.5})")),
         .is = {.f = with(shared(9)), .route = noaux, .choice_bias = true}});
  }
}

/// DeepSeek's fourth version, with and without its table of tokens.
inline void add_deepseek_v4(families& all) {
  auto const capped = [](auto& f) {
    f.shared = 9;
    f.activation = activation_kind::swiglu_capped;
    f.limit = 1.25;
  };
  route_options const root{
      .score = sqrt_softplus, .gates = renormalized, .scale = 1.5f, .epsilon = 1e-20f};
  json const v4 = config("deepseek_v4", deepseek(R"({"scoring_func": "sqrtsoftplus", "topk_method":
                                  "noaux_tc", "num_hash_layers": 3, "swiglu_limit": 1.25,
                                  "routed_scaling_factor": 1.5})"));
  published_family const deepseek_v4{.name = "deepseek_v4",
                                     .config = v4,
                                     .is = {.f = with(capped), .route = root, .choice_bias = true},
                                     .prefix = "",
                                     .block = "ffn.",
                                     .choice_bias = "gate.bias",
                                     .parts = w,
                                     .shared_parts = w};
  all.push_back(deepseek_v4);
  all.push_back(deepseek_v4);
  all.back().name = "deepseek_v4_hash";
  all.back().is.choice_bias = false;
  all.back().is.table = 23;
}

/// The others.
inline void add_others(families& all) {
  route_options nemotron = noaux;
  nemotron.scale = 5.0f;
  all.push_back(
      {.name = "minimax_m2",
       .config = config("minimax_m2", R"({"num_local_experts": 8, "num_experts_per_tok": 3,
                                  "intermediate_size": 9, "scoring_func": "sigmoid",
                                  "shared_intermediate_size": 0})"),
       .is = {.f = small, .route = {.score = sigmoid, .gates = renormalized}, .choice_bias = true},
       .block = "block_sparse_moe.",
       .choice_bias = "e_score_correction_bias",
       .parts = w});
  all.push_back({.name = "gpt_oss",
                 .config = config("gpt_oss", R"({"num_local_experts": 8, "num_experts_per_tok": 3,
                                  "intermediate_size": 9, "swiglu_limit": 1.25})"),
                 .is = {.f = with([](auto& f) {
                          f.activation = activation_kind::swiglu_clamped;
                          f.biases = f.gate_bias = true;
                          f.interleave = 1;
                        }),
                        .route = {.score = logits, .gates = softmax_chosen}},
                 .gate = "router.weight",
                 .fused = true,
                 .exchanged = true});
  json const inside = config("llama4_text", R"({"num_local_experts": 8, "num_experts_per_tok": 1,
                                  "intermediate_size": 9, "intermediate_size_mlp": 77})");
  all.push_back(
      {.name = "llama4",
       .config = json::parse(R"({"model_type": "llama4", "text_config": )" + inside.dump() + "}"),
       .is = {.f = with([](auto& f) {
                f.top_k = 1;
                f.shared = 9;
              }),
              .route = {.score = sigmoid, .gate_on_input = true}},
       .prefix = "language_model.model.",
       .block = "feed_forward.",
       .gate = "router.weight",
       .shared = "shared_expert.",
       .fused = true,
       .exchanged = true});
  all.push_back(
      {.name = "nemotron_3",
       .config = config("nemotron_h", R"({"mlp_hidden_act": "relu2", "n_routed_experts": 8,
                                  "num_experts_per_tok": 3, "moe_intermediate_size": 9,
                                  "moe_latent_size": 6, "n_shared_experts": 1,
                                  "moe_shared_expert_intermediate_size": 15, "n_group": 1,
                                  "topk_group": 1, "norm_topk_prob": true,
                                  "routed_scaling_factor": 5.0})"),
       .is = {.f = with([](auto& f) {
                f.latent = true;
                f.hidden = 6;
                f.shared = 15;
                f.activation = activation_kind::relu2;
              }),
              .route = nemotron,
              .choice_bias = true},
       .prefix = "backbone.",
       .block = "mixer."});
  all.push_back({.name = "longcat_flash",
                 .config = config("longcat_flash", R"({"n_routed_experts": 8, "zero_expert_num": 3,
                                  "zero_expert_type": "identity", "moe_topk": 4,
                                  "ffn_hidden_size": 77, "expert_ffn_hidden_size": 9,
                                  "routed_scaling_factor": 6.0})"),
                 .is = {.f = with([](auto& f) {
                          f.experts = 11;
                          f.top_k = 4;
                        }),
                        .route = {.scale = 6.0f, .zero_experts = 3},
                        .choice_bias = true},
                 .gate = "router.classifier.weight",
                 .choice_bias = "router.e_score_correction_bias"});
}

}  // namespace published_lists

/// The families at a width that a test can hold, under their published keys and names.
inline std::vector<published_family> published_families() {
  std::vector<published_family> all;
  published_lists::add_softmax(all);
  published_lists::add_deepseek(all);
  published_lists::add_deepseek_v4(all);
  published_lists::add_others(all);
  return all;
}

[[nodiscard]] inline published_family published(std::string const& name) {
  for (published_family& p : published_families()) {
    if (name == p.name) return p;
  }
  ADD_FAILURE() << "there is no family " << name;
  return {};
}

/// The same as transformers keeps it in memory, and writes where it does not turn it back: its own
/// block names, all experts in one tensor.
[[nodiscard]] inline published_family in_modules(published_family p) {
  if (p.block == "block_sparse_moe." || p.block == "ffn.") p.block = "mlp.";
  if (p.choice_bias == "gate.bias") p.choice_bias = "gate.e_score_correction_bias";
  if (p.prefix == "backbone." || p.prefix.empty()) p.prefix = "model.";
  p.shared_parts = {"gate_proj", "up_proj", "down_proj"};
  p.fused = true;
  return p;
}

}  // namespace shunt::test
