#pragma once
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/backend/host/layer.hpp"
#include "shunt/combine.hpp"
#include "shunt/layer/check.hpp"
#include "shunt/layer/feed_forward.hpp"
#include "shunt/layer/memory.hpp"
#include "shunt/layer/stages.hpp"
#include "shunt/route/losses.hpp"
#include "shunt/route/projection.hpp"

/// The reference layer: the five rooms in sequence, forward and backward. It reads as the papers do.
namespace shunt {
namespace detail {

template <class P, class T, class G, class A> struct moe_call {
  static constexpr space S = P::memory;
  P const& on;
  moe_sizes n;
  view<T const, 2, S> x;
  moe_weights<T, G, S> const& w;
  layer_options<A, S> const& o;
  moe_saved<T, S> const& keep;
  dispatch_plan<S> const& everyone;

  /// What the experts see: the tokens, or their latents.
  [[nodiscard]] view<T const, 2, S> seen() const noexcept {
    return n.latent ? view<T const, 2, S>(keep.latent) : x;
  }
  [[nodiscard]] feed_forward<T, A, S> experts() const noexcept {
    gathered<S> const tokens{keep.plan.row_slot, keep.plan.top_k};
    return {w.up,
            w.down,
            w.up_bias,
            w.down_bias,
            o.act,
            keep.plan,
            n.gate_on_input ? gathered<S>{} : tokens};
  }
  [[nodiscard]] feed_forward<T, A, S> shared_expert() const noexcept {
    return {w.shared_up, w.shared_down, {}, {}, o.act, everyone, {everyone.row_slot, 1}};
  }
  /// The gates that combine multiplies by; null where they acted on the input.
  [[nodiscard]] view<float const, 2, S> gates() const noexcept {
    return n.gate_on_input ? view<float const, 2, S>{} : view<float const, 2, S>(keep.choice.gate);
  }
  [[nodiscard]] route_inputs<S> route_with() const noexcept {
    return {w.choice_bias, o.valid, o.ids, o.token};
  }
  [[nodiscard]] plan_options<S> plan_with() const noexcept {
    return {.capacity = o.capacity,
            .drop = o.drop,
            .gate = keep.choice.gate,
            .valid = o.valid,
            .first_expert = o.first_expert,
            .experts = static_cast<index_t>(n.experts - o.route.zero_experts),
            .zero_experts = o.route.zero_experts,
            .report = o.plan};
  }
  [[nodiscard]] zero_experts<T, S> identities() const noexcept {
    if (!n.zero) return {};
    return {keep.choice.expert, seen(), static_cast<index_t>(n.experts - o.route.zero_experts),
            o.route.zero_experts};
  }
};

/// logits = x · Wgᵀ;  expert, gate = route(logits);  z = x (or x · Wdᵀ)
/// y = Σ_k gate_k · W2 f(W1 z)  (· Wuᵀ)  + σ(x · wσ) · shared(x)  + y
template <class P, class T, class G, class A>
[[nodiscard]] status moe_forward(moe_call<P, T, G, A> const& c,
                                 forward_scratch<T, P::memory> const& s,
                                 view<T, 2, P::memory> y) noexcept {
  constexpr space S = P::memory;
  auto const& [on, n, x, w, o, keep, everyone] = c;
  using own = layer_on<P>;
  stages step(o.hook);

  routing<S> choice = o.observe;
  choice.expert = keep.choice.expert;
  choice.gate = keep.choice.gate;
  choice.z = s.load.z;
  if (s.load.counts && !choice.counts) choice.counts = s.load.counts;
  if (s.load.importance && !choice.importance) choice.importance = s.load.importance;
  if (s.load.tokens && !choice.tokens) choice.tokens = s.load.tokens;
  view<float, 1, S> const loss = o.loss ? o.loss : s.loss;

  bool done = step("gate", own::everyone(on, o.valid, everyone)) &&
              step("gate", gate_logits(on, x, w.gate, keep.logits, w.gate_bias)) &&
              step("route", route(on, keep.logits, choice, s.route, o.route, c.route_with())) &&
              step("plan", plan_dispatch(on, keep.choice.expert, keep.plan, s.plan, c.plan_with()));

  if (done && keep.d_importance) {
    done = step("losses", balance_loss(on, choice, loss.slice(0, 1), keep.d_importance,
                                       {.coefficient = o.balance_loss}));
  }
  if (done && keep.d_z) {
    done =
        step("losses", z_loss(on, choice, loss.slice(1, 1), keep.d_z, {.coefficient = o.z_loss}));
  }
  if (done && o.load.figures) done = step("stats", load_stats(on, keep.plan, o.load));

  if (done && n.latent) {
    done = step("latent", project(on, x, w.latent_down, everyone, keep.latent));
  }
  view<T const, 2, S> in = c.seen();
  if (done && n.gate_on_input) {
    done = step("dispatch", dispatch(on, in, keep.plan, s.gated_rows, {keep.choice.gate}));
    in = s.gated_rows;
  }
  done = done && step("experts", c.experts().forward(on, in, keep.pre, s.act, s.rows));

  if (done && n.shared > 0) {
    done = step("shared",
                c.shared_expert().forward(on, x, keep.shared_pre, s.shared_act, s.shared_rows));
  }
  if (done && n.shared_gated) {
    done = step("shared", project(on, x, row_of_one(w.shared_gate), everyone,
                                  column_of_one(keep.shared_gate))) &&
           step("shared", own::open_gates(on, keep.shared_gate, keep.shared_gate));
  }
  if (!done) return step.outcome();

  combine_options<T, S> beside{
      .shared = s.shared_rows, .shared_gate = keep.shared_gate, .valid = o.valid};
  if (o.add_to_y) beside.residual = y;
  combine_options<T, S> inside{.zero = c.identities(), .valid = o.valid};
  if (n.latent) {
    step("combine", combine(on, s.rows, keep.plan, c.gates(), keep.latent_sum, inside)) &&
        step("latent",
             project(on, view<T const, 2, S>(keep.latent_sum), w.latent_up, everyone, s.lifted)) &&
        step("combine", combine(on, s.lifted, everyone, {}, y, beside));
  } else {
    beside.zero = inside.zero;
    step("combine", combine(on, s.rows, keep.plan, c.gates(), y, beside));
  }
  return step.outcome();
}

template <class P, class T, class G, class A>
[[nodiscard]] status moe_backward(moe_call<P, T, G, A> const& c,
                                  backward_scratch<T, P::memory> const& s,
                                  view<T const, 2, P::memory> d_y,
                                  moe_gradients<P::memory> const& g,
                                  view<float, 2, P::memory> d_x) noexcept {
  constexpr space S = P::memory;
  auto const& [on, n, x, w, o, keep, everyone] = c;
  using own = layer_on<P>;
  bool const add = o.gradients == gradient_mode::accumulate;
  stages step(o.hook);
  bool done = step("everyone", own::everyone(on, o.valid, everyone));

  // The sum of the experts: d_sum = d_y, or d_y · Wu.
  view<T const, 2, S> d_sum = d_y;
  if (done && n.latent) {
    done = step("latent_backward", project_back(on, d_y, w.latent_up, everyone, s.d_sum, false)) &&
           step("latent_backward", project_gradient(on, d_y, view<T const, 2, S>(keep.latent_sum),
                                                    everyone, g.latent_up, add));
    d_sum = s.d_sum;
  }

  // The experts: d_rows, and the gradient of each row's gate.
  auto const experts = c.experts();
  view<T const, 2, S> in = c.seen();
  if (done && n.gate_on_input) {
    done = step("dispatch", dispatch(on, in, keep.plan, s.gated_rows, {keep.choice.gate}));
    in = s.gated_rows;
  }
  view<T const, 2, S> pre = keep.pre;
  if (done && s.experts.pre) {
    done = step("recompute", experts.again(on, in, s.experts.pre));
    pre = s.experts.pre;
  }
  feed_gradients<S> const to{g.up, g.down, g.up_bias, g.down_bias, o.frozen, add};
  view<float, 2, S> const d_seen = n.latent ? s.d_latent : d_x;
  if (done && n.gate_on_input) {
    done = step("experts_backward", feed_backward(on, experts, in, d_sum, pre, {}, s.experts,
                                                  s.d_gated_rows, false, to)) &&
           step("dispatch_backward",
                dispatch_backward(on, s.d_gated_rows, keep.plan, d_seen,
                                  {.gate = keep.choice.gate, .x = c.seen(), .d_gate = s.d_gate}));
  } else if (done) {
    done = step("experts_backward", feed_backward(on, experts, in, d_sum, pre, flat(c.gates()),
                                                  s.experts, s.d_rows, false, to)) &&
           step("dispatch_backward", dispatch_backward(on, s.d_rows, keep.plan, d_seen)) &&
           (!w.down_bias ||
            (step("experts_backward", bias_part(on, d_sum, w.down_bias, keep.plan, s.bias_part)) &&
             step("experts_backward", own::add(on, view<float const, 2, S>(s.bias_part),
                                               column_of_one(s.experts.d_scale))))) &&
           step("combine_backward", rows_to_gates(on, s.experts.d_scale, keep.plan, s.d_gate));
  }
  if (done && n.zero) {
    combine_gradients<T, S> const back{
        .zero = c.identities(), .valid = o.valid, .d_gate = s.d_gate, .d_x = s.d_identity};
    done = step("combine_backward",
                combine_backward(on, d_sum, keep.plan, c.gates(), {}, view<T, 2, S>{}, back)) &&
           step("combine_backward", own::add(on, view<T const, 2, S>(s.d_identity), d_seen));
  }
  if (done && n.latent) {
    view<float const, 2, S> const d_latent = s.d_latent;
    done =
        step("latent_backward", project_gradient(on, d_latent, x, everyone, g.latent_down, add)) &&
        step("latent_backward", project_back(on, d_latent, w.latent_down, everyone, d_x, false));
  }

  // The router.
  route_gradients<S> d = o.from_losses;
  d.gate = s.d_gate;
  if (!d.importance) d.importance = keep.d_importance;
  if (!d.z) d.z = keep.d_z;
  view<float const, 2, S> const d_logits = s.d_logits;
  done = done &&
         step("route_backward", route_backward(on, keep.logits, keep.choice, d, s.d_logits, s.route,
                                               o.route, c.route_with())) &&
         step("gate_backward",
              project_gradient(on, d_logits, x, everyone, g.gate, add, g.gate_bias)) &&
         step("gate_backward", project_back(on, d_logits, w.gate, everyone, d_x, true));

  // The shared expert, and its gate.
  if (done && n.shared > 0) {
    auto const shared = c.shared_expert();
    view<T const, 2, S> shared_pre = keep.shared_pre;
    if (s.shared.pre) {
      done = step("recompute", shared.again(on, x, s.shared.pre));
      shared_pre = s.shared.pre;
    }
    done = done && step("shared_backward",
                        feed_backward(on, shared, x, d_y, shared_pre,
                                      view<float const, 1, S>(keep.shared_gate), s.shared, d_x,
                                      true, {g.shared_up, g.shared_down, {}, {}, {}, add}));
  }
  if (done && n.shared_gated) {
    view<float, 1, S> const d_logit = s.shared.d_scale;
    view<float const, 2, S> const column = column_of_one(d_logit);
    view<float, 2, S> const dw = g.shared_gate ? row_of_one(g.shared_gate) : view<float, 2, S>{};
    done = step("shared_backward", own::close_gates(on, keep.shared_gate, d_logit)) &&
           step("shared_backward", project_gradient(on, column, x, everyone, dw, add)) &&
           step("shared_backward",
                project_back(on, column, row_of_one(w.shared_gate), everyone, d_x, true));
  }
  return step.outcome();
}

}  // namespace detail

/// Bytes of a moe_saved for a batch of `tokens`.
template <storage T, storage G, space S, any_activation A>
[[nodiscard]] std::size_t moe_saved_bytes(index_t tokens, moe_weights<T, G, S> const& weights,
                                          layer_options<A, S> const& options) noexcept {
  auto from = arena<S>::measuring();
  static_cast<void>(detail::carve_saved<T>(from, detail::moe_sizes(tokens, weights, options),
                                           options, options.memory == memory_mode::save));
  return from.needed();
}
/// A moe_saved in memory of the caller's; `from.fits()` tells whether it sufficed.
template <storage T, storage G, space S, any_activation A>
[[nodiscard]] moe_saved<T, S> carve_moe_saved(arena<S>& from, index_t tokens,
                                              moe_weights<T, G, S> const& weights,
                                              layer_options<A, S> const& options) noexcept {
  return detail::carve_saved<T>(from, detail::moe_sizes(tokens, weights, options), options,
                                options.memory == memory_mode::save);
}

/// Bytes of scratch that moe_layer needs. With `training`, where it is given a moe_saved, it needs
/// less.
template <execution P, storage T, storage G, any_activation A>
[[nodiscard]] std::size_t moe_layer_scratch_bytes(P const& on, index_t tokens,
                                                  moe_weights<T, G, P::memory> const& weights,
                                                  layer_options<A, P::memory> const& options,
                                                  bool training = false) noexcept {
  auto from = arena<P::memory>::measuring();
  detail::moe_sizes const n(tokens, weights, options);
  if (!training) static_cast<void>(detail::carve_saved<T>(from, n, options, false));
  static_cast<void>(detail::carve_forward<T>(on, from, n, options));
  return from.needed();
}
template <execution P, storage T, storage G, any_activation A>
[[nodiscard]] std::size_t moe_layer_backward_scratch_bytes(
    P const& on, index_t tokens, moe_weights<T, G, P::memory> const& weights,
    layer_options<A, P::memory> const& options) noexcept {
  auto from = arena<P::memory>::measuring();
  static_cast<void>(detail::carve_backward<T>(on, from, detail::moe_sizes(tokens, weights, options),
                                              bool(weights.down_bias), true, options));
  return from.needed();
}

/// A mixture-of-experts layer: logits → choice → plan → experts → combine, with what the family has
/// beside: shared experts, latents, zero experts, gates on the input, biases.
/// Shapes  x [T,Hm] · weights → y [T,Hm]; saved: carve_moe_saved for T tokens, or null: inference
/// Types   x, y and the expert weights of one storage type T; logits, gates and all sums in float.
/// Order   every stage's own (see the rooms), one after the other: the same bits on every run, thread
///         count and, for float, instruction set; a token's bits do not depend on the others; nor on
///         whether anything is saved.
/// Aliasing y shares no memory with x or the weights.
/// Errors  extents that do not fit the weights, combinations without meaning, an arena too small:
///         a sentence, before anything is written.
/// Cost    2·R·(2I+I)·H flops and the projections. Never allocates, never syncs.
/// Source  Shazeer et al., 2017; the families of docs/stages/layer.md
template <execution P, input<P, 2> X, storage T, storage G, output<P, 2> Y,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer(
    P const& on, X x, moe_weights<T, G, P::memory> const& weights, Y y, arena<P::memory> work,
    layer_options<A, P::memory> const& options = {},
    std::type_identity_t<moe_saved<T, P::memory> const*> saved = nullptr) noexcept {
  static_assert(std::same_as<element_t<X>, T> && std::same_as<element_t<Y>, T>,
                "shunt::moe_layer: x and y must have the weights' storage type");
  auto const in = as_input<P, 2>(x);
  auto const out = as_output<P, 2>(y);
  if (status bad = check::moe_layer(on, in, weights, out, options, saved); !bad.ok()) return bad;
  detail::moe_sizes const n(in.extent(0), weights, options);
  moe_saved<T, P::memory> keep;
  if (saved != nullptr) {
    keep = *saved;
  } else {
    keep = detail::carve_saved<T>(work, n, options, false);
  }
  auto const scratch = detail::carve_forward<T>(on, work, n, options);
  if (status bad = work.check("moe_layer.work"); !bad.ok()) return bad;
  return detail::moe_forward<P, T, G, A>({on, n, in, weights, options, keep, scratch.everyone},
                                         scratch, out);
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
template <execution P, input<P, 2> X, storage T, storage G, input<P, 2> DY, output<P, 2> DX,
          any_activation A = swiglu>
[[nodiscard]] status moe_layer_backward(P const& on, X x,
                                        moe_weights<T, G, P::memory> const& weights, DY d_y,
                                        std::type_identity_t<moe_saved<T, P::memory>> const& saved,
                                        DX d_x, moe_gradients<P::memory> const& gradients,
                                        arena<P::memory> work,
                                        layer_options<A, P::memory> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<X>, T> && std::same_as<element_t<DY>, T>,
                "shunt::moe_layer_backward: x and d_y must have the weights' storage type");
  using D = element_t<DX>;
  static_assert(std::same_as<D, T> || std::same_as<D, float>,
                "shunt::moe_layer_backward: d_x must have the weights' storage type, or float");
  auto const in = as_input<P, 2>(x);
  auto const back = as_input<P, 2>(d_y);
  auto const out = as_output<P, 2>(d_x);
  if (status bad = check::moe_layer_backward(on, in, weights, back, saved, out, gradients, options);
      !bad.ok()) {
    return bad;
  }
  detail::moe_sizes const n(in.extent(0), weights, options);
  auto const scratch = detail::carve_backward<T>(on, work, n, bool(weights.down_bias),
                                                 !std::same_as<D, float>, options);
  if (status bad = work.check("moe_layer_backward.work"); !bad.ok()) return bad;
  detail::moe_call<P, T, G, A> const call{on, n, in, weights, options, saved, scratch.everyone};
  if constexpr (std::same_as<D, float>) {
    return detail::moe_backward(call, scratch, back, gradients, out);
  } else {
    status const done = detail::moe_backward(call, scratch, back, gradients, scratch.d_x);
    if (!done.ok()) return done;
    return detail::layer_on<P>::round(on, view<float const, 2, P::memory>(scratch.d_x), out);
  }
}

}  // namespace shunt
