#pragma once
#include <cstdint>

#include "shunt/dispatch.hpp"
#include "shunt/experts.hpp"
#include "shunt/route.hpp"
#include "shunt/stats.hpp"

namespace shunt {

/// What forward keeps for backward beside the choice.
enum class memory_mode : std::uint8_t {
  save,      ///< the pre-activations: no GEMM runs twice
  recompute  ///< nothing: backward runs the first GEMM again, on the saved choice; the same bits
};

/// What happens to a gradient buffer's content.
enum class gradient_mode : std::uint8_t { overwrite, accumulate };

/// Called after each stage of the layer on the calling thread, with the stage's name: for timing.
/// Null: never called.
struct stage_hook {
  void* self = nullptr;
  void (*after)(void* self, char const* stage) = nullptr;
};

/// Options of moe_layer and moe_layer_backward: give both the same. `Activation` is one of Shunt's
/// or the user's own; `activation_of<Kind>` names it from a preset.
template <class Activation = swiglu, space S = space::host> struct layer_options {
  index_t top_k = 1;             ///< K
  route_options route{};         ///< score, groups, gates, zero experts, gate_on_input, ...
  Activation activation{};       ///< of the experts and of the shared one
  index_t capacity = 0;          ///< rows that an expert takes at most; 0: dropless
  drop_policy drop = drop_policy::by_position;
  index_t first_expert = 0;      ///< shard: the global id of the first expert that lives here
  bool zero_experts_here = true;  ///< a shard that leaves the zero experts to another says false

  view<std::uint8_t const, 1, S> valid;  ///< [T] 0: padding, zero output and gradient; null: all
  view<std::uint8_t const, 1, S> frozen;  ///< [L] 1: no weight gradient for this expert; null: none
  expert_ids<S> ids;                     ///< [T,K] a choice from outside, or [V,K] with `token`
  view<index_t const, 1, S> token;       ///< [T] the table row of each token (hash layers)

  memory_mode memory = memory_mode::save;
  gradient_mode gradients = gradient_mode::overwrite;
  float balance_loss = 0.0f;  ///< coefficient of E * sum f_e P_e over this call's valid tokens
  float z_loss = 0.0f;        ///< coefficient of the mean of log(sum exp(logits))^2
  stage_hook hook{};
};

}  // namespace shunt
