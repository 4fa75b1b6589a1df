#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/backend/host/layer.hpp"
#include "shunt/layer/backward.hpp"
#include "shunt/layer/bytes.hpp"
#include "shunt/layer/check.hpp"
#include "shunt/layer/forward.hpp"

/// The reference layer: gate projection, route, experts, combine, in sequence, forward and backward.
namespace shunt {
namespace detail {

/// logits = x · Wgᵀ;  expert, gate = route(logits);  z = x, or x · Wdᵀ
/// y = Σ_k gate_k · W2 f(W1 z) (· Wuᵀ) + σ(x · wσ) · shared(x) (+ y)
template <class P, class T, class G, class A, class W>
status moe_call<P, T, G, A, W>::forward(forward_scratch<T, S> const& s,
                                        view<T, 2, S> y) const noexcept {
  stages step(o.hook);
  gate(step);
  choose(step, s);
  latent_in(step);
  experts().forward(step, s.experts, saved.pre);
  shared(step, s);
  combine_tokens(step, s, y);
  return step.outcome();
}

/// The same backwards. d_x is summed in float: experts, zero experts, latents, gate, shared expert.
template <class P, class T, class G, class A, class W>
status moe_call<P, T, G, A, W>::backward(backward_scratch<T, S> const& s, tokens_in d_y,
                                         moe_gradients<S> const& g,
                                         view<float, 2, S> d_x) const noexcept {
  stages step(o.hook);
  view<float, 2, S> const d_input = n.latent ? s.d_latent : d_x;  // of what the experts read
  step("gate_backward", [&] { return backend::all_tokens(on, o.valid, all_tokens); });
  tokens_in const d_sum = latent_out_backward(step, s, d_y);
  latent_out_gradient(step, d_y, g);
  experts().backward(step, s.experts, d_sum, saved.pre, d_input, s.d_gate,
                     {g.up, g.down, g.up_bias, g.down_bias, o.frozen, o.accumulate});
  zero_backward(step, s, d_sum, d_input);
  latent_in_backward(step, s, g, d_x);
  step("route_backward", [&] { return choose_backward(s); });
  gate_backward(step, s, g, d_x);
  shared_backward(step, s, d_y, g, d_x);
  return step.outcome();
}

/// moe_layer for views: checks, scratch, the call. Not inline: see layer/once.inl.
template <execution P, storage T, storage G, weight_format W, any_activation A>
status run_layer(P const& on, view<T const, 2, P::memory> x,
                 moe_weights<T, G, P::memory, W> const& weights, view<T, 2, P::memory> y,
                 moe_outputs<T, P::memory> const& out, arena<P::memory> work,
                 layer_options<A, P::memory> const& options) noexcept {
  if (status bad = check::moe_layer(on, x, weights, y, out, options); !bad.ok()) return bad;
  moe_sizes const n(x.extent(0), weights, options);
  moe_saved<T, P::memory> keep;
  if (out.saved != nullptr) {
    keep = *out.saved;
  } else {
    keep = carve_saved<T>(work, n, options, false);
  }
  auto const scratch = carve_forward<T>(on, work, n, options);
  if (status bad = work.check("moe_layer.work"); !bad.ok()) return bad;
  moe_call<P, T, G, A, W> const call{on, n, x, weights, options, out, keep, scratch.all_tokens};
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
  moe_outputs<T, P::memory> const none;
  moe_call<P, T, G, A> const call{on, n, x, weights, options, none, saved, scratch.all_tokens};
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

/// A mixture-of-experts layer: logits → choice → plan → experts → combine, with model-specific
/// extras: shared experts, latents, zero experts, gates on the input, biases.
/// Shapes  x [T,Hm] · weights → y [T,Hm]
/// Types   x, y and the expert weights of one storage type T, or the experts' weights of a weight
///         format, and then outputs.saved null; logits, gates and all sums in float.
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
[[nodiscard]] status moe_layer(P const& on, X x, moe_weights<T, G, P::memory, W> const& weights,
                               Y y, std::type_identity_t<moe_outputs<T, P::memory>> const& outputs,
                               std::type_identity_t<arena<P::memory>> work,
                               layer_options<A, P::memory> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<X>, T> && std::same_as<element_t<Y>, T>,
                "shunt::moe_layer: x and y must have the weights' storage type");
  static_assert(storage<W> || P::memory == space::host,
                "shunt::moe_layer: weight formats run on the host only");
  return detail::run_layer<P, T, G, W, A>(on, as_input<P, 2>(x), weights, as_output<P, 2>(y),
                                          outputs, work, options);
}

/// The same where y is all that is wanted: inference.
template <execution P, input<P, 2> X, storage T, storage G, weight_format W, output<P, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer(P const& on, X x, moe_weights<T, G, P::memory, W> const& weights,
                               Y y, std::type_identity_t<arena<P::memory>> work,
                               layer_options<A, P::memory> const& options = {}) noexcept {
  return moe_layer(on, x, weights, y, {}, work, options);
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
