#pragma once
#include "shunt/across/plan.hpp"
#include "shunt/layer/outputs.hpp"

namespace shunt {

/// What moe_layer_across keeps for backward; the layer's input x is the caller's to keep. Carved from the
/// caller's bytes by carve_moe_across_saved: one for each layer and micro-batch in flight.
template <storage T, space S = space::host> struct moe_across_saved {
  moe_saved<T, S> layer;      ///< of this rank's tokens; its plan is of the rows sent
  basic_across_plan<S> plan;  ///< where they went, and what came
  view<T, 2, S>
      received;  ///< [N,H] what this rank's experts saw; null when recomputing: it is sent again
  view<T, 2, S> pre;  ///< [N,2I] pre-activations; null when recomputing
  /// Memory where backward leaves what the gradients of the gate, d_logitsᵀ·x, and of a shared expert, d_yᵀ·act and
  /// d_preᵀ·x, are sums of: for a caller who sums over the tokens of all ranks. Null: in scratch. Unused on one rank.
  view<float, 2, S> d_logits = {};                   ///< [T,E]
  view<T, 2, S> shared_d_pre = {}, shared_act = {};  ///< [T,2Is] [T,Is]
};

/// What moe_layer_across writes in addition to y. Each member is optional.
template <storage T, space S = space::host> struct moe_across_outputs {
  /// For backward, from carve_moe_across_saved; null: inference. Its memory is written, not its views.
  moe_across_saved<T, S> const* saved = nullptr;
  view<float, 1, S> loss = {};  ///< [2] balance loss and z-loss, of the tokens of all ranks
  /// What route() writes. `counts`, `importance` and `tokens` are those of all ranks; the others of this
  /// rank's tokens.
  routing<S> route = {};
  load_report<S> load = {};  ///< figures of the load on this rank's experts, from all ranks
  plan_report<S> plan =
      {};  ///< wanted and kept: of this rank's experts; totals: of its tokens' slots
};

}  // namespace shunt
