#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "config.hpp"
#include "family_parts.hpp"

namespace checkpoint {

namespace detail {

inline layer_plan mixtral(config const& c) {
  layer_plan p{.preset = {.name = "Mixtral"}, .namings = {{"block_sparse_moe."}, {"mlp."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "num_local_experts", "intermediate_size");
  renormalize(p, true);
  return p;
}

inline layer_plan olmoe(config const& c) {
  layer_plan p{.preset = {.name = "OLMoE"}, .namings = {{"mlp."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "num_experts", "intermediate_size");
  renormalize(p, c.flag_or("norm_topk_prob", false));
  return p;
}

inline layer_plan qwen(config const& c, char const* name, bool shared, bool renormalized) {
  layer_plan p{.preset = {.name = name}, .namings = {{"mlp."}}};
  c.must_be("hidden_act", "silu");
  // Published as num_experts; transformers 5 writes Qwen3's under the other name.
  sizes(p, c, c.name_of({"num_experts", "num_local_experts"}), "moe_intermediate_size");
  renormalize(p, c.flag_or("norm_topk_prob", renormalized));
  if (shared) {
    p.preset.shared_experts = 1;
    p.preset.shared_intermediate = c.count("shared_expert_intermediate_size");
    p.preset.shared_gate = true;
    p.shared = "shared_expert.";
  }
  return p;
}

inline layer_plan deepseek_v2(config const& c) {
  layer_plan p{.preset = {.name = "DeepSeek-V2"}, .namings = {{"mlp."}}};
  c.must_be("hidden_act", "silu");
  c.must_be("scoring_func", "softmax");
  sizes(p, c, "n_routed_experts", "moe_intermediate_size");
  // DeepSeek's own code renormalizes without the scale, transformers' does neither.
  if (c.flag_or("norm_topk_prob", false)) {
    c.refuse("norm_topk_prob is true, on which the reference implementations do not agree");
  }
  scale(p, c, 1.0f);
  std::string const method = c.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    for (char const* key : {"n_group", "topk_group"}) (void)c.count(key);  // of no default
    groups(p, c, shunt::group_rule::best, "n_group", 1, 1);
  } else if (method != "greedy") {
    c.must_be("topk_method", "greedy");
  }
  shared_experts(p, c, "n_shared_experts", 2);
  return p;
}

/// The router of DeepSeek-V3, which others took: sigmoid scores and a bias on the choice.
inline void noaux_tc(layer_plan& p, config const& c, bool renormalized, key_defaults const& d,
                     char const* n_group = "n_group") {
  for (char const* key : {"scoring_func", "moe_router_activation_func"}) c.must_be(key, "sigmoid");
  c.must_be("topk_method", "noaux_tc");
  p.preset.route.score = shunt::score_kind::sigmoid;
  renormalize(p, renormalized, 1e-20f);
  scale(p, c, d.routed_scaling_factor);
  groups(p, c, shunt::group_rule::sum_of_two_best, n_group, d.n_group, d.topk_group);
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
}

/// DeepSeek-V3, R1 and those who took its layer: Kimi-K2, GLM.
inline layer_plan deepseek_v3(config const& c, char const* name, key_defaults const& d) {
  layer_plan p{.preset = {.name = name}, .namings = {{"mlp."}, {"block_sparse_moe."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "n_routed_experts", "moe_intermediate_size");
  noaux_tc(p, c, c.flag_or("norm_topk_prob", d.norm_topk_prob), d);
  shared_experts(p, c, "n_shared_experts", d.n_shared_experts);
  return p;
}

/// The same layer under its own keys, or under DeepSeek-V3's, which the reference takes for them too.
inline layer_plan kimi_linear(config const& c) {
  key_defaults const d{.routed_scaling_factor = 2.446f};
  layer_plan p{.preset = {.name = "Kimi-Linear"}, .namings = {{"block_sparse_moe."}, {"mlp."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, c.name_of({"num_experts", "num_local_experts"}), "moe_intermediate_size",
        c.name_of({"num_experts_per_token", "num_experts_per_tok"}));
  bool const renormalized =
      c.flag_or(c.name_of({"moe_renormalize", "norm_topk_prob"}), d.norm_topk_prob);
  noaux_tc(p, c, renormalized, d, c.name_of({"num_expert_group", "n_group"}));
  shared_experts(p, c, c.name_of({"num_shared_experts", "n_shared_experts"}), d.n_shared_experts);
  return p;
}

inline layer_plan deepseek_v4(config const& c) {
  layer_plan p{.preset = {.name = "DeepSeek-V4"},
               .namings = {{.block = "ffn.", .choice_bias = "gate.bias"}, {"mlp."}}};
  c.must_be("hidden_act", "silu");
  c.must_be("scoring_func", "sqrtsoftplus");
  sizes(p, c, "n_routed_experts", "moe_intermediate_size");
  p.preset.route.score = shunt::score_kind::sqrt_softplus;
  if (!c.flag_or("norm_topk_prob", true))
    c.refuse("norm_topk_prob is false; only true is known here");
  renormalize(p, true, 1e-20f);
  scale(p, c, 1.5f);
  p.preset.activation = shunt::activation_kind::swiglu_capped;
  p.preset.activation_limit = c.number_or("swiglu_limit", 10.0f);
  p.act = shunt::swiglu_capped{.limit = p.preset.activation_limit};
  p.preset.choice = shunt::choice_kind::hash_first;
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  shared_experts(p, c, "n_shared_experts", 1);
  return p;
}

inline layer_plan minimax_m2(config const& c) {
  constexpr std::string_view bias = "e_score_correction_bias";
  layer_plan p{.preset = {.name = "MiniMax-M2"},
               .namings = {{.block = "block_sparse_moe.", .choice_bias = bias},
                           {.block = "mlp.", .choice_bias = bias}}};
  c.must_be("hidden_act", "silu");
  c.must_be("scoring_func", "sigmoid");
  if (c.count_or_none("shared_intermediate_size", 0) != 0) {
    c.refuse("shared_intermediate_size is not 0, for which no names are known here");
  }
  sizes(p, c, "num_local_experts", "intermediate_size");
  p.preset.route.score = shunt::score_kind::sigmoid;
  renormalize(p, true);
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  return p;
}

inline layer_plan gpt_oss(config const& c) {
  layer_plan p{.preset = {.name = "gpt-oss"},
               .namings = {{.block = "mlp.", .gate = "router.weight"}},
               .transposed = true};
  sizes(p, c, "num_local_experts", "intermediate_size");
  p.preset.route.score = shunt::score_kind::logits;
  p.preset.route.gates = shunt::gate_kind::softmax_chosen;
  p.preset.activation = shunt::activation_kind::swiglu_clamped;
  p.preset.activation_limit = c.number_or("swiglu_limit", 7.0f);
  p.act = shunt::swiglu_clamped{.alpha = c.number_or("swiglu_alpha", 1.702f),
                                .limit = p.preset.activation_limit};
  p.preset.gate_bias = true;
  p.preset.expert_biases = true;
  p.preset.interleaved = true;
  return p;
}

inline layer_plan llama4(config const& c) {
  layer_plan p{.preset = {.name = "Llama-4"},
               .namings = {{.block = "feed_forward.", .gate = "router.weight"}},
               .shared = "shared_expert.",
               .transposed = true};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "num_local_experts", "intermediate_size");
  p.preset.route.score = shunt::score_kind::sigmoid;
  p.preset.route.gate_on_input = true;
  p.preset.shared_experts = 1;
  p.preset.shared_intermediate = p.preset.sizes.intermediate;
  return p;
}

inline layer_plan nemotron_h(config const& c) {
  layer_plan p{.preset = {.name = "Nemotron-3"}, .namings = {{"mixer."}}};
  c.must_be("mlp_hidden_act", "relu2");
  if (c.flag_or("mlp_bias", false)) c.refuse("mlp_bias is true, for which nothing is known here");
  sizes(p, c, "n_routed_experts", "moe_intermediate_size");
  p.act = p.preset.activation = shunt::activation_kind::relu2;
  noaux_tc(p, c, c.flag_or("norm_topk_prob", true), {});
  if (c.has("moe_latent_size")) {
    p.preset.model_hidden = p.preset.sizes.hidden;
    p.preset.sizes.hidden = c.count("moe_latent_size");
  }
  if (c.count_or_none("n_shared_experts", 1) > 0) {
    p.preset.shared_experts = 1;
    p.preset.shared_intermediate = c.count("moe_shared_expert_intermediate_size");
    p.shared = "shared_experts.";
  }
  return p;
}

inline layer_plan longcat_flash(config const& c) {
  layer_plan p{.preset = {.name = "LongCat-Flash"},
               .namings = {{.block = "mlp.",
                            .gate = "router.classifier.weight",
                            .choice_bias = "router.e_score_correction_bias"}},
               .unread = "router.classifier.bias"};
  c.must_be("hidden_act", "silu");
  c.must_be("zero_expert_type", "identity");
  sizes(p, c, "n_routed_experts", "expert_ffn_hidden_size", "moe_topk");
  if (c.flag_or("norm_topk_prob", false)) {
    c.refuse("norm_topk_prob is true; the reference does not renormalize");
  }
  shunt::index_t const zero = c.count_or_none("zero_expert_num", 256);
  if (std::int64_t{zero} + p.preset.sizes.experts >= std::int64_t{1} << 31) {
    c.refuse("zero_expert_num makes too many experts");
  }
  p.preset.sizes.experts += zero;
  p.preset.route.zero_experts = zero;
  scale(p, c, 6.0f);
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  return p;
}

inline layer_plan by_type(config const& c, std::string const& type) {
  if (type == "mixtral") return mixtral(c);
  if (type == "olmoe") return olmoe(c);
  if (type == "qwen2_moe") return qwen(c, "Qwen2-MoE", true, false);
  if (type == "qwen3_moe") return qwen(c, "Qwen3-MoE", false, false);
  if (type == "qwen3_next") return qwen(c, "Qwen3-Next", true, true);
  if (type == "deepseek_v2") return deepseek_v2(c);
  constexpr key_defaults v3{.routed_scaling_factor = 2.5f, .n_group = 8, .topk_group = 4};
  if (type == "deepseek_v3") return deepseek_v3(c, "DeepSeek-V3", v3);
  if (type == "kimi_k2" || type == "kimi_k25") return deepseek_v3(c, "Kimi-K2", v3);
  if (type == "kimi_linear") return kimi_linear(c);
  if (type == "glm4_moe") return deepseek_v3(c, "GLM-4.5", {});
  if (type == "glm_moe_dsa") return deepseek_v3(c, "GLM-5", {.routed_scaling_factor = 2.5f});
  if (type == "deepseek_v4") return deepseek_v4(c);
  if (type == "minimax_m2") return minimax_m2(c);
  if (type == "gpt_oss") return gpt_oss(c);
  if (type == "llama4" || type == "llama4_text") return llama4(c);
  if (type == "nemotron_h") return nemotron_h(c);
  if (type == "longcat_flash") return longcat_flash(c);
  c.refuse("its model_type is \"" + quotable(type) + "\", a family that is not known here");
}

/// How weights are quantized, and the blocks that those of fp8 have a scale for each.
inline void blocks(layer_plan& p, config const& c, nlohmann::json const& quantized) {
  auto const named = quantized.find("quant_method");
  std::string const method = named == quantized.end() ? "fp8"
                             : named->is_string()     ? named->get<std::string>()
                                                      : text_of(*named);
  if (method == "gptq") p.quantized = gptq(c, quantized);
  if (method == "awq") p.quantized = awq(c, quantized);
  if (method == "modelopt" || method == "modelopt_fp4") p.quantized = modelopt(c, quantized);
  if (method == "compressed-tensors") p.quantized = compressed_tensors(c, quantized);
  if (p.quantized.by != quantization::kind::blocks) return;
  if (method != "fp8" && method != "mxfp4") {
    c.refuse("its weights are quantized by " + quotable(method) +
             "; known here are fp8 with block scales, mxfp4, nvfp4 (modelopt, compressed-tensors), "
             "and integers of 4 bits (compressed-tensors, gptq, awq)");
  }
  auto const block = quantized.find("weight_block_size");
  if (block == quantized.end() || block->is_null()) return;
  auto const extent = [&](std::size_t i) -> std::uint64_t {
    bool const number = block->is_array() && block->size() == 2 && (*block)[i].is_number_unsigned();
    return number ? (*block)[i].get<std::uint64_t>() : 0;
  };
  p.block_rows = extent(0);
  p.block_columns = extent(1);
  for (std::uint64_t const n : {p.block_rows, p.block_columns}) {
    if (n >= 1 && n < std::uint64_t{1} << 31) continue;
    c.refuse("weight_block_size must be two counts of at least 1 and less than 2^31");
  }
}

}  // namespace detail

/// The layer that a configuration describes; a key that is left out has the default of the
/// reference. Refused: a family or a way of routing that is not known, and weights that are quantized
/// in a way that is not known.
[[nodiscard]] inline layer_plan plan_of(config const& c) {
  layer_plan p =
      detail::by_type(c, c.has("model_type") ? c.text_or("model_type", "") : std::string());
  detail::chosen_fit(p, c);
  if (nlohmann::json const* const quantized = c.object("quantization_config")) {
    detail::blocks(p, c, *quantized);
  }
  return p;
}

}  // namespace checkpoint
