#pragma once
#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"
#include "shunt/experts.hpp"

namespace shunt {

/// The weights of one MoE layer, where and how they lie: an expert_matrix takes every layout (halves
/// in either order, interleaved or apart, pointers per expert, packed). T is the storage type of tokens
/// and rows, GateT that of the gate projection, W what the experts' weights are stored as: T, or, for
/// inference, a weight format (formats.hpp). L experts live here: all of them, or
/// those of a shard; the gate sees all E, zero experts included. What is left null is not in the
/// layer.
///   Shapes  in the letters of the members; Hm is the model's width, H what the experts see (Hm
///           without latent experts), I and Is the intermediate sizes of an expert and of the shared
///           one. 2I is I for an activation without a gate half.
template <storage T, storage GateT = T, space S = space::host, weight_format W = T>
struct moe_weights {
  view<GateT const, 2, S> gate = {};       ///< [E,Hm]
  view<float const, 1, S> gate_bias = {};  ///< [E] added to the logits (gpt-oss)
  view<float const, 1, S> choice_bias =
      {};  ///< [E] added to the scores for the choice: no gradient

  expert_matrix<W, S> up = {};      ///< [L,2I,H]
  expert_matrix<W, S> down = {};    ///< [L,H,I]
  expert_vector<S> up_bias = {};    ///< [L,2I] in the order that the rows of `up` lie
  expert_vector<S> down_bias = {};  ///< [L,H]

  expert_matrix<W, S> shared_up =
      {};  ///< [1,2Is,Hm] several shared experts: one of their summed width
  expert_matrix<W, S> shared_down = {};  ///< [1,Hm,Is]
  view<T const, 1, S> shared_gate =
      {};  ///< [Hm] shared output times sigmoid(x · shared_gate) (Qwen)

  view<T const, 2, S> latent_down = {};  ///< [H,Hm] before dispatch
  view<T const, 2, S> latent_up = {};    ///< [Hm,H] after combine
};

/// Float buffers of the caller for the weights' gradients; what is null is not computed.
///   Shapes  those of moe_weights
template <space S = space::host> struct moe_gradients {
  view<float, 2, S> gate = {};                          ///< [E,Hm]
  view<float, 1, S> gate_bias = {};                     ///< [E]
  expert_gradient<S> up = {}, down = {};                ///< [L,2I,H] and [L,H,I]
  view<float, 2, S> up_bias = {}, down_bias = {};       ///< [L,2I] and [L,H]
  expert_gradient<S> shared_up = {}, shared_down = {};  ///< [1,2Is,Hm] and [1,Hm,Is]
  view<float, 1, S> shared_gate = {};                   ///< [Hm]
  view<float, 2, S> latent_down = {}, latent_up = {};   ///< [H,Hm] and [Hm,H]
};

}  // namespace shunt
