#pragma once
#include <cstdint>
#include <string_view>

#include "shunt/core/activation_kind.hpp"
#include "shunt/core/shape.hpp"
#include "shunt/route/options.hpp"

namespace shunt {

/// How a family keeps its experts busy.
enum class balance_kind : std::uint8_t {
  none,            ///< nothing is done
  auxiliary_loss,  ///< balance_loss()
  sign_step,       ///< a choice bias moved by sign_step()
  quantile_step,   ///< a choice bias set by quantile_step()
  band_loss,       ///< band_loss()
  by_experts       ///< expert choice: balanced by construction
};

/// What decides when a token's experts are not simply its best K.
enum class choice_kind : std::uint8_t {
  top_k,         ///< they are
  hash_first,    ///< the first layers by a table token id -> experts, the others top_k
  expert_choice  ///< each expert takes its best tokens
};

/// A published MoE layer: its shape (tokens is 0), its routing, its experts. What a preset says is
/// from published configurations; docs/stages/route.md has the sources.
struct preset {
  char const* name = "";                                 ///< as published, for a log
  shape sizes{};                                         ///< hidden: the width that the experts see
  route_options route{};                                 ///< how the router chooses and weighs
  activation_kind activation = activation_kind::swiglu;  ///< of the experts
  float activation_limit = 0.0f;                         ///< c of the clamped and capped SwiGLU

  choice_kind choice = choice_kind::top_k;  ///< whether tokens choose, experts, or a table
  balance_kind balance = balance_kind::auxiliary_loss;  ///< how the load is kept even
  bool choice_bias = false;                             ///< a bias on the choice only
  bool gate_bias = false;                               ///< the gate projection has a bias
  bool expert_biases = false;                           ///< the experts' two matrices have biases
  bool interleaved = false;                             ///< gate and up rows alternate

  index_t model_hidden = 0;    ///< width of the model where the experts are latent; 0: the same
  index_t shared_experts = 0;  ///< always active, on the model's width
  index_t shared_intermediate = 0;  ///< of all of them together
  bool shared_gate = false;         ///< their output times the sigmoid of a gate of their own

