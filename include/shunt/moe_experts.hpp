#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <type_traits>

#include "shunt/backend/host/layer.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/moe_experts/bytes.hpp"
#include "shunt/moe_experts/call.hpp"
#include "shunt/moe_experts/check.hpp"

/// The experts of a layer for ids and gates that any router made: plan, dispatch, grouped GEMMs, combine.
namespace shunt {
namespace detail {

/// moe_experts for views.
template <execution P, storage T, weight_format W, any_activation A>
status run_experts(P const& on, view<T const, 2, P::memory> x,
                   view<index_t const, 2, P::memory> expert, view<float const, 2, P::memory> gate,
                   moe_experts_weights<W, P::memory> const& weights, view<T, 2, P::memory> y,
                   moe_experts_outputs<T, P::memory> const& out, arena<P::memory> work,
                   moe_experts_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_experts";
  if (status bad = first_of(
          check::experts_inputs(who, on, x, gate, weights, o), check::expert_ids(who, expert, gate),
          check::report(who, out.plan, weights.up.experts(), check::report_in_outputs),
          check::tokens_of_experts(who, "y", y, x.extent(0), x.extent(1)),
          check::apart("moe_experts.y", y, "x", x),
          check::apart("moe_experts.y", y, "expert", expert),
          check::apart("moe_experts.y", y, "gate", gate));
      !bad.ok()) {
    return bad;
  }
  expert_sizes const n(x.extent(0), expert.extent(1), weights, o);
  moe_experts_saved<T, P::memory> keep;
  if (out.saved != nullptr) {
    if constexpr (!std::same_as<W, T>) {
      return check::inference_only(who);
    } else {
      if (status bad = check::experts_saved(who, n, o.memory, *out.saved); !bad.ok()) return bad;
      keep = *out.saved;
    }
  } else {
    keep = carve_experts_saved<T>(work, n, false);
  }
  auto const s = experts_forward_scratch<T, P::memory>::carve(work, n);
  auto const of_plan = carve_part(work, plan_bytes(on, n, o));
  if (status bad = work.check("moe_experts.work"); !bad.ok()) return bad;

  experts_call<P, T, A, W> const call{on,   weights,   o.act,           x,
                                      gate, keep.plan, o.gate_on_input, o.int8_rows};
  stages step(o.hook);
  step("plan", [&] {
    return plan_dispatch(on, expert, keep.plan, of_plan,
                         {.capacity = o.capacity,
                          .drop = o.drop,
                          .gate = gate,
                          .valid = o.valid,
                          .first_expert = o.first_expert,
                          .experts = o.global_experts,
                          .report = out.plan});
  });
  call.forward(step, s, keep.pre);
  combine_options<T, P::memory> also{.valid = o.valid};
  if (o.add_to_y) also.residual = y;
  step("combine", [&] { return combine(on, s.rows, keep.plan, call.row_gates(), y, also); });
  return step.outcome();
}

/// moe_experts_backward for views.
template <execution P, storage T, storage D, any_activation A>
status run_experts_backward(P const& on, view<T const, 2, P::memory> x,
                            view<float const, 2, P::memory> gate,
                            moe_experts_weights<T, P::memory> const& weights,
                            view<T const, 2, P::memory> d_y,
                            moe_experts_saved<T, P::memory> const& saved, view<D, 2, P::memory> d_x,
                            moe_experts_gradients<P::memory> const& g, arena<P::memory> work,
                            moe_experts_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_experts_backward";
  if (status bad =
          first_of(check::experts_inputs(who, on, x, gate, weights, o),
                   check::tokens_of_experts(who, "d_y", d_y, x.extent(0), x.extent(1)),
                   check::tokens_of_experts(who, "d_x", d_x, x.extent(0), x.extent(1)),
                   check::apart("moe_experts_backward.d_x", d_x, "x", x),
                   check::apart("moe_experts_backward.d_x", d_x, "d_y", d_y),
                   check::expert_gradients(who, g, weights),
                   check::optional_matrix(who, "gradients.gate", g.gate, x.extent(0), "tokens of x",
                                          gate.extent(1), "choices of a token"));
      !bad.ok()) {
    return bad;
  }
  expert_sizes const n(x.extent(0), gate.extent(1), weights, o);
  if (status bad = check::experts_saved(who, n, o.memory, saved); !bad.ok()) return bad;
  auto const s =
      experts_backward_scratch<T, P::memory>::carve(work, n, bool(weights.down_bias), o.memory);
  if (status bad = work.check("moe_experts_backward.work"); !bad.ok()) return bad;
  experts_call<P, T, A> const call{on,   weights,    o.act,           x,
                                   gate, saved.plan, o.gate_on_input, o.int8_rows};
  stages step(o.hook);
  call.backward(step, s, d_y, view<T const, 2, P::memory>(saved.pre), d_x, g.gate,
                {g.up, g.down, g.up_bias, g.down_bias, o.frozen, o.accumulate});
  return step.outcome();
}

}  // namespace detail

/// The experts of a mixture-of-experts layer, for a choice that is made: y = Σ_k gate_k · expert_k(x).
/// Shapes  x [T,H] · expert [T,K] global ids, −1 or an expert of another shard: no expert · gate [T,K]
///         contiguous · weights of E experts → y [T,H]
/// Types   x and y of one storage type T; the weights of T or, for inference on the host, of a weight
///         format; gates and all sums in float.
/// Order   the combine of a token is a chain of fma in slot order: the same bits on every run, thread
///         count and, for float, instruction set; a token's bits do not depend on the other tokens.
/// Aliasing y shares no memory with an input.
/// Errors  extents that do not fit, an arena too small: a sentence, before anything is written. An id
///         that names no expert is no expert; outputs.plan counts it.
/// Cost    2·R·(2I+I)·H flops. Never allocates, never syncs.
/// Source  cutlass_fused_moe of FlashInfer, fused_experts of vLLM: see docs/bring_your_own_router.md
template <execution P, input<P, 2> X, weight_format W, output<P, 2> Y, any_activation A = swiglu>
[[nodiscard]] status moe_experts(
    P const& on, X x, std::type_identity_t<view<index_t const, 2, P::memory>> expert,
    std::type_identity_t<view<float const, 2, P::memory>> gate,
    moe_experts_weights<W, P::memory> const& weights, Y y,
    std::type_identity_t<moe_experts_outputs<element_t<Y>, P::memory>> const& outputs,
    std::type_identity_t<arena<P::memory>> work,
    moe_experts_options<A, P::memory> const& options = {}) noexcept {
  using T = element_t<Y>;
  static_assert(std::same_as<element_t<X>, T> && (std::same_as<W, T> || !storage<W>),
                "shunt::moe_experts: x, y and the weights must have one storage type");
  static_assert(storage<W> || P::memory == space::host,
                "shunt::moe_experts: weight formats run on the host only");
  return detail::run_experts<P, T, W, A>(on, as_input<P, 2>(x), expert, gate, weights,
                                         as_output<P, 2>(y), outputs, work, options);
}

/// The same where y is all that is wanted: inference.
template <execution P, input<P, 2> X, weight_format W, output<P, 2> Y, any_activation A = swiglu>
[[nodiscard]] status moe_experts(P const& on, X x,
                                 std::type_identity_t<view<index_t const, 2, P::memory>> expert,
                                 std::type_identity_t<view<float const, 2, P::memory>> gate,
                                 moe_experts_weights<W, P::memory> const& weights, Y y,
                                 std::type_identity_t<arena<P::memory>> work,
                                 moe_experts_options<A, P::memory> const& options = {}) noexcept {
  return moe_experts(on, x, expert, gate, weights, y, {}, work, options);
}

/// The gradients of moe_experts to x, gates and weights. The experts' outputs are not needed: a gate's
/// gradient is <d_y · W2, activation>.
/// Shapes  x, d_y [T,H] · gate [T,K] as in forward · saved → d_x [T,H] · gradients as their members say
/// Types   d_y of T; d_x of T or float; all other gradients float.
/// Order   as moe_experts; d_x is summed by slot in float and rounded once.
/// Aliasing d_x shares no memory with x or d_y.
/// Errors  as moe_experts. `saved` of another call is not detected. The ids are those of `saved`.
/// Cost    4·R·(2I+I)·H flops, 2·R·2I·H more when recomputing; nothing for a null gradient or a frozen
///         expert. Never allocates, never syncs.
template <execution P, input<P, 2> X, storage T, input<P, 2> DY, output<P, 2> DX,
          any_activation A = swiglu>
[[nodiscard]] status moe_experts_backward(
    P const& on, X x, std::type_identity_t<view<float const, 2, P::memory>> gate,
    moe_experts_weights<T, P::memory> const& weights, DY d_y,
    moe_experts_saved<T, P::memory> const& saved, DX d_x,
    moe_experts_gradients<P::memory> const& gradients, std::type_identity_t<arena<P::memory>> work,
    moe_experts_options<A, P::memory> const& options = {}) noexcept {
  using D = element_t<DX>;
  static_assert(
      std::same_as<element_t<X>, T> && std::same_as<element_t<DY>, T> &&
          (std::same_as<D, T> || std::same_as<D, float>),
      "shunt::moe_experts_backward: x, d_y and the weights must have one storage type, and "
      "d_x that type or float");
  return detail::run_experts_backward<P, T, D, A>(on, as_input<P, 2>(x), gate, weights,
                                                  as_input<P, 2>(d_y), saved, as_output<P, 2>(d_x),
                                                  gradients, work, options);
}

}  // namespace shunt
