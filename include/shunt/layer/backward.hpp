#pragma once
#include "shunt/layer/call.hpp"

/// The stages of the layer's backward, from the output's gradient to the input's.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The gradient of the experts' sum, and of what takes it to the full width.
template <class P, class T, class G, class A, class W>
auto moe_call<P, T, G, A, W>::latent_out_backward(stages& step, backward_scratch<T, S> const& s,
                                                  tokens_in d_y) const noexcept -> tokens_in {
  if (!n.latent) return d_y;
  step("latent_backward",
       [&] { return project_back(on, d_y, w.latent_up, all_tokens, s.d_sum, false); });
  return s.d_sum;
}
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::latent_out_gradient(stages& step, tokens_in d_y,
                                                  moe_gradients<S> const& g) const noexcept {
  if (!n.latent) return;
  tokens_in const sum = saved.latent_sum;
  step("latent_backward",
       [&] { return project_gradient(on, d_y, sum, all_tokens, g.latent_up, o.accumulate); });
}

/// Zero experts give their gate's gradient, and the identity's to what the experts read.
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::zero_backward(stages& step, backward_scratch<T, S> const& s,
                                            tokens_in d_sum,
                                            view<float, 2, S> d_input) const noexcept {
  if (!n.zero) return;
  combine_gradients<T, S> const back{
      .zero = identities(), .valid = o.valid, .d_gate = s.d_gate, .d_x = s.d_identity};
  tokens_in const d_identity = s.d_identity;
  step("combine_backward", [&] {
    return combine_backward(on, d_sum, saved.plan, experts().row_gates(), {}, view<T, 2, S>{},
                            back);
  });
  step("combine_backward", [&] { return backend::add(on, d_identity, d_input); });
}

template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::latent_in_backward(stages& step, backward_scratch<T, S> const& s,
                                                 moe_gradients<S> const& g,
                                                 view<float, 2, S> d_x) const noexcept {
  if (!n.latent) return;
  floats_in const d_latent = s.d_latent;
  step("latent_backward",
       [&] { return project_gradient(on, d_latent, x, all_tokens, g.latent_down, o.accumulate); });
  step("latent_backward",
       [&] { return project_back(on, d_latent, w.latent_down, all_tokens, d_x, false); });
}

/// From the gates to the logits.
template <class P, class T, class G, class A, class W>
status moe_call<P, T, G, A, W>::choose_backward(backward_scratch<T, S> const& s) const noexcept {
  floats_in const d_gate = s.d_gate;
  if (n.tokens_per_expert > 0) {
    status const gathered =
        backend::gates_of_choice(on, saved.expert_choice.token, d_gate, s.d_choice);
    if (!gathered.ok()) return gathered;
    return route_expert_choice_backward(on, saved.logits, saved.expert_choice,
                                        floats_in(s.d_choice), s.d_logits, s.route, o.route,
                                        o.valid);
  }
  route_gradients<S> d = o.from_losses;
  d.gate = d_gate;
  if (!d.importance) d.importance = saved.d_importance;
  if (!d.z) d.z = saved.d_z;
  return route_backward(on, saved.logits, router_inputs(), saved.choice, d, s.d_logits, s.route,
                        o.route);
}

template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::gate_backward(stages& step, backward_scratch<T, S> const& s,
                                            moe_gradients<S> const& g,
                                            view<float, 2, S> d_x) const noexcept {
  floats_in const d_logits = s.d_logits;
  step("gate_backward", [&] {
    return project_gradient(on, d_logits, x, all_tokens, g.gate, o.accumulate, g.gate_bias);
  });
  step("gate_backward", [&] { return project_back(on, d_logits, w.gate, all_tokens, d_x, true); });
}

template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::shared_backward(stages& step, backward_scratch<T, S> const& s,
                                              tokens_in d_y, moe_gradients<S> const& g,
                                              view<float, 2, S> d_x) const noexcept {
  if (n.shared > 0) {
    auto const expert = shared_expert();
    view<float const, 1, S> const open = saved.shared_gate;
    tokens_in pre = saved.shared_pre;
    if (s.shared.pre) {
      step("recompute", [&] { return expert.recompute_pre(on, x, s.shared.pre); });
      pre = s.shared.pre;
    }
    step("shared_backward", [&] {
      return feed_backward(on, expert, x, d_y, pre, open, s.shared, d_x, true,
                           {g.shared_up, g.shared_down, {}, {}, {}, o.accumulate});
    });
  }
  if (!n.shared_gated) return;
  view<float, 1, S> const d_logit = s.shared.d_scale;
  floats_in const column = column_of_one(d_logit);
  view<float, 2, S> const dw = row_of_one(g.shared_gate);
  step("shared_backward",
       [&] { return backend::apply_sigmoid_backward(on, saved.shared_gate, d_logit); });
  step("shared_backward",
       [&] { return project_gradient(on, column, x, all_tokens, dw, o.accumulate); });
  step("shared_backward",
       [&] { return project_back(on, column, row_of_one(w.shared_gate), all_tokens, d_x, true); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
