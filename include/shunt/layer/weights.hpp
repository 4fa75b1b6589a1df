#pragma once
#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"
#include "shunt/experts.hpp"

namespace shunt {

/// The weights of one MoE layer, where they lie. T is the storage type of tokens, rows and expert
/// weights, GateT that of the gate projection. L experts live here (all of them, or those of a
/// shard); the gate sees all E, zero experts included. What is left null is not in the layer.
///   Shapes  in the letters of the members; Hm is the model's width, H what the experts see (Hm
///           without latent experts), I and Is the intermediate sizes of an expert and of the shared
///           one, 2I: I for an activation without a gate half
template <storage T, storage GateT = T, space S = space::host> struct moe_weights {
  view<GateT const, 2, S> gate;        ///< [E,Hm]
  view<float const, 1, S> gate_bias;   ///< [E] added to the logits (gpt-oss)
  view<float const, 1, S> choice_bias;  ///< [E] added to the scores for the choice only: no gradient

  expert_matrix<T, S> up;           ///< [L,2I,H]
  expert_matrix<T, S> down;         ///< [L,H,I]
  view<T const, 2, S> up_bias;      ///< [L,2I]
  view<T const, 2, S> down_bias;    ///< [L,H]
  gated_layout layout{};            ///< how gate and linear halves stand in the 2I rows of `up`

  view<T const, 2, S> shared_up;    ///< [2Is,Hm] several shared experts: one of their summed width
  view<T const, 2, S> shared_down;  ///< [Hm,Is]
  view<T const, 1, S> shared_gate;  ///< [Hm] the shared output times sigmoid(x . shared_gate) (Qwen)
  gated_layout shared_layout{};

  view<T const, 2, S> latent_down;  ///< [H,Hm] before dispatch
  view<T const, 2, S> latent_up;    ///< [Hm,H] after combine
};

/// Float buffers of the caller's for the weights' gradients; what is null is not computed.
///   Shapes  those of moe_weights
template <space S = space::host> struct moe_gradients {
  view<float, 2, S> gate;
  view<float, 1, S> gate_bias;
  view<float, 3, S> up;
  view<float, 3, S> down;
  view<float, 2, S> up_bias;
  view<float, 2, S> down_bias;
  view<float, 2, S> shared_up;
  view<float, 2, S> shared_down;
  view<float, 1, S> shared_gate;
  view<float, 2, S> latent_down;
  view<float, 2, S> latent_up;
};

}  // namespace shunt
