#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/backend/host/layer.hpp"
#include "shunt/layer/bytes.hpp"
#include "shunt/layer/call.hpp"
#include "shunt/layer/check.hpp"

/// The reference layer: the five modules in sequence, forward and backward. It reads as the papers do.
namespace shunt {
namespace detail {

/// logits = x · Wgᵀ;  expert, gate = route(logits);  z = x, or x · Wdᵀ
/// y = Σ_k gate_k · W2 f(W1 z) (· Wuᵀ) + σ(x · wσ) · shared(x) (+ y)
template <class P, class T, class G, class A, class W>
status moe_call<P, T, G, A, W>::forward(forward_scratch<T, S> const& s,
                                        view<T, 2, S> y) const noexcept {
  stages step(o.hook);
  step("gate", [&] { return own::all_tokens(on, o.valid, all_tokens); });
  step("gate", [&] { return gate_logits(on, x, w.gate, keep.logits, w.gate_bias); });

  routing<S> choice = o.observe;
  choice.expert = keep.choice.expert;
  choice.gate = keep.choice.gate;
  if (s.load.z) choice.z = s.load.z;
  if (!choice.counts) choice.counts = s.load.counts;
  if (!choice.importance) choice.importance = s.load.importance;
  if (!choice.tokens) choice.tokens = s.load.tokens;
  step("route", [&] { return choose(choice, s); });
  step("plan", [&] { return lay_out(s); });

  view<float, 1, S> const loss = o.loss ? o.loss : s.loss;
  if (keep.d_importance) {
    step("losses", [&] {
      return balance_loss(on, choice, loss.slice(0, 1), keep.d_importance, {o.balance_loss});
    });
  }
  if (keep.d_z) {
    step("losses", [&] { return z_loss(on, choice, loss.slice(1, 1), keep.d_z, {o.z_loss}); });
  }
  if (o.load.figures) step("stats", [&] { return load_stats(on, keep.plan, o.load); });

  tokens_in in = seen();
  if (n.latent) {
    step("latent", [&] { return project(on, x, w.latent_down, all_tokens, keep.latent); });
  }
  if (n.gate_on_input) {
    step("dispatch", [&] { return dispatch(on, in, keep.plan, s.gated_rows, {keep.choice.gate}); });
    in = s.gated_rows;
  }
  step("experts", [&] { return experts().forward(on, in, keep.pre, s.act, s.rows); });

  if (n.shared > 0) {
    step("shared", [&] {
      return shared_expert().forward(on, x, keep.shared_pre, s.shared_act, s.shared_rows);
    });
  }
  if (n.shared_gated) {
    view<float, 1, S> const open = keep.shared_gate;
    step("shared", [&] {
      return project(on, x, row_of_one(w.shared_gate), all_tokens, column_of_one(open));
    });
    step("shared", [&] { return own::apply_sigmoid(on, open, open); });
  }

  combine_options<T, S> beside{
      .shared = s.shared_rows, .shared_gate = keep.shared_gate, .valid = o.valid};
  if (o.add_to_y) beside.residual = y;
  if (!n.latent) {
    beside.zero = identities();
    step("combine", [&] { return combine(on, s.rows, keep.plan, gates(), y, beside); });
  } else {
    tokens_in const sum = keep.latent_sum;
    step("combine", [&] {
      return combine(on, s.rows, keep.plan, gates(), keep.latent_sum,
                     {.zero = identities(), .valid = o.valid});
    });
    step("latent", [&] { return project(on, sum, w.latent_up, all_tokens, s.lifted); });
    step("combine", [&] { return combine(on, s.lifted, all_tokens, {}, y, beside); });
  }
  return step.outcome();
}

/// The same backwards. A gate's gradient is <d_y · W2, f(pre)>: no expert's output is needed.
template <class P, class T, class G, class A, class W>
status moe_call<P, T, G, A, W>::backward(backward_scratch<T, S> const& s, tokens_in d_y,
                                         moe_gradients<S> const& g,
                                         view<float, 2, S> d_x) const noexcept {
  bool const add = o.accumulate;
  stages step(o.hook);
  step("all_tokens", [&] { return own::all_tokens(on, o.valid, all_tokens); });

  tokens_in d_sum = d_y;  // of the experts' sum
  if (n.latent) {
    tokens_in const sum = keep.latent_sum;
    step("latent_backward",
         [&] { return project_back(on, d_y, w.latent_up, all_tokens, s.d_sum, false); });
    step("latent_backward",
         [&] { return project_gradient(on, d_y, sum, all_tokens, g.latent_up, add); });
    d_sum = s.d_sum;
  }

  auto const routed = experts();
  tokens_in in = seen(), pre = keep.pre;
  if (n.gate_on_input) {
    step("dispatch", [&] { return dispatch(on, in, keep.plan, s.gated_rows, {keep.choice.gate}); });
    in = s.gated_rows;
  }
  if (s.experts.pre) {
    step("recompute", [&] { return routed.again(on, in, s.experts.pre); });
    pre = s.experts.pre;
  }
  feed_gradients<S> const to{g.up, g.down, g.up_bias, g.down_bias, o.frozen, add};
  view<float, 2, S> const d_seen = n.latent ? s.d_latent : d_x;
  if (n.gate_on_input) {
    step("experts_backward", [&] {
      return feed_backward(on, routed, in, d_sum, pre, {}, s.experts, s.d_gated_rows, false, to);
    });
    step("dispatch_backward", [&] {
      return dispatch_backward(on, s.d_gated_rows, keep.plan, d_seen,
                               {.gate = keep.choice.gate, .x = seen(), .d_gate = s.d_gate});
    });
  } else {
    view<float const, 1, S> const gate = flat(gates());
    view<float, 1, S> const d_row_gate = s.experts.d_scale;
    step("experts_backward", [&] {
      return feed_backward(on, routed, in, d_sum, pre, gate, s.experts, s.d_rows, false, to);
    });
    if (w.down_bias) {
      floats_in const part = s.bias_part;
      step("experts_backward",
           [&] { return bias_part(on, d_sum, w.down_bias, keep.plan, s.bias_part); });
      step("experts_backward",
           [&] { return own::add(on, part, column_of_one(d_row_gate), keep.plan.rows()); });
    }
    step("dispatch_backward", [&] { return dispatch_backward(on, s.d_rows, keep.plan, d_seen); });
    step("combine_backward", [&] { return rows_to_gates(on, d_row_gate, keep.plan, s.d_gate); });
  }
  if (n.zero) {
    combine_gradients<T, S> const back{
        .zero = identities(), .valid = o.valid, .d_gate = s.d_gate, .d_x = s.d_identity};
    tokens_in const d_identity = s.d_identity;
    step("combine_backward", [&] {
      return combine_backward(on, d_sum, keep.plan, gates(), {}, view<T, 2, S>{}, back);
    });
    step("combine_backward", [&] { return own::add(on, d_identity, d_seen); });
  }
  if (n.latent) {
    floats_in const d_latent = s.d_latent;
    step("latent_backward",
         [&] { return project_gradient(on, d_latent, x, all_tokens, g.latent_down, add); });
    step("latent_backward",
         [&] { return project_back(on, d_latent, w.latent_down, all_tokens, d_x, false); });
  }

  floats_in const d_logits = s.d_logits;
  step("route_backward", [&] { return choose_backward(s.d_gate, s); });
  step("gate_backward",
       [&] { return project_gradient(on, d_logits, x, all_tokens, g.gate, add, g.gate_bias); });
  step("gate_backward", [&] { return project_back(on, d_logits, w.gate, all_tokens, d_x, true); });

  if (n.shared > 0) {
    auto const shared = shared_expert();
    view<float const, 1, S> const open = keep.shared_gate;
    tokens_in shared_pre = keep.shared_pre;
    if (s.shared.pre) {
      step("recompute", [&] { return shared.again(on, x, s.shared.pre); });
      shared_pre = s.shared.pre;
    }
    step("shared_backward", [&] {
      return feed_backward(on, shared, x, d_y, shared_pre, open, s.shared, d_x, true,
                           {g.shared_up, g.shared_down, {}, {}, {}, add});
    });
  }
  if (n.shared_gated) {
    view<float, 1, S> const d_logit = s.shared.d_scale;
    floats_in const column = column_of_one(d_logit);
    view<float, 2, S> const dw = row_of_one(g.shared_gate);
    step("shared_backward",
         [&] { return own::apply_sigmoid_backward(on, keep.shared_gate, d_logit); });
    step("shared_backward", [&] { return project_gradient(on, column, x, all_tokens, dw, add); });
    step("shared_backward", [&] {
      return project_back(on, column, row_of_one(w.shared_gate), all_tokens, d_x, true);
    });
  }
  return step.outcome();
}

/// moe_layer for views: checks, scratch, the call. Not inline: see layer/once.inl.
template <execution P, storage T, storage G, weight_format W, any_activation A>
status run_layer(P const& on, view<T const, 2, P::memory> x,
                 moe_weights<T, G, P::memory, W> const& weights, view<T, 2, P::memory> y,
                 arena<P::memory> work, layer_options<A, P::memory> const& options,
                 moe_saved<T, P::memory> const* saved) noexcept {
  if (status bad = check::moe_layer(on, x, weights, y, options, saved); !bad.ok()) return bad;
  moe_sizes const n(x.extent(0), weights, options);
  moe_saved<T, P::memory> keep;
  if (saved != nullptr) {
    keep = *saved;
  } else {
    keep = carve_saved<T>(work, n, options, false);
  }
  auto const scratch = carve_forward<T>(on, work, n, options);
  if (status bad = work.check("moe_layer.work"); !bad.ok()) return bad;
  moe_call<P, T, G, A, W> const call{on, n, x, weights, options, keep, scratch.all_tokens};
  return call.forward(scratch, y);
}

/// moe_layer_backward for views.
template <execution P, storage T, storage G, storage D, any_activation A>
status run_layer_backward(P const& on, view<T const, 2, P::memory> x,
                          moe_weights<T, G, P::memory> const& weights,
                          view<T const, 2, P::memory> d_y, moe_saved<T, P::memory> const& saved,
                          view<D, 2, P::memory> d_x, moe_gradients<P::memory> const& gradients,
                          arena<P::memory> work,
                          layer_options<A, P::memory> const& options) noexcept {
  if (status bad = check::moe_layer_backward(on, x, weights, d_y, saved, d_x, gradients, options);
      !bad.ok()) {
    return bad;
  }
  moe_sizes const n(x.extent(0), weights, options);
  auto const scratch =
      carve_backward<T>(on, work, n, bool(weights.down_bias), !std::same_as<D, float>, options);
  if (status bad = work.check("moe_layer_backward.work"); !bad.ok()) return bad;
  moe_call<P, T, G, A> const call{on, n, x, weights, options, saved, scratch.all_tokens};
  if constexpr (std::same_as<D, float>) {
    return call.backward(scratch, d_y, gradients, d_x);
  } else {
    status const done = call.backward(scratch, d_y, gradients, scratch.d_x);
    if (!done.ok()) return done;
    return layer_backend<P>::round(on, view<float const, 2, P::memory>(scratch.d_x), d_x);
  }
}

}  // namespace detail

#if defined(SHUNT_ONCE)
#include "shunt/layer/once.inl"
#endif

/// A mixture-of-experts layer: logits → choice → plan → experts → combine, with what the family has
/// beside: shared experts, latents, zero experts, gates on the input, biases.
/// Shapes  x [T,Hm] · weights → y [T,Hm]; saved: carve_moe_saved for T tokens, or null: inference
/// Types   x, y and the expert weights of one storage type T, or the experts' weights of a weight
///         format, and then saved null; logits, gates and all sums in float.
/// Order   every stage's own (see the modules), one after the other: the same bits on every run, thread
///         count and, for float, instruction set; a token's bits do not depend on the others; nor on
///         whether anything is saved.
/// Aliasing y shares no memory with x or the weights.
/// Errors  extents that do not fit the weights, combinations without meaning, an arena too small:
///         a sentence, before anything is written.
/// Cost    2·R·(2I+I)·H flops and the projections. Never allocates, never syncs.
/// Source  Shazeer et al., 2017; the families of docs/stages/layer.md
template <execution P, input<P, 2> X, storage T, storage G, weight_format W, output<P, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer(
    P const& on, X x, moe_weights<T, G, P::memory, W> const& weights, Y y,
    std::type_identity_t<arena<P::memory>> work, layer_options<A, P::memory> const& options = {},
    std::type_identity_t<moe_saved<T, P::memory> const*> saved = nullptr) noexcept {
  static_assert(std::same_as<element_t<X>, T> && std::same_as<element_t<Y>, T>,
                "shunt::moe_layer: x and y must have the weights' storage type");
  static_assert(storage<W> || P::memory == space::host,
                "shunt::moe_layer: weight formats run on the host only");
  return detail::run_layer<P, T, G, W, A>(on, as_input<P, 2>(x), weights, as_output<P, 2>(y), work,
                                          options, saved);
}

/// The gradients of moe_layer to its input and its weights, from what forward saved. The experts'
/// outputs are not needed: a gate's gradient is <d_y · W2, activation>.
/// Shapes  x, d_y [T,Hm] · saved → d_x [T,Hm] · gradients as the weights
/// Types   d_y as y; d_x of T or float; weight gradients float.
/// Order   as moe_layer; d_x is summed in float in one order: experts by slot, zero experts, latents,
///         gate projection, shared expert, its gate; rounded once.
/// Aliasing none
/// Errors  as moe_layer. Data saved by another call, or with other options, is not detected.
/// Cost    4·R·(2I+I)·H flops and the projections, 2·R·2I·H more when recomputing; nothing for a null
///         gradient, nor for a frozen expert's weights (whose buffers are not touched); the gradient
///         through a frozen expert reaches x. Never allocates, never syncs.
template <execution P, input<P, 2> X, storage T, storage G, weight_format W, input<P, 2> DY,
          output<P, 2> DX, any_activation A = swiglu>
[[nodiscard]] status moe_layer_backward(P const& on, X x,
                                        moe_weights<T, G, P::memory, W> const& weights, DY d_y,
                                        std::type_identity_t<moe_saved<T, P::memory>> const& saved,
                                        DX d_x, moe_gradients<P::memory> const& gradients,
                                        std::type_identity_t<arena<P::memory>> work,
                                        layer_options<A, P::memory> const& options = {}) noexcept {
  static_assert(
      std::same_as<W, T>,
      "shunt::moe_layer_backward: the experts' weights must have the tokens' storage type; "
      "weight formats are for inference");
  static_assert(std::same_as<element_t<X>, T> && std::same_as<element_t<DY>, T>,
                "shunt::moe_layer_backward: x and d_y must have the weights' storage type");
  using D = element_t<DX>;
  static_assert(std::same_as<D, T> || std::same_as<D, float>,
                "shunt::moe_layer_backward: d_x must have the weights' storage type, or float");
  return detail::run_layer_backward<P, T, G, D, A>(on, as_input<P, 2>(x), weights,
                                                   as_input<P, 2>(d_y), saved, as_output<P, 2>(d_x),
                                                   gradients, work, options);
}

}  // namespace shunt
