#pragma once
#include "shunt/across/layer_call.hpp"

/// The backward of the layer across ranks: d_y and gates go to the experts, gradients of rows and gates come back.
namespace shunt::detail {
inline namespace SHUNT_ABI {

template <class P, exchange X, class T, class G, class A, class W>
status across_call<P, X, T, G, A, W>::backward(stages& step, across_backward_scratch<T, P> const& s,
                                               tokens_in d_y, moe_gradients<S> const& g,
                                               view<float, 2, S> d_x) const noexcept {
  view<float, 2, S> const d_input = n.latent ? s.tokens.d_latent : d_x;
  step("gate_backward", [&] { return backend::all_tokens(on, o.valid, all_tokens); });
  tokens_in const d_sum = this->latent_out_backward(step, s.tokens, d_y);
  send_gradients(step, s, d_sum);
  if (!step.outcome().ok()) return step.outcome();

  dispatch_plan<S> const here = kept.plan.received();
  feed_forward<T, A, S> const experts = stack(here);
  offset_t const N = here.tokens;
  feed_scratch<T, S> const feed = first(s.here.feed, N);
  tokens_in const in = first(kept.received ? kept.received : s.x, N);
  view<float const, 1, S> const gates = n.gate_on_input
                                            ? view<float const, 1, S>{}
                                            : flat(view<float const, 2, S>(first(s.here_gates, N)));
  if (here.experts() > 0) experts_backward(step, s, experts, in, gates, feed);
  return_gradients(step, s, here, feed, d_input);
  // Weight gradients: once nothing can fail any more.
  this->zero_backward(step, s.tokens, d_sum, d_input);
  this->latent_out_gradient(step, d_y, g);
  this->latent_in_backward(step, s.tokens, g, d_x);
  step("route_backward", [&] { return this->choose_backward(s.tokens); });
  this->gate_backward(step, s.tokens, g, d_x);
  this->shared_backward(step, s.tokens, d_y, g, d_x);
  if (here.experts() > 0) {
    step("experts_backward", [&] {
      return feed_backward_weights(on, experts, in, tokens_in(first(s.d_y, N)), gates, feed,
                                   {g.up, g.down, g.up_bias, g.down_bias, o.frozen, o.accumulate});
    });
  }
  return step.outcome();
}

/// d_y and the gates of its slots; x once more where nothing was kept.
template <class P, exchange X, class T, class G, class A, class W>
void across_call<P, X, T, G, A, W>::send_gradients(stages& step,
                                                   across_backward_scratch<T, P> const& s,
                                                   tokens_in d_sum) const noexcept {
  offset_t const H = n.hidden;
  step("dispatch", [&] { return dispatch(on, d_sum, saved.plan, s.sent); });
  step("exchange", [&] {
    return begin_rows(who, among, towards_experts<T>(kept.plan, s.sent.data(), s.d_y.data(), H));
  });
  if (!n.gate_on_input) {
    step("dispatch", [&] { return gates_to_rows(on, saved.choice.gate, saved.plan, s.gates); });
    step("exchange", [&] {
      return begin_rows(who, among,
                        towards_experts<float>(kept.plan, s.gates.data(), s.here_gates.data(), 1));
    });
  }
  step("exchange", [&] { return finish_rows(who, among); });
  if (o.memory == memory_mode::save) return;
  step("dispatch", [&] {
    return dispatch(on, this->expert_input(), saved.plan, s.sent, {.gate = gates_on_input()});
  });
  step("exchange", [&] {
    return begin_rows(who, among, towards_experts<T>(kept.plan, s.sent.data(), s.x.data(), H));
  });
  step("exchange", [&] { return finish_rows(who, among); });
}

/// Of this rank's experts, all but the weights.
template <class P, exchange X, class T, class G, class A, class W>
void across_call<P, X, T, G, A, W>::experts_backward(
    stages& step, across_backward_scratch<T, P> const& s, feed_forward<T, A, S> const& experts,
    tokens_in in, view<float const, 1, S> gates, feed_scratch<T, S> const& feed) const noexcept {
  offset_t const N = in.extent(0);
  tokens_in pre = first(kept.pre, N), d_y = first(s.d_y, N);
  if (feed.pre) {
    step("recompute", [&] { return experts.recompute_pre(on, in, feed.pre); });
    pre = feed.pre;
  }
  step("experts_backward", [&] { return feed_backward_pre(on, experts, d_y, pre, gates, feed); });
  if (n.gate_on_input) {
    step("experts_backward", [&] {
      return feed_backward_rows(on, experts, feed, first(s.here.d_gated_rows, N), false);
    });
    return;
  }
  step("experts_backward",
       [&] { return feed_backward_rows(on, experts, feed, first(s.here.d_rows, N), false); });
  if (!w.down_bias) return;
  floats const part = first(s.here.bias_part, N);
  step("experts_backward", [&] { return bias_part(on, d_y, w.down_bias, experts.plan, part); });
  step("experts_backward", [&] {
    return backend::add(on, view<float const, 2, S>(part), column_of_one(feed.d_scale),
                        experts.plan.segments());
  });
}

/// Their gradients go back to the tokens, and to the gates.
template <class P, exchange X, class T, class G, class A, class W>
void across_call<P, X, T, G, A, W>::return_gradients(stages& step,
                                                     across_backward_scratch<T, P> const& s,
                                                     dispatch_plan<S> const& here,
                                                     feed_scratch<T, S> const& feed,
                                                     view<float, 2, S> d_input) const noexcept {
  offset_t const N = here.tokens;
  auto const back = [&](auto rows, auto arrived, auto* to, offset_t width) {
    using element = std::remove_pointer_t<decltype(to)>;
    step("exchange", [&] {
      return ranks::in_order_of_arrival(on, view<element const, 2, S>(rows), here,
                                        first(arrived, N));
    });
    step("exchange", [&] {
      return begin_rows(who, among, towards_tokens<element>(kept.plan, arrived.data(), to, width));
    });
  };
  if (n.gate_on_input) {
    view<T, 2, S> const returned = s.tokens.experts.d_gated_rows;
    back(first(s.here.d_gated_rows, N), s.d_gated_rows, returned.data(), n.hidden);
    step("exchange", [&] { return finish_rows(who, among); });
    step("dispatch_backward", [&] {
      return dispatch_backward(
          on, returned, saved.plan, d_input,
          {.gate = saved.choice.gate, .x = this->expert_input(), .d_gate = s.tokens.d_gate});
    });
    return;
  }
  floats const returned = s.tokens.experts.d_rows;
  view<float, 1, S> const scales = s.tokens.experts.feed.d_scale;
  back(first(s.here.d_rows, N), s.d_rows, returned.data(), n.hidden);
  back(column_of_one(feed.d_scale), s.d_scale, scales.data(), 1);
  step("exchange", [&] { return finish_rows(who, among); });
  step("dispatch_backward", [&] { return dispatch_backward(on, returned, saved.plan, d_input); });
  step("combine_backward", [&] { return rows_to_gates(on, scales, saved.plan, s.tokens.d_gate); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