  float capacity = 0.0f;  ///< rows an expert takes at most, in units of T K / E; 0: no limit
};

namespace presets {

inline constexpr preset switch_base_128{
    .name = "Switch-Base-128",
    .sizes = {.hidden = 768, .intermediate = 3072, .experts = 128, .top_k = 1},
    .route = {.jitter = 0.01f},
    .activation = activation_kind::relu,
    .capacity = 1.25f};

inline constexpr preset gshard{
    .name = "GShard",
    .sizes = {.hidden = 1024, .intermediate = 8192, .experts = 2048, .top_k = 2},
    .route = {.gates = gate_kind::renormalized, .random_second = true},
    .activation = activation_kind::relu,
    .capacity = 1.0f};  // 2 T / E rows, its published factor of 2, at K = 2

inline constexpr preset mixtral_8x7b{
    .name = "Mixtral-8x7B",
    .sizes = {.hidden = 4096, .intermediate = 14336, .experts = 8, .top_k = 2},
    .route = {.gates = gate_kind::renormalized}};
inline constexpr preset mixtral_8x22b{
    .name = "Mixtral-8x22B",
    .sizes = {.hidden = 6144, .intermediate = 16384, .experts = 8, .top_k = 2},
    .route = {.gates = gate_kind::renormalized}};

inline constexpr preset olmoe_1b_7b{
    .name = "OLMoE-1B-7B",
    .sizes = {.hidden = 2048, .intermediate = 1024, .experts = 64, .top_k = 8}};

inline constexpr preset qwen15_moe_a27b{
    .name = "Qwen1.5-MoE-A2.7B",
    .sizes = {.hidden = 2048, .intermediate = 1408, .experts = 60, .top_k = 4},
    .shared_experts = 1,
    .shared_intermediate = 5632,
    .shared_gate = true};

inline constexpr preset qwen3_30b_a3b{
    .name = "Qwen3-30B-A3B",
    .sizes = {.hidden = 2048, .intermediate = 768, .experts = 128, .top_k = 8},
    .route = {.gates = gate_kind::renormalized}};
inline constexpr preset qwen3_235b_a22b{
    .name = "Qwen3-235B-A22B",
    .sizes = {.hidden = 4096, .intermediate = 1536, .experts = 128, .top_k = 8},
    .route = {.gates = gate_kind::renormalized}};

inline constexpr preset qwen3_next_80b{
    .name = "Qwen3-Next-80B",
    .sizes = {.hidden = 2048, .intermediate = 512, .experts = 512, .top_k = 10},
    .route = {.gates = gate_kind::renormalized},
    .shared_experts = 1,
    .shared_intermediate = 512,
    .shared_gate = true};

inline constexpr preset deepseek_v2_lite{
    .name = "DeepSeek-V2-Lite",
    .sizes = {.hidden = 2048, .intermediate = 1408, .experts = 64, .top_k = 6},
    .shared_experts = 2,
    .shared_intermediate = 2816};
inline constexpr preset deepseek_v2{
    .name = "DeepSeek-V2",
    .sizes = {.hidden = 5120, .intermediate = 1536, .experts = 160, .top_k = 6},
    .route = {.scale = 16.0f, .groups = 8, .top_groups = 3, .group_by = group_rule::best},
    .shared_experts = 2,
    .shared_intermediate = 3072};

inline constexpr preset deepseek_v3{
    .name = "DeepSeek-V3",
    .sizes = {.hidden = 7168, .intermediate = 2048, .experts = 256, .top_k = 8},
    .route = {.score = score_kind::sigmoid,
              .gates = gate_kind::renormalized,
              .scale = 2.5f,
              .epsilon = 1e-20f,
              .groups = 8,
              .top_groups = 4,
              .group_by = group_rule::sum_of_two_best},
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .shared_experts = 1,
    .shared_intermediate = 2048};

inline constexpr preset kimi_k2{
    .name = "Kimi-K2",
    .sizes = {.hidden = 7168, .intermediate = 2048, .experts = 384, .top_k = 8},
    .route = {.score = score_kind::sigmoid,
              .gates = gate_kind::renormalized,
              .scale = 2.827f,
              .epsilon = 1e-20f},
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .shared_experts = 1,
    .shared_intermediate = 2048};

inline constexpr preset glm_5{
    .name = "GLM-5",
    .sizes = {.hidden = 6144, .intermediate = 2048, .experts = 256, .top_k = 8},
    .route = {.score = score_kind::sigmoid,
              .gates = gate_kind::renormalized,
              .scale = 2.5f,
              .epsilon = 1e-20f},
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .shared_experts = 1,
    .shared_intermediate = 2048};

inline constexpr preset minimax_m2{
    .name = "MiniMax-M2",
    .sizes = {.hidden = 3072, .intermediate = 1536, .experts = 256, .top_k = 8},
    .route = {.score = score_kind::sigmoid, .gates = gate_kind::renormalized},
    .balance = balance_kind::sign_step,
    .choice_bias = true};

inline constexpr preset deepseek_v4_flash{
    .name = "DeepSeek-V4-Flash",
    .sizes = {.hidden = 4096, .intermediate = 2048, .experts = 256, .top_k = 6},
    .route = {.score = score_kind::sqrt_softplus,
              .gates = gate_kind::renormalized,
              .scale = 1.5f,
              .epsilon = 1e-20f},
    .activation = activation_kind::swiglu_capped,
    .activation_limit = 10.0f,
    .choice = choice_kind::hash_first,
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .shared_experts = 1,
    .shared_intermediate = 2048};
inline constexpr preset deepseek_v4_pro{
    .name = "DeepSeek-V4-Pro",
    .sizes = {.hidden = 7168, .intermediate = 3072, .experts = 384, .top_k = 6},
    .route = {.score = score_kind::sqrt_softplus,
              .gates = gate_kind::renormalized,
              .scale = 2.5f,
              .epsilon = 1e-20f},
    .activation = activation_kind::swiglu_capped,
    .activation_limit = 10.0f,
    .choice = choice_kind::hash_first,
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .shared_experts = 1,
    .shared_intermediate = 3072};

inline constexpr preset gpt_oss_20b{
    .name = "gpt-oss-20b",
    .sizes = {.hidden = 2880, .intermediate = 2880, .experts = 32, .top_k = 4},
    .route = {.score = score_kind::logits, .gates = gate_kind::softmax_chosen},
    .activation = activation_kind::swiglu_clamped,
    .activation_limit = 7.0f,
    .gate_bias = true,
    .expert_biases = true,
    .interleaved = true};
inline constexpr preset gpt_oss_120b{
    .name = "gpt-oss-120b",
    .sizes = {.hidden = 2880, .intermediate = 2880, .experts = 128, .top_k = 4},
    .route = {.score = score_kind::logits, .gates = gate_kind::softmax_chosen},
    .activation = activation_kind::swiglu_clamped,
    .activation_limit = 7.0f,
    .gate_bias = true,
    .expert_biases = true,
    .interleaved = true};

inline constexpr preset llama4_scout{
    .name = "Llama-4-Scout",
    .sizes = {.hidden = 5120, .intermediate = 8192, .experts = 16, .top_k = 1},
    .route = {.score = score_kind::sigmoid, .gate_on_input = true},
    .shared_experts = 1,
    .shared_intermediate = 8192};
inline constexpr preset llama4_maverick{
    .name = "Llama-4-Maverick",
    .sizes = {.hidden = 5120, .intermediate = 8192, .experts = 128, .top_k = 1},
    .route = {.score = score_kind::sigmoid, .gate_on_input = true},
    .shared_experts = 1,
    .shared_intermediate = 8192};

inline constexpr preset kimi_k3{
    .name = "Kimi-K3",
    .sizes = {.hidden = 3584, .intermediate = 3072, .experts = 896, .top_k = 16},
    .route = {.score = score_kind::sigmoid, .gates = gate_kind::renormalized, .epsilon = 1e-20f},
    .activation = activation_kind::situ_glu,
    .balance = balance_kind::quantile_step,
    .choice_bias = true,
    .model_hidden = 7168,
    .shared_experts = 2,
    .shared_intermediate = 6144};

inline constexpr preset nemotron_3_super{
    .name = "Nemotron-3-Super",
    .sizes = {.hidden = 1024, .intermediate = 2688, .experts = 512, .top_k = 22},
    .route = {.score = score_kind::sigmoid,
              .gates = gate_kind::renormalized,
              .scale = 5.0f,
              .epsilon = 1e-20f},
    .activation = activation_kind::relu2,
    .balance = balance_kind::sign_step,
    .choice_bias = true,
    .model_hidden = 4096,
    .shared_experts = 1,
    .shared_intermediate = 5376};

inline constexpr preset longcat_flash{
    .name = "LongCat-Flash",
    .sizes = {.hidden = 6144, .intermediate = 2048, .experts = 768, .top_k = 12},
    .route = {.scale = 6.0f, .zero_experts = 256},
    .balance = balance_kind::sign_step,
    .choice_bias = true};

/// Any width and any number of experts: these sizes are an example's.
inline constexpr preset expert_choice{
    .name = "expert choice",
    .sizes = {.hidden = 1024, .intermediate = 4096, .experts = 64, .top_k = 2},
    .activation = activation_kind::gelu,
    .choice = choice_kind::expert_choice,
    .balance = balance_kind::by_experts,
    .capacity = 1.0f};

/// Two to four of 128; the widths are an example's.
inline constexpr preset band_router{
    .name = "band router",
    .sizes = {.hidden = 1024, .intermediate = 1024, .experts = 128, .top_k = 2},
    .route = {.gate_on_input = true},
    .balance = balance_kind::band_loss};

/// All of them, in the order of the page.
inline constexpr preset const* all[] = {
    &switch_base_128,   &gshard,          &mixtral_8x7b,     &mixtral_8x22b,  &olmoe_1b_7b,
    &qwen15_moe_a27b,   &qwen3_30b_a3b,   &qwen3_235b_a22b,  &qwen3_next_80b, &deepseek_v2_lite,
    &deepseek_v2,       &deepseek_v3,     &kimi_k2,          &glm_5,          &minimax_m2,
    &deepseek_v4_flash, &deepseek_v4_pro, &gpt_oss_20b,      &gpt_oss_120b,   &llama4_scout,
    &llama4_maverick,   &kimi_k3,         &nemotron_3_super, &longcat_flash,  &expert_choice,
    &band_router};

/// The preset of that name, or null.
[[nodiscard]] constexpr preset const* find(std::string_view name) noexcept {
  for (preset const* p : all) {
    if (name == p->name) return p;
  }
  return nullptr;
}

}  // namespace presets
}  // namespace shunt
