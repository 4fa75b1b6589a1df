#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <type_traits>

#include "shunt/backend/host/dispatch.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/dispatch/check.hpp"
#include "shunt/dispatch/options.hpp"
#include "shunt/dispatch/plan.hpp"

/// Dispatch: chosen experts → plan; tokens → rows in expert order, and back.
namespace shunt {

/// Scratch of plan_dispatch in bytes: made by the code that carves it.
template <execution P>
[[nodiscard]] std::size_t plan_scratch_bytes(P const&, shape const& s,
                                             plan_options<P::memory> const& options = {}) noexcept {
  return detail::dispatch_backend<P>::plan_scratch_bytes(s, options);
}

/// Sorts the slots of a batch by expert: a stable counting sort.
/// Shapes  expert [T,K] → plan (offset [E+1], row_slot [R ≥ plan_rows_bound], slot_row [T·K]); E, the
///         experts that live here, is plan.offset's extent less one.
/// Types   expert index_t. Id -1 is no expert; so is one out of range (counted), of another shard, or
///         a zero expert's. An expert named twice by one token gets two rows, one for each slot.
/// Order   rows of an expert stand in slot order (token, then k): the same for any thread count.
/// Aliasing none.
/// Errors  shapes that do not fit, too few rows, T·K or R beyond index_t, options without meaning, an
///         arena too small (plan_scratch_bytes says how large).
/// Cost    reads T·K twice, writes T·K + R + E. Never allocates, never syncs.
/// Source  GShard (capacity), Megatron-LM (drop by position or by score), MegaBlocks (dropless).
template <execution P, input<P, 2> Expert>
[[nodiscard]] status plan_dispatch(P const& on, Expert expert, dispatch_plan<P::memory> const& plan,
                                   std::type_identity_t<arena<P::memory>> work,
                                   plan_options<P::memory> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<Expert>, index_t>,
                "shunt::plan_dispatch: expert ids must be shunt::index_t");
  auto const ids = as_input<P, 2>(expert);
  if (status bad = check::plan_dispatch(ids, plan, options); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::plan(on, ids, plan, work, options);
}

/// Scratch of plan_from_expert_choice in bytes.
template <execution P>
[[nodiscard]] std::size_t plan_from_expert_choice_scratch_bytes(P const&,
                                                                index_t experts) noexcept {
  return detail::dispatch_backend<P>::choice_scratch_bytes(experts);
}

/// The plan of tokens chosen by experts. Its slots are token·E + e (plan.top_k is E), so that a token
/// may be chosen by any number of experts; combine then takes gates [T,E], which this writes from the
/// gates [E,C] where both are given (or pass the dense scores).
/// Shapes  token [E,C] → plan (offset [E+1], row_slot [R ≥ expert_choice_rows_bound], slot_row [T·E])
/// Types   token index_t; -1 chooses nothing, out of range likewise (counted); a token that an expert
///         names twice has one row, the first naming's (counted).
/// Order   rows of an expert are in token order, for any order of the choice.
/// Aliasing none.  Errors as plan_dispatch.  Cost reads 2·E·C, writes T·E + R.
/// Source  Zhou et al., "Mixture-of-Experts with Expert Choice Routing", 2022.
template <execution P, input<P, 2> Token>
[[nodiscard]] status plan_from_expert_choice(
    P const& on, Token token, dispatch_plan<P::memory> const& plan,
    std::type_identity_t<arena<P::memory>> work,
    expert_choice_options<P::memory> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<Token>, index_t>,
                "shunt::plan_from_expert_choice: token ids must be shunt::index_t");
  auto const chosen = as_input<P, 2>(token);
  if (status bad = check::plan_from_expert_choice(chosen, plan, options); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::choice_plan(on, chosen, plan, work, options);
}

/// Copies each token to its rows; with gates, times its gate (Llama 4, band router).
/// Shapes  x [T,H] → rows [R,H]
/// Types   any trivially copyable element, the same on both sides; with gates float, bf16 or fp16:
///         row = gate · x in float, rounded once.
/// Order   each element is one copy or one product.
/// Aliasing rows shares no memory with x.
/// Errors  shapes that do not fit the plan; gates with a type that is no storage type.
/// Cost    reads T·H, writes R·H. Padding rows become zero; rows behind the last segment stay as they
///         are. Never allocates, never syncs.
/// Source  the scatter of Shazeer et al., 2017.
template <execution P, input<P, 2> Tokens, output<P, 2> Rows>
[[nodiscard]] status dispatch(P const& on, Tokens x, dispatch_plan<P::memory> const& plan,
                              Rows rows, dispatch_options<P::memory> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<Tokens>, element_t<Rows>>,
                "shunt::dispatch: tokens and rows must have the same element type");
  static_assert(std::is_trivially_copyable_v<element_t<Tokens>>,
                "shunt::dispatch: elements must be trivially copyable");
  auto const from = as_input<P, 2>(x);
  auto const to = as_output<P, 2>(rows);
  if (status bad = check::dispatch(from, plan, to, options); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::forward(on, from, plan, to, options);
}

/// The gradient of dispatch: each token's rows summed.
/// Shapes  d_rows [R,H] → d_x [T,H]; with gates also x [T,H] → d_gate [T,K]
/// Types   storage types, d_x's own; x has d_rows' type; accumulation float.
/// Order   d_x = one chain of fma(gate or 1, d_row, ·) from 0 in slot order, then + the old d_x where
///         it accumulates, rounded once; d_gate = <d_row, x> in 32 strided partial sums.
/// Aliasing d_x shares no memory with d_rows or x.
/// Errors  shapes that do not fit the plan; d_gate without x.
/// Cost    reads R·H, writes T·H. Tokens without rows get zero. Never allocates, never syncs.
/// Source  the transpose of dispatch.
template <execution P, input<P, 2> Rows, output<P, 2> Tokens>
[[nodiscard]] status dispatch_backward(
    P const& on, Rows d_rows, dispatch_plan<P::memory> const& plan, Tokens d_x,
    dispatch_gradients<element_t<Rows>, P::memory> const& options = {}) noexcept {
  static_assert(storage<element_t<Rows>> && storage<element_t<Tokens>>,
                "shunt::dispatch_backward: gradients must be float, shunt::bf16 or shunt::fp16");
  auto const from = as_input<P, 2>(d_rows);
  auto const to = as_output<P, 2>(d_x);
  if (status bad = check::dispatch_backward(from, plan, to, options); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::backward(on, from, plan, to, options);
}

/// The token of each row, -1 for padding and behind the last segment: what a gathering GEMM reads.
/// Shapes  plan → token [R].  Order none.  Aliasing none.  Errors shapes.  Cost reads R, writes R.
template <execution P>
[[nodiscard]] status row_tokens(P const& on, dispatch_plan<P::memory> const& plan,
                                std::type_identity_t<view<index_t, 1, P::memory>> token) noexcept {
  if (status bad = check::per_row("row_tokens", plan, "token", token); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::row_tokens(on, plan, token);
}

/// The gate of each row, 0 for padding and behind the last segment: what scales a GEMM's rows.
/// Shapes  gate [T,K] → row_gate [R].  Order none.  Aliasing none.  Errors shapes.
template <execution P>
[[nodiscard]] status gates_to_rows(
    P const& on, std::type_identity_t<view<float const, 2, P::memory>> gate,
    dispatch_plan<P::memory> const& plan,
    std::type_identity_t<view<float, 1, P::memory>> row_gate) noexcept {
  if (status bad = check::gates("gates_to_rows", gate, plan, row_gate); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::gates_to_rows(on, gate, plan, row_gate);
}

/// The other way: a value of each row to its slot, 0 where the slot has no row.
/// Shapes  row_gate [R] → gate [T,K].  Order none.  Aliasing none.  Errors shapes.
template <execution P>
[[nodiscard]] status rows_to_gates(P const& on,
                                   std::type_identity_t<view<float const, 1, P::memory>> row_gate,
                                   dispatch_plan<P::memory> const& plan,
                                   std::type_identity_t<view<float, 2, P::memory>> gate) noexcept {
  if (status bad = check::gates("rows_to_gates", gate, plan, row_gate); !bad.ok()) return bad;
  return detail::dispatch_backend<P>::rows_to_gates(on, row_gate, plan, gate);
}

}  // namespace shunt
