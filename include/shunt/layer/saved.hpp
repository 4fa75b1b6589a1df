#pragma once
#include "shunt/layer/options.hpp"
#include "shunt/layer/weights.hpp"

namespace shunt {

/// What forward keeps for backward; the layer's input x is the caller's to keep. Carved from the
/// caller's bytes by carve_moe_saved: one for each layer and micro-batch in flight.
template <storage T, space S = space::host> struct moe_saved {
  view<float, 2, S> logits;  ///< [T,E]
  routing<S> choice;         ///< expert, gate [T,K]; gate [T,E] where experts choose, and
  ::shunt::expert_choice<S> expert_choice;  ///< token, gate [E,C]
  view<float, 1, S> d_importance;           ///< [E] gradient of the balance loss; null without
  view<float, 1, S> d_z;                    ///< [T] gradient of the z-loss; null without
  dispatch_plan<S> plan;                    ///< which row each slot has
  view<T, 2, S> pre;                        ///< [R,2I] pre-activations; null when recomputing
  view<T, 2, S> shared_pre;       ///< [T,2Is]; null when recomputing, or without shared experts
  view<float, 1, S> shared_gate;  ///< [T] sigmoid(x · shared_gate)
  view<T, 2, S> latent;           ///< [T,H] what the experts see, where it is not x
  view<T, 2, S> latent_sum;       ///< [T,H] what combine gave
};

}  // namespace shunt
