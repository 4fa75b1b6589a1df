#pragma once
#include "shunt/layer/call.hpp"

/// The stages of the layer's forward.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// logits = x · Wgᵀ
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::gate(stages& step) const noexcept {
  step("gate", [&] { return backend::all_tokens(on, o.valid, all_tokens); });
  step("gate", [&] { return gate_logits(on, x, w.gate, saved.logits, w.gate_bias); });
}

/// expert, gate = route(logits): tokens choose experts, or experts tokens.
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::choose(stages& step, forward_scratch<T, S> const& s) const noexcept {
  routing<S> choice = out.route;
  choice.expert = saved.choice.expert;
  choice.gate = saved.choice.gate;
  if (s.load.z) choice.z = s.load.z;
  if (!choice.counts) choice.counts = s.load.counts;
  if (!choice.importance) choice.importance = s.load.importance;
  if (!choice.tokens) choice.tokens = s.load.tokens;
  step("route", [&] {
    if (n.tokens_per_expert == 0) {
      return route(on, saved.logits, router_inputs(), choice, s.route, o.route);
    }
    ::shunt::expert_choice<S> by_expert = saved.expert_choice;
    by_expert.counts = out.route.counts;
    by_expert.report = out.route.report;
    return route_expert_choice(on, saved.logits, by_expert, s.route, o.route, o.valid);
  });
  make_plan(step, s);
  losses(step, choice, s);
}

template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::make_plan(stages& step,
                                        forward_scratch<T, S> const& s) const noexcept {
  step("plan", [&] {
    if (n.tokens_per_expert > 0) {
      return plan_from_expert_choice(on, saved.expert_choice.token, saved.plan, s.plan,
                                     {.gate = saved.expert_choice.gate,
                                      .dense_gate = saved.choice.gate,
                                      .valid = o.valid,
                                      .report = out.plan});
    }
    return plan_dispatch(on, saved.choice.expert, saved.plan, s.plan,
                         {.capacity = o.capacity,
                          .drop = o.drop,
                          .gate = saved.choice.gate,
                          .valid = o.valid,
                          .first_expert = o.first_expert,
                          .experts = real_experts(),
                          .zero_experts = o.route.zero_experts,
                          .report = out.plan});
  });
}

template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::losses(stages& step, routing<S> const& choice,
                                     forward_scratch<T, S> const& s) const noexcept {
  view<float, 1, S> const loss = out.loss ? out.loss : s.loss;
  if (saved.d_importance) {
    step("losses", [&] {
      return balance_loss(on, choice, loss.slice(0, 1), saved.d_importance, {o.balance_loss});
    });
  }
  if (saved.d_z) {
    step("losses", [&] { return z_loss(on, choice, loss.slice(1, 1), saved.d_z, {o.z_loss}); });
  }
  if (out.load.figures) step("stats", [&] { return load_stats(on, saved.plan, out.load); });
}

/// z = x · Wdᵀ
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::latent_in(stages& step) const noexcept {
  if (!n.latent) return;
  step("latent", [&] { return project(on, x, w.latent_down, all_tokens, saved.latent); });
}

/// shared(x), and σ(x · wσ)
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::shared(stages& step, forward_scratch<T, S> const& s) const noexcept {
  if (n.shared > 0) {
    step("shared", [&] {
      return shared_expert().forward(on, x, saved.shared_pre, s.shared_act, s.shared_rows);
    });
  }
  if (!n.shared_gated) return;
  view<float, 1, S> const open = saved.shared_gate;
  step("shared",
       [&] { return project(on, x, row_of_one(w.shared_gate), all_tokens, column_of_one(open)); });
  step("shared", [&] { return backend::apply_sigmoid(on, open, open); });
}

/// y = Σ gate · rows (· Wuᵀ) + σ · shared (+ y)
template <class P, class T, class G, class A, class W>
void moe_call<P, T, G, A, W>::combine_tokens(stages& step, forward_scratch<T, S> const& s,
                                             view<T, 2, S> y) const noexcept {
  floats_in const gates = experts().row_gates();
  combine_options<T, S> also{
      .shared = s.shared_rows, .shared_gate = saved.shared_gate, .valid = o.valid};
  if (o.add_to_y) also.residual = y;
  if (!n.latent) {
    also.zero = identities();
    step("combine", [&] { return combine(on, s.experts.rows, saved.plan, gates, y, also); });
    return;
  }
  tokens_in const sum = saved.latent_sum;
  step("combine", [&] {
    return combine(on, s.experts.rows, saved.plan, gates, saved.latent_sum,
                   {.zero = identities(), .valid = o.valid});
  });
  step("latent", [&] { return project(on, sum, w.latent_up, all_tokens, s.latent_out); });
  step("combine", [&] { return combine(on, s.latent_out, all_tokens, {}, y, also); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
