#pragma once
#include <type_traits>

#include "shunt/backend/host/experts.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/experts/activations.hpp"
#include "shunt/experts/check.hpp"
#include "shunt/experts/options.hpp"
#include "shunt/experts/weights.hpp"
#include "shunt/quantize.hpp"

/// Experts: grouped matrix products over the rows of each expert, activations, and their gradients.
namespace shunt {

/// Each expert's rows times its weights, with bias, activation and row factors in the same pass.
/// Shapes  a [R,K] (or gathered: any rows of K) · w [E,N,K] · rows [E+1] → c [R,N]; with a gated
///         activation w's 2I rows are gate and up, and c is [R,I]. Rows outside every segment are
///         neither read nor written.
/// Types   a, w, c, bias and pre each of any storage type, w also of a weight format (formats.hpp);
///         sums, bias and activation in float.
/// Order   an output is one chain of fma over k = 0..K-1 from 0.0f, then + bias, then (where they are
///         kept, or round_pre) rounded as the kept pre-activation, the activation, times the row's
///         factor, rounded once. The same bits on every instruction set and thread count, for every
///         layout of the weights, packed or not, independent of the other rows. Quantized weights: the
///         bits of the same product with the decoded weights. With int8_rows: sums of integers, exact,
///         group by group (docs/stages/weight_formats.md); the same bits everywhere too.
/// Aliasing c and pre share no memory with an input or each other.
/// Errors  extents that do not fit; segments that fall or end behind R; a gated activation with an odd
///         N, or with weights packed without pairs; int8_rows with other weights than int8_channel or
///         mxfp4, or K > 65536.
/// Cost    2·R·N·K flops; reads each expert's weights once per 72 rows. At most 250 KB of each worker's
///         stack; never allocates, never syncs.
/// Source  MegaBlocks (Gale et al., 2022) for the grouping; GotoBLAS (Goto & van de Geijn, 2008) for
///         the blocking.
template <execution P, input<P, 2> A, class W, output<P, 2> C, any_activation Act = identity>
  requires expert_weights<W, P>
[[nodiscard]] status grouped_gemm(P const& on, A a, W const& w,
                                  std::type_identity_t<segments<P::memory>> rows, C c,
                                  Act const& act = {},
                                  gemm_options<P::memory> const& options = {}) noexcept {
  static_assert(
      storage<element_t<A>> && weight_format<element_t<W>> && storage<element_t<C>>,
      "shunt::grouped_gemm: a, w and c must be float, shunt::bf16 or shunt::fp16, or w of "
      "a weight format");
  static_assert(storage<element_t<W>> || P::memory == space::host,
                "shunt::grouped_gemm: weight formats run on the host only");
  auto const from = as_input<P, 2>(a);
  auto const weights = as_experts<P>(w);
  auto const to = as_output<P, 2>(c);
  bool const halves = gated(act);
  offset_t const R = to.extent(0), N = weights.rows();
  if (status bad = first_of(
          check::policy(on), check::rows("grouped_gemm.a", from),
          check::segments_content("grouped_gemm.rows", rows, R),
          check::experts("grouped_gemm.w", weights, rows.experts()),
          check::extent("grouped_gemm.a", 1, from.extent(1), weights.columns(), "columns of w"),
          options.gather.slot ? status{}
                              : check::extent("grouped_gemm.a", 0, from.extent(0), R, "rows of c"),
          check::gather("grouped_gemm.gather", options.gather, R),
          check::rows("grouped_gemm.c", to),
          check::extent("grouped_gemm.c", 1, to.extent(1), halves ? N / 2 : N,
                        halves ? "half the rows of w" : "rows of w"),
          check::apart("grouped_gemm.c", to, "grouped_gemm.a", from),
          check::extra("grouped_gemm.pre", options.pre, R, N),
          check::scale("grouped_gemm.scale", options.scale, R),
          check::bias("grouped_gemm.bias", options.bias, rows.experts(), N),
          check::halves("grouped_gemm.w", weights, halves),
          check::int8_rows("grouped_gemm.int8_rows", weights, options.int8_rows));
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::forward(on, from, weights, rows, to, act, options);
}

/// The gradient of grouped_gemm to its rows.
/// Shapes  dc [R,N] (or gathered) · w [E,N,K] · rows [E+1] → da [R,K]. Where w's rows are pairs, dc is
///         in the order gate, up.
/// Types   any storage types; sums in float.
/// Order   one chain of fma over n = 0..N-1 from 0.0f, times the row's factor, then (add) + the old
///         da, rounded once. The same bits wherever it runs and however w lies.
/// Aliasing da shares no memory with dc.
/// Errors  as grouped_gemm.
/// Cost    2·R·N·K flops. Never allocates, never syncs.
template <execution P, input<P, 2> D, class W, output<P, 2> A>
  requires expert_weights<W, P>
[[nodiscard]] status grouped_dgrad(P const& on, D dc, W const& w,
                                   std::type_identity_t<segments<P::memory>> rows, A da,
                                   dgrad_options<P::memory> const& options = {}) noexcept {
  static_assert(!quantized<element_t<W>>,
                "shunt::grouped_dgrad: weight formats are for inference; gradients take float, "
                "shunt::bf16 or shunt::fp16");
  static_assert(storage<element_t<D>> && storage<element_t<W>> && storage<element_t<A>>,
                "shunt::grouped_dgrad: dc, w and da must be float, shunt::bf16 or shunt::fp16");
  auto const from = as_input<P, 2>(dc);
  auto const weights = as_experts<P>(w);
  auto const to = as_output<P, 2>(da);
  offset_t const R = to.extent(0);
  if (status bad = first_of(
          check::policy(on), check::rows("grouped_dgrad.dc", from),
          check::segments_content("grouped_dgrad.rows", rows, R),
          check::experts("grouped_dgrad.w", weights, rows.experts()),
          check::extent("grouped_dgrad.dc", 1, from.extent(1), weights.rows(), "rows of w"),
          options.gather.slot
              ? status{}
              : check::extent("grouped_dgrad.dc", 0, from.extent(0), R, "rows of da"),
          check::gather("grouped_dgrad.gather", options.gather, R),
          check::rows("grouped_dgrad.da", to),
          check::extent("grouped_dgrad.da", 1, to.extent(1), weights.columns(), "columns of w"),
          check::apart("grouped_dgrad.da", to, "grouped_dgrad.dc", from),
          check::scale("grouped_dgrad.scale", options.scale, R));
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::dgrad(on, from, weights, rows, to, options);
}

/// The gradient of grouped_gemm to its weights and biases.
/// Shapes  dc [R,N] · a [R,K] (either may be gathered) · rows [E+1] → dw [E,N,K], d_bias [E,N]. dw may
///         have any layout of weights: any strides, pointers per expert, pairs in any layout, halves apart.
/// Types   dc and a of any storage type; dw and d_bias float.
/// Order   dw: one chain of fma(factor · dc, a, ·) over the expert's rows in order, from 0.0f; then
///         (add) old + chain. d_bias: the sum of dc's rows in order, likewise.
/// Aliasing dw and d_bias share no memory with an input.
/// Errors  as grouped_gemm.
/// Cost    2·R·N·K flops. An expert without rows gets zeros, or (accumulate) is not touched; a frozen one is
///         never written. Never allocates, never syncs.
template <execution P, input<P, 2> D, input<P, 2> A, class G>
  requires std::constructible_from<expert_gradient<P::memory>, G const&>
[[nodiscard]] status grouped_wgrad(P const& on, D dc, A a,
                                   std::type_identity_t<segments<P::memory>> rows, G const& dw,
                                   wgrad_options<P::memory> const& options = {}) noexcept {
  static_assert(storage<element_t<D>> && storage<element_t<A>>,
                "shunt::grouped_wgrad: dc and a must be float, shunt::bf16 or shunt::fp16");
  auto const left = as_input<P, 2>(dc);
  auto const right = as_input<P, 2>(a);
  expert_gradient<P::memory> const to(dw);
  offset_t const R = options.gather_dc.slot ? options.gather_dc.slot.extent(0) : left.extent(0);
  if (status bad = first_of(
          check::policy(on), check::rows("grouped_wgrad.dc", left),
          check::rows("grouped_wgrad.a", right),
          check::segments_content("grouped_wgrad.rows", rows, R),
          check::experts("grouped_wgrad.dw", to, rows.experts()),
          check::extent("grouped_wgrad.dc", 1, left.extent(1), to.rows(), "rows of dw"),
          check::extent("grouped_wgrad.a", 1, right.extent(1), to.columns(), "columns of dw"),
          check::gather("grouped_wgrad.gather_dc", options.gather_dc, R),
          check::gather("grouped_wgrad.gather_a", options.gather_a, R),
          options.gather_a.slot
              ? status{}
              : check::extent("grouped_wgrad.a", 0, right.extent(0), R, "rows of dc"),
          check::scale("grouped_wgrad.scale", options.scale, R),
          check::gradients("grouped_wgrad", to, options));
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::wgrad(on, left, right, rows, to, options);
}

/// Interleaves the rows of weights by 16, so that a product reads them as they lie. Made once; then
/// `expert_matrix<T>::packed(data, E, N, K[, pairs])` takes the place of w, with the same results.
/// Shapes  w [E,N,K] → packed: expert_matrix's packed_elements() elements, zeros behind the last row
/// Types   one storage type for both.
/// Order   nothing is computed.
/// Aliasing packed shares no memory with w.
/// Errors  too few elements; weights that are packed already.
/// Cost    reads and writes the weights once. Never allocates.
template <execution P, class W, output<P, 1> Packed>
  requires expert_weights<W, P>
[[nodiscard]] status pack_weights(P const& on, W const& w, Packed&& packed) noexcept {
  auto const from = as_experts<P>(w);
  auto const to = as_output<P, 1>(packed);
  static_assert(storage<element_t<W>>,
                "shunt::pack_weights: quantized weights are packed already (quantize.hpp)");
  static_assert(std::same_as<element_t<Packed>, element_t<W>>,
                "shunt::pack_weights: packed must have the weights' element type");
  if (status bad =
          first_of(check::policy(on), check::experts("pack_weights.w", from, from.experts()),
                   check::not_packed("pack_weights.w", from),
                   check::packed_into("pack_weights.packed", from, to));
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::pack(on, from, to.data());
}

/// An activation of given rows, times the rows' factors.
/// Shapes  pre [R,I], or [R,2I] (gate columns before up columns) → out [R,I]
/// Types   any storage types; in float, rounded once.
/// Order   each element by itself: the bits that grouped_gemm makes of the same pre-activations.
/// Aliasing none.
/// Errors  extents that do not fit.
/// Cost    reads 2·R·I, writes R·I. Never allocates, never syncs.
template <execution P, input<P, 2> Pre, output<P, 2> Out, any_activation Act>
[[nodiscard]] status activation_forward(
    P const& on, Pre pre, Act const& act, Out out,
    activation_options<P::memory> const& options = {}) noexcept {
  auto const from = as_input<P, 2>(pre);
  auto const to = as_output<P, 2>(out);
  offset_t const R = to.extent(0), I = to.extent(1);
  if (status bad = first_of(
          check::policy(on), check::rows("activation_forward.pre", from),
          check::rows("activation_forward.out", to),
          check::extent("activation_forward.pre", 0, from.extent(0), R, "rows of out"),
          check::extent("activation_forward.pre", 1, from.extent(1), gated(act) ? 2 * I : I,
                        gated(act) ? "twice the columns of out" : "columns of out"),
          check::apart("activation_forward.out", to, "activation_forward.pre", from),
          check::in_use("activation_forward.rows", options.rows, R),
          check::scale("activation_forward.scale", options.scale, R));
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::activate(on, from, to, act, options);
}

/// The gradient through an activation and its row factors, with what the products around it need: of
/// y = factor · f(pre), d_pre = factor · d_act · f'(pre); on request act = factor · f(pre), recomputed,
/// and d_scale = ⟨d_act, f(pre)⟩.
/// Shapes  d_act [R,I] · pre [R,I or 2I] → d_pre as pre · options: act [R,I], d_scale [R]
/// Types   any storage types; in float, each output rounded once.
/// Order   elements by themselves; d_scale: 32 products at a time in a halving tree, the trees' sums in
///         ascending order from 0.0f.
/// Aliasing d_pre may be exactly pre's memory, act exactly d_act's, of one type; else none.
/// Errors  extents that do not fit.
/// Cost    reads 3·R·I, writes 2 to 3·R·I. A padding row (slot -1) gets zeros.
///         Never allocates, never syncs.
template <execution P, input<P, 2> D, input<P, 2> Pre, output<P, 2> Out, any_activation Act>
[[nodiscard]] status activation_backward(
    P const& on, D d_act, Pre pre, Act const& act, Out d_pre,
    activation_options<P::memory> const& options = {}) noexcept {
  auto const from = as_input<P, 2>(d_act);
  auto const kept = as_input<P, 2>(pre);
  auto const to = as_output<P, 2>(d_pre);
  offset_t const R = from.extent(0), I = from.extent(1), width = gated(act) ? 2 * I : I;
  char const* const why = gated(act) ? "twice the columns of d_act" : "columns of d_act";
  if (status bad =
          first_of(check::policy(on), check::rows("activation_backward.d_act", from),
                   check::rows("activation_backward.pre", kept),
                   check::rows("activation_backward.d_pre", to),
                   check::extent("activation_backward.pre", 0, kept.extent(0), R, "rows of d_act"),
                   check::extent("activation_backward.pre", 1, kept.extent(1), width, why),
                   check::extent("activation_backward.d_pre", 0, to.extent(0), R, "rows of d_act"),
                   check::extent("activation_backward.d_pre", 1, to.extent(1), width, why),
                   check::extra("activation_backward.act", options.act, R, I),
                   check::in_use("activation_backward.rows", options.rows, R),
                   check::scale("activation_backward.scale", options.scale, R),
                   check::rows("activation_backward.d_scale", options.d_scale),
                   options.d_scale ? check::extent("activation_backward.d_scale", 0,
                                                   options.d_scale.extent(0), R, "rows of d_act")
                                   : status{});
      !bad.ok()) {
    return bad;
  }
  return detail::experts_backend<P>::activate_backward(on, from, kept, to, act, options);
}

}  // namespace shunt
