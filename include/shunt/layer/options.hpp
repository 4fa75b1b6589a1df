#pragma once
#include <cstdint>

#include "shunt/moe_experts/options.hpp"
#include "shunt/route.hpp"

namespace shunt {

/// Options of moe_layer and moe_layer_backward: give both the same. What forward writes in addition to
/// y is moe_outputs. `Activation` is one of Shunt's,
/// the user's own, or `activation`, which is chosen at run time.
template <any_activation Activation = swiglu, space S = space::host> struct layer_options {
  index_t top_k = 1;              ///< K
  index_t tokens_per_expert = 0;  ///< C: experts choose, C tokens each; K and capacity mean nothing
  route_options route = {};  ///< score, groups, gates, zero experts, gate on the input, jitter, ...
  Activation act = {};       ///< of the experts and of the shared one
  index_t capacity = 0;      ///< rows that an expert takes at most; 0: dropless
  drop_policy drop = drop_policy::by_position;  ///< which slots go where the capacity is exceeded
  index_t first_expert = 0;       ///< shard: the global id of the first expert that lives here
  bool zero_experts_here = true;  ///< false: a shard that leaves the zero experts to another

  view<std::uint8_t const, 1, S> valid = {};   ///< [T] 0: padding; no output, no gradient
  view<std::uint8_t const, 1, S> frozen = {};  ///< [L] 1: this expert's weights get no gradient
  expert_ids<S> ids = {};                ///< [T,K] a choice from outside, or with `token` [V,K]
  view<index_t const, 1, S> token = {};  ///< [T] the table row of each token (hash layers)

  route_draws<S> draws = {};  ///< the router's seed and first token, where memory holds them

  /// Experts' weights int8_channel or mxfp4: round their rows to int8 too, before both products; see
  /// gemm_options.
  bool int8_rows = false;
  bool add_to_y = false;  ///< y holds the residual: the layer's output is added to it
  memory_mode memory = memory_mode::save;  ///< what forward keeps for backward
  bool accumulate = false;    ///< gradients: add to what the buffers hold, instead of overwriting
  float balance_loss = 0.0f;  ///< times E Σ f_e P_e, over the valid tokens of this call
  float z_loss = 0.0f;        ///< times the mean over them of log(Σ exp(logits))²

  /// Gradients of further losses (sequence-wise balance, band, one over all micro-batches), read by
  /// backward; `gate` is ignored. What is given here takes the place of the two losses' own.
  route_gradients<S> from_losses = {};

  stage_hook hook = {};  ///< called after each stage, in forward and in backward
};

}  // namespace shunt
