#pragma once
#include <cstdint>

#include "shunt/dispatch.hpp"
#include "shunt/experts.hpp"

namespace shunt {

/// What forward keeps for backward in addition to the choice.
enum class memory_mode : std::uint8_t {
  save,      ///< the pre-activations: no GEMM runs twice
  recompute  ///< nothing: backward runs the first GEMM again, on the saved choice; the same bits
};

/// Called after each stage of the layer, on the calling thread, with the stage's name: for timing.
struct stage_hook {
  void* self = nullptr;                                    ///< handed to `after`
  void (*after)(void* self, char const* stage) = nullptr;  ///< null: no call
};

/// The weights of the experts alone, used in place, in any layout of expert_matrix. W is the storage
/// type of the tokens or, for inference, a weight format (formats.hpp).
///   Shapes  up [E,2I,H] (gate rows before up rows; [E,I,H] for an activation without a gate half) ·
///           down [E,H,I] · up_bias [E,2I] in the order of up's rows · down_bias [E,H]
template <weight_format W, space S = space::host> struct moe_experts_weights {
  expert_matrix<W, S> up = {};      ///< [E,2I,H]
  expert_matrix<W, S> down = {};    ///< [E,H,I]
  expert_vector<S> up_bias = {};    ///< [E,2I]; null: none
  expert_vector<S> down_bias = {};  ///< [E,H]; null: none
};

/// Float buffers of the caller for the gradients; a null one is not computed.
///   Shapes  gate [T,K], contiguous · the others as in moe_experts_weights
template <space S = space::host> struct moe_experts_gradients {
  view<float, 2, S> gate = {};                     ///< overwritten, always
  expert_gradient<S> up = {}, down = {};           ///< as the weights
  view<float, 2, S> up_bias = {}, down_bias = {};  ///< as the weights
};

/// Options of moe_experts and moe_experts_backward: give both the same.
template <any_activation Activation = swiglu, space S = space::host> struct moe_experts_options {
  Activation act = {};  ///< between the two products
  index_t first_expert =
      0;  ///< shard (ep_rank · E in vLLM): the global id of the first expert here
  index_t global_experts = 0;  ///< experts that ids may name, for tile sizes only; 0: those here
  index_t capacity = 0;        ///< rows of an expert at most; 0: dropless
  drop_policy drop = drop_policy::by_position;  ///< which slots go where the capacity is exceeded
  bool gate_on_input = false;  ///< x times its gate goes in, the sum is plain (Llama 4)
  bool int8_rows = false;      ///< round activations to int8 too, for int8_channel or mxfp4 weights
  bool add_to_y = false;       ///< y holds the residual: the output is added to it
  bool accumulate = false;     ///< gradients of the weights: add to what the buffers hold
  memory_mode memory = memory_mode::save;      ///< what forward keeps for backward
  view<std::uint8_t const, 1, S> valid = {};   ///< [T] 0: padding; no output, no gradient
  view<std::uint8_t const, 1, S> frozen = {};  ///< [E] 1: this expert's weights get no gradient
  stage_hook hook = {};                        ///< called after each stage
};

/// What moe_experts keeps for backward; x, expert ids and gates are the caller's to keep. Carved from
/// the caller's bytes by carve_moe_experts_saved.
template <storage T, space S = space::host> struct moe_experts_saved {
  dispatch_plan<S> plan;  ///< which row each slot has
  view<T, 2, S> pre;      ///< [R,2I] pre-activations; null when recomputing
};

/// What moe_experts writes in addition to y. Each member is optional.
template <storage T, space S = space::host> struct moe_experts_outputs {
  /// For backward, from carve_moe_experts_saved; null: inference. Its memory is written, not its views.
  moe_experts_saved<T, S> const* saved = nullptr;
  plan_report<S> plan = {};  ///< wanted and kept slots, drops
};

}  // namespace shunt
