#pragma once
// The keys of each published configuration that a layer is read from, with their defaults.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "../../examples/support/config.hpp"

namespace shunt::test {
namespace config_defaults {

using nlohmann::json;

/// What a key that is left out stands for, by configuration_*.py of transformers 5.24.0, and a value
/// that means something else.
struct default_of {
  std::optional<json> otherwise;  ///< none: the file is refused
  json other = nullptr;
};
using keys = std::map<std::string, default_of>;

inline default_of const refused_without{};
inline keys with(keys all, keys const& more) {
  for (auto const& [key, what] : more) all[key] = what;
  return all;
}
inline keys every_key() {
  return {{"hidden_size", refused_without}, {"num_experts_per_tok", refused_without}};
}
inline keys silu_keys() { return with(every_key(), {{"hidden_act", {"silu", "gelu"}}}); }
inline keys noaux_keys() {
  return {{"scoring_func", {"sigmoid", "softmax"}},
          {"moe_router_activation_func", {"sigmoid", "softmax"}},
          {"topk_method", {"noaux_tc", "greedy"}}};
}

/// Mixtral, OLMoE and Qwen, gpt-oss, Llama 4 and MiniMax; none where the family is another.
inline keys plain_family_keys(std::string const& family) {
  auto const renormalized = [](bool yes) { return keys{{"norm_topk_prob", {yes, !yes}}}; };
  keys const every = every_key(), silu = silu_keys();
  keys const qwen =
      with(silu, {{"num_experts", refused_without}, {"moe_intermediate_size", refused_without}});
  keys const shared = {{"shared_expert_intermediate_size", refused_without}};
  if (family == "mixtral") {
    return with(silu,
                {{"num_local_experts", refused_without}, {"intermediate_size", refused_without}});
  }
  if (family == "olmoe") {
    return with(with(silu, renormalized(false)),
                {{"num_experts", refused_without}, {"intermediate_size", refused_without}});
  }
  if (family == "qwen2_moe") return with(with(qwen, renormalized(false)), shared);
  if (family == "qwen3_moe") return with(qwen, renormalized(false));
  if (family == "qwen3_next") return with(with(qwen, renormalized(true)), shared);
  if (family == "minimax_m2") {
    return with(silu, {{"num_local_experts", refused_without},
                       {"intermediate_size", refused_without},
                       {"scoring_func", {"sigmoid", "softmax"}},
                       {"shared_intermediate_size", {0, 5}}});
  }
  if (family == "gpt_oss") {
    return with(every, {{"num_local_experts", refused_without},
                        {"intermediate_size", refused_without},
                        {"swiglu_limit", {7.0, 3.25}},
                        {"swiglu_alpha", {1.702, 3.25}}});
  }
  if (family == "llama4") {
    return with(silu,
                {{"num_local_experts", refused_without}, {"intermediate_size", refused_without}});
  }
  return {};
}

/// DeepSeek and what is made like it: Kimi K2, GLM.
inline keys deepseek_family_keys(std::string const& family) {
  keys const silu = silu_keys(), noaux = noaux_keys();
  keys const deepseek = with(
      silu, {{"n_routed_experts", refused_without}, {"moe_intermediate_size", refused_without}});
  auto const v3 = [&](double scale, int groups, int top) {
    return with(with(deepseek, noaux), {{"norm_topk_prob", {true, false}},
                                        {"n_shared_experts", {1, 2}},
                                        {"routed_scaling_factor", {scale, 3.25}},
                                        {"n_group", {groups, 32}},
                                        {"topk_group", {top, 7}}});
  };
  if (family == "deepseek_v2" || family == "deepseek_v2_lite") {
    keys all = with(deepseek, {{"norm_topk_prob", {false, true}},
                               {"n_shared_experts", {2, 1}},
                               {"routed_scaling_factor", {1.0, 3.25}},
                               {"scoring_func", {"softmax", "sigmoid"}},
                               {"topk_method", {"greedy", "noaux_tc"}}});
    if (family == "deepseek_v2") all["n_group"] = all["topk_group"] = refused_without;
    return all;
  }
  if (family == "deepseek_v3" || family == "kimi_k2") return v3(2.5, 8, 4);
  if (family == "glm_4_5") return v3(1.0, 1, 1);
  if (family == "glm_5") return v3(2.5, 1, 1);
  if (family == "deepseek_v4" || family == "deepseek_v4_hash") {
    return with(deepseek, {{"norm_topk_prob", {true, false}},
                           {"n_shared_experts", {1, 2}},
                           {"routed_scaling_factor", {1.5, 3.25}},
                           {"scoring_func", {"sqrtsoftplus", "sigmoid"}},
                           {"swiglu_limit", {10.0, 3.25}}});
  }
  return {};
}

/// Kimi Linear, Nemotron 3 and LongCat-Flash.
inline keys hybrid_family_keys(std::string const& family) {
  keys const every = every_key(), silu = silu_keys(), noaux = noaux_keys();
  if (family == "kimi_linear") {
    keys all = with(with(silu, noaux), {{"num_experts", refused_without},
                                        {"num_experts_per_token", refused_without},
                                        {"moe_intermediate_size", refused_without},
                                        {"moe_renormalize", {true, false}},
                                        {"num_shared_experts", {1, 2}},
                                        {"num_expert_group", {1, 32}},
                                        {"topk_group", {1, 7}},
                                        {"routed_scaling_factor", {2.446, 3.25}}});
    all.erase("num_experts_per_tok");
    return all;
  }
  if (family == "nemotron_3") {
    return with(with(every, noaux), {{"n_routed_experts", refused_without},
                                     {"moe_intermediate_size", refused_without},
                                     {"moe_shared_expert_intermediate_size", refused_without},
                                     {"mlp_hidden_act", {"relu2", "silu"}},
                                     {"mlp_bias", {false, true}},
                                     {"norm_topk_prob", {true, false}},
                                     {"n_shared_experts", {1, 0}},
                                     {"moe_latent_size", {json(nullptr), 5}},
                                     {"routed_scaling_factor", {1.0, 3.25}},
                                     {"n_group", {1, 32}},
                                     {"topk_group", {1, 7}}});
  }
  if (family == "longcat_flash") {
    keys all = with(silu, {{"n_routed_experts", refused_without},
                           {"expert_ffn_hidden_size", refused_without},
                           {"moe_topk", refused_without},
                           {"norm_topk_prob", {false, true}},
                           {"zero_expert_num", {256, 3}},
                           {"zero_expert_type", {"identity", "drop"}},
                           {"routed_scaling_factor", {6.0, 3.25}}});
    all.erase("num_experts_per_tok");
    return all;
  }
  return {};
}

inline keys keys_of(std::string const& family) {
  for (auto const& of : {plain_family_keys, deepseek_family_keys, hybrid_family_keys}) {
    if (keys all = of(family); !all.empty()) return all;
  }
  ADD_FAILURE() << "the table has no family " << family;
  return {};
}

}  // namespace config_defaults
}  // namespace shunt::test
