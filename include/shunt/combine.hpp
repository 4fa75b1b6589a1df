#pragma once
#include "shunt/core/compiler.hpp"

#include <type_traits>

#include "shunt/backend/host/combine.hpp"
#include "shunt/combine/check.hpp"
#include "shunt/combine/options.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/core/numeric.hpp"

/// Combine: expert rows → tokens, weighted by the gates, and back.
namespace shunt {

/// Sums each token's expert rows, weighted by its gates, and adds the shared expert's output, the
/// residual and zero experts.
/// Shapes  rows [R,H] · plan for T tokens · gate [T,K] (null: every gate is 1) → y [T,H]; options:
///         shared [T,H] (times shared_gate [T]), residual [T,H], zero experts (expert [T,K], x [T,H])
/// Types   storage types, rows' and y's own; shared, residual and x have y's. Accumulation float.
/// Order   y = one chain of fma(gate, row, ·) from 0 in slot order k = 0..K-1, a zero expert's slot
///         being fma(gate, x, ·); then fma(shared_gate or 1, shared, ·); then + residual; rounded once.
///         The same bits on every instruction set and any thread count, independent of the other tokens.
/// Aliasing y may be exactly shared's, residual's or x's memory; it shares none with rows.
/// Errors  shapes that do not fit the plan; shared_gate without shared; zero experts without ids or x.
/// Cost    reads ≤ T·K·H, writes T·H. Slots without a row add zero; a token that does not count gets
///         zeros, without residual. Never allocates, never syncs.
/// Source  Shazeer et al., 2017; shared experts DeepSeekMoE, 2024; zero experts LongCat-Flash, 2025.
template <execution P, input<P, 2> Rows, output<P, 2> Tokens>
[[nodiscard]] status combine(
    P const& on, Rows rows, dispatch_plan<P::memory> const& plan,
    std::type_identity_t<view<float const, 2, P::memory>> gate, Tokens y,
    combine_options<element_t<Tokens>, P::memory> const& options = {}) noexcept {
  static_assert(storage<element_t<Rows>> && storage<element_t<Tokens>>,
                "shunt::combine: rows and tokens must be float, shunt::bf16 or shunt::fp16");
  auto const from = as_input<P, 2>(rows);
  auto const to = as_output<P, 2>(y);
  if (status bad = check::combine(from, plan, gate, to, options); !bad.ok()) return bad;
  return detail::combine_backend<P>::forward(on, from, plan, gate, to, options);
}

/// The gradients of combine.
/// Shapes  d_y [T,H] · gate [T,K] (null: 1) · rows [R,H] (null: no d_gate for them) → d_rows [R,H]
///         (null: not wanted), and those of options: d_gate, d_shared, d_shared_gate, d_residual, d_x
/// Types   storage types, d_y's and the rows' own; all other results have d_y's.
/// Order   d_row = gate · d_y, rounded once (also what dispatch gives of d_y with these gates, so
///         that it need not be materialized); d_gate = <d_y, row> in 32 strided partial sums;
///         d_x = a chain of fma(gate, d_y, ·) from 0, then + the old d_x where it accumulates.
/// Aliasing d_residual may be exactly d_y's memory; no other result shares memory with an input.
/// Errors  shapes that do not fit the plan; d_shared_gate without shared; d_gate of zero experts
///         without their x.
/// Cost    reads T·H and, for d_gate, R·H; writes R·H. Padding rows get zero. Never allocates.
/// Source  the transpose of combine.
template <execution P, input<P, 2> Tokens, output<P, 2> Rows>
[[nodiscard]] status combine_backward(
    P const& on, Tokens d_y, dispatch_plan<P::memory> const& plan,
    std::type_identity_t<view<float const, 2, P::memory>> gate,
    std::type_identity_t<view<element_t<Rows> const, 2, P::memory>> rows, Rows d_rows,
    combine_gradients<element_t<Tokens>, P::memory> const& options = {}) noexcept {
  static_assert(storage<element_t<Rows>> && storage<element_t<Tokens>>,
                "shunt::combine_backward: gradients must be float, shunt::bf16 or shunt::fp16");
  auto const from = as_input<P, 2>(d_y);
  auto const to = as_output<P, 2>(d_rows);
  if (status bad = check::combine_backward(from, plan, gate, rows, to, options); !bad.ok()) {
    return bad;
  }
  return detail::combine_backend<P>::backward(on, from, plan, gate, rows, to, options);
}

}  // namespace shunt
