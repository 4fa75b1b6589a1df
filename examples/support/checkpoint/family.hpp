#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "shunt/experts.hpp"
#include "shunt/route/presets.hpp"

namespace checkpoint {

/// Where a layer's tensors stand: PREFIX layers.N. BLOCK and then the names here.
struct naming {
  std::string_view block, gate = "gate.weight";
  std::string_view choice_bias = "gate.e_score_correction_bias";  ///< where the preset has one
};

/// What a config.json says of a mixture-of-experts layer, before any tensor is looked at.
struct layer_plan {
  shunt::preset preset{};  ///< sizes and routing from the configuration; the name is the family's
  shunt::activation act = shunt::activation_kind::swiglu;
  std::vector<naming> namings;        ///< the published one, then that of transformers' modules
  std::string_view shared = {};       ///< the block of the shared expert
  bool transposed = false;            ///< matrices of all experts in one tensor lie [E,K,N]
  std::uint64_t block_rows = 128;     ///< an fp8 scale is that of so many rows ...
  std::uint64_t block_columns = 128;  ///< ... and columns
};

namespace detail {

inline constexpr std::string_view before_layers[] = {
    "model.", "language_model.model.", "model.language_model.", "backbone.", "", "language_model."};

/// The sizes that every family has, under the keys of this one.
inline void sizes(layer_plan& p, config const& c, char const* experts, char const* intermediate,
                  char const* top_k = "num_experts_per_tok") {
  p.preset.sizes.hidden = c.count("hidden_size");
  p.preset.sizes.experts = c.count(experts);
  p.preset.sizes.intermediate = c.count(intermediate);
  p.preset.sizes.top_k = c.count(top_k);
}

inline void renormalise(layer_plan& p, bool yes, float epsilon = 0.0f) {
  p.preset.route.gates = yes ? shunt::gate_kind::renormalised : shunt::gate_kind::raw;
  p.preset.route.epsilon = yes ? epsilon : 0.0f;
}

inline void groups(layer_plan& p, config const& c, shunt::group_rule by) {
  shunt::index_t const groups = c.count_or("n_group", c.count_or("num_expert_group", 1));
  if (groups <= 1) return;
  p.preset.route.groups = groups;
  p.preset.route.top_groups = c.count("topk_group");
  p.preset.route.group_by = by;
}

/// `experts` shared ones as wide as a routed one.
inline void shared_experts(layer_plan& p, config const& c, char const* key) {
  shunt::index_t const shared = c.count_or(key, 0);
  if (shared == 0) return;
  auto const width = std::int64_t{shared} * p.preset.sizes.intermediate;
  if (width >= std::int64_t{1} << 31) c.refuse(std::string(key) + " makes them too wide");
  p.preset.shared_experts = shared;
  p.preset.shared_intermediate = static_cast<shunt::index_t>(width);
  p.shared = "shared_experts.";
}

inline layer_plan mixtral(config const& c) {
  layer_plan p{.preset = {.name = "Mixtral"}, .namings = {{"block_sparse_moe."}, {"mlp."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "num_local_experts", "intermediate_size");
  renormalise(p, true);
  return p;
}

inline layer_plan olmoe(config const& c) {
  layer_plan p{.preset = {.name = "OLMoE"}, .namings = {{"mlp."}}};
  c.must_be("hidden_act", "silu");
  sizes(p, c, "num_experts", "intermediate_size");
  renormalise(p, c.flag_or("norm_topk_prob", false));
  return p;
}

inline layer_plan qwen(config const& c, char const* name, bool shared, bool renormalised) {
  layer_plan p{.preset = {.name = name}, .namings = {{"mlp."}}};
  c.must_be("hidden_act", "silu");
  // Published as num_experts; transformers 5 writes Qwen3's under the other name.
  sizes(p, c, c.has("num_experts") ? "num_experts" : "num_local_experts", "moe_intermediate_size");
  renormalise(p, c.flag_or("norm_topk_prob", renormalised));
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
  // DeepSeek's own code renormalises without the scale, transformers' does neither.
  if (c.flag_or("norm_topk_prob", false)) {
    c.refuse("norm_topk_prob is true, on which the reference implementations do not agree");
  }
  p.preset.route.scale = c.number_or("routed_scaling_factor", 1.0f);
  std::string const method = c.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    groups(p, c, shunt::group_rule::best);
  } else if (method != "greedy") {
    c.must_be("topk_method", "greedy");
  }
  shared_experts(p, c, "n_shared_experts");
  return p;
}

/// DeepSeek-V3, R1 and those who took its router: Kimi, GLM.
inline layer_plan deepseek_v3(config const& c, char const* name) {
  layer_plan p{.preset = {.name = name}, .namings = {{"mlp."}, {"block_sparse_moe."}}};
  bool const kimi_linear = c.has("num_experts_per_token");
  c.must_be("hidden_act", "silu");
  c.must_be("scoring_func", "sigmoid");
  c.must_be("moe_router_activation_func", "sigmoid");
  c.must_be("topk_method", "noaux_tc");
  sizes(p, c, kimi_linear ? "num_experts" : "n_routed_experts", "moe_intermediate_size",
        kimi_linear ? "num_experts_per_token" : "num_experts_per_tok");
  p.preset.route.score = shunt::score_kind::sigmoid;
  renormalise(p, c.flag_or(kimi_linear ? "moe_renormalize" : "norm_topk_prob", true), 1e-20f);
  p.preset.route.scale = c.number_or("routed_scaling_factor", 1.0f);
  groups(p, c, shunt::group_rule::sum_of_two_best);
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  shared_experts(p, c, kimi_linear ? "num_shared_experts" : "n_shared_experts");
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
  renormalise(p, true, 1e-20f);
  p.preset.route.scale = c.number_or("routed_scaling_factor", 1.0f);
  p.preset.activation = shunt::activation_kind::swiglu_capped;
  p.preset.activation_limit = c.number_or("swiglu_limit", 10.0f);
  p.act = shunt::swiglu_capped{.limit = p.preset.activation_limit};
  p.preset.choice = shunt::choice_kind::hash_first;
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  shared_experts(p, c, "n_shared_experts");
  return p;
}

inline layer_plan minimax_m2(config const& c) {
  constexpr std::string_view bias = "e_score_correction_bias";
  layer_plan p{.preset = {.name = "MiniMax-M2"},
               .namings = {{.block = "block_sparse_moe.", .choice_bias = bias},
                           {.block = "mlp.", .choice_bias = bias}}};
  c.must_be("hidden_act", "silu");
  c.must_be("scoring_func", "sigmoid");
  if (c.count_or("shared_intermediate_size", 0) != 0) {
    c.refuse("shared_intermediate_size is not 0, for which no names are known here");
  }
  sizes(p, c, "num_local_experts", "intermediate_size");
  p.preset.route.score = shunt::score_kind::sigmoid;
  renormalise(p, true);
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
  p.preset.route.score = shunt::score_kind::sigmoid;
  renormalise(p, c.flag_or("norm_topk_prob", true), 1e-20f);
  p.preset.route.scale = c.number_or("routed_scaling_factor", 1.0f);
  groups(p, c, shunt::group_rule::sum_of_two_best);
  p.preset.balance = shunt::balance_kind::sign_step;
  p.preset.choice_bias = true;
  if (c.has("moe_latent_size")) {
    p.preset.model_hidden = p.preset.sizes.hidden;
    p.preset.sizes.hidden = c.count("moe_latent_size");
  }
  if (c.count_or("n_shared_experts", 1) > 0) {
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
                            .choice_bias = "router.e_score_correction_bias"}}};
  c.must_be("hidden_act", "silu");
  c.must_be("zero_expert_type", "identity");
  sizes(p, c, "n_routed_experts", "expert_ffn_hidden_size", "moe_topk");
  shunt::index_t const zero = c.count_or("zero_expert_num", 0);
  if (std::int64_t{zero} + p.preset.sizes.experts >= std::int64_t{1} << 31) {
    c.refuse("zero_expert_num makes too many experts");
  }
  p.preset.sizes.experts += zero;
  p.preset.route.zero_experts = zero;
  p.preset.route.scale = c.number_or("routed_scaling_factor", 1.0f);
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
  if (type == "deepseek_v3") return deepseek_v3(c, "DeepSeek-V3");
  if (type == "kimi_k2" || type == "kimi_k25") return deepseek_v3(c, "Kimi-K2");
  if (type == "kimi_linear") return deepseek_v3(c, "Kimi-Linear");
  if (type == "glm4_moe") return deepseek_v3(c, "GLM-4.5");
  if (type == "glm_moe_dsa") return deepseek_v3(c, "GLM-5");
  if (type == "deepseek_v4") return deepseek_v4(c);
  if (type == "minimax_m2") return minimax_m2(c);
  if (type == "gpt_oss") return gpt_oss(c);
  if (type == "llama4" || type == "llama4_text") return llama4(c);
  if (type == "nemotron_h") return nemotron_h(c);
  if (type == "longcat_flash") return longcat_flash(c);
  c.refuse("its model_type is \"" + quotable(type) + "\", a family that is not known here");
}

}  // namespace detail

/// The layer that a configuration describes. Refused: a family or a way of routing that is not known,
/// and weights that are quantised in another way than fp8 or mxfp4.
[[nodiscard]] inline layer_plan plan_of(config const& c) {
  layer_plan p = detail::by_type(c, c.text_or("model_type", ""));
  if (p.preset.sizes.top_k > p.preset.sizes.experts) {
    c.refuse("it chooses " + std::to_string(p.preset.sizes.top_k) + " experts of " +
             std::to_string(p.preset.sizes.experts));
  }
  if (nlohmann::json const* const quantised = c.object("quantization_config")) {
    auto const named = quantised->find("quant_method");
    std::string const method = named == quantised->end() ? "fp8"
                               : named->is_string()      ? named->get<std::string>()
                                                         : named->dump();
    if (method != "fp8" && method != "mxfp4") {
      c.refuse("its weights are quantised by " + quotable(method) +
               "; fp8 with block scales and mxfp4 are known here");
    }
    auto const block = quantised->find("weight_block_size");
    if (block != quantised->end() && !block->is_null()) {
      if (!block->is_array() || block->size() != 2 || !(*block)[0].is_number_unsigned() ||
          !(*block)[1].is_number_unsigned() || (*block)[0] == 0u || (*block)[1] == 0u) {
        c.refuse("weight_block_size must be two counts");
      }
      p.block_rows = (*block)[0].get<std::uint64_t>();
      p.block_columns = (*block)[1].get<std::uint64_t>();
    }
  }
  return p;
}

}  // namespace checkpoint
