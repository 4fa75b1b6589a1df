#pragma once
#include "shunt/combine.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/gate_projection.hpp"
#include "shunt/layer/memory.hpp"
#include "shunt/moe_experts/feed_forward.hpp"
#include "shunt/moe_experts/stages.hpp"
#include "shunt/route_losses.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// One call of the layer: its arguments, and each stage of it in the words of its module. forward() and
/// backward(), which put the stages in order, are layer.hpp's.
template <class P, class T, class G, class A, class W = T> struct moe_call {
  static constexpr space S = P::memory;
  using own = layer_backend<P>;
  using tokens_in = view<T const, 2, S>;
  using floats_in = view<float const, 2, S>;

  P const& on;
  moe_sizes const& n;
  tokens_in x;
  moe_weights<T, G, S, W> const& w;
  layer_options<A, S> const& o;
  moe_saved<T, S> const& keep;
  dispatch_plan<S> const& all_tokens;

  [[nodiscard]] status forward(forward_scratch<T, S> const& s, view<T, 2, S> y) const noexcept;
  [[nodiscard]] status backward(backward_scratch<T, S> const& s, tokens_in d_y,
                                moe_gradients<S> const& g, view<float, 2, S> d_x) const noexcept;

 private:
  /// What the experts see: the tokens, or their latents.
  tokens_in seen() const noexcept { return n.latent ? tokens_in(keep.latent) : x; }
  /// What combine multiplies the rows by: the gates, or nothing where they acted on the input.
  floats_in gates() const noexcept {
    return n.gate_on_input ? floats_in{} : floats_in(keep.choice.gate);
  }
  feed_forward<T, A, S, W> experts() const noexcept {
    row_gather<S> const tokens{keep.plan.row_slot, keep.plan.top_k};
    return {.up = w.up,
            .down = w.down,
            .up_bias = w.up_bias,
            .down_bias = w.down_bias,
            .act = o.act,
            .plan = keep.plan,
            .gather = n.gate_on_input ? row_gather<S>{} : tokens,
            .int8_rows = o.int8_rows};
  }
  /// One expert that every token chose.
  feed_forward<T, A, S, W> shared_expert() const noexcept {
    return {.up = w.shared_up,
            .down = w.shared_down,
            .up_bias = {},
            .down_bias = {},
            .act = o.act,
            .plan = all_tokens,
            .gather = {all_tokens.row_slot, 1},
            .int8_rows = o.int8_rows};
  }
  zero_experts<T, S> identities() const noexcept {
    if (!n.zero) return {};
    return {keep.choice.expert, seen(), real_experts(), o.route.zero_experts};
  }
  index_t real_experts() const noexcept {
    return static_cast<index_t>(n.experts - o.route.zero_experts);
  }
  route_inputs<S> given() const noexcept {
    return {w.choice_bias, o.valid, o.ids, o.token, o.draws};
  }

  /// Tokens choose experts, or experts tokens.
  status choose(routing<S> const& choice, forward_scratch<T, S> const& s) const noexcept {
    if (n.taken == 0) return route(on, keep.logits, choice, s.route, o.route, given());
    expert_choice<S> taken = keep.taken;
    taken.counts = o.observe.counts;
    taken.report = o.observe.report;
    return route_expert_choice(on, keep.logits, taken, s.route, o.route, o.valid);
  }
  status choose_backward(floats_in d_gate, backward_scratch<T, S> const& s) const noexcept {
    if (n.taken > 0) {
      status const taken = own::gates_of_choice(on, keep.taken.token, d_gate, s.d_choice);
      if (!taken.ok()) return taken;
      return route_expert_choice_backward(on, keep.logits, keep.taken, floats_in(s.d_choice),
                                          s.d_logits, s.route, o.route, o.valid);
    }
    route_gradients<S> d = o.from_losses;
    d.gate = d_gate;
    if (!d.importance) d.importance = keep.d_importance;
    if (!d.z) d.z = keep.d_z;
    return route_backward(on, keep.logits, keep.choice, d, s.d_logits, s.route, o.route, given());
  }
  status lay_out(forward_scratch<T, S> const& s) const noexcept {
    if (n.taken > 0) {
      return plan_from_expert_choice(on, keep.taken.token, keep.plan, s.plan,
                                     {.gate = keep.taken.gate,
                                      .dense_gate = keep.choice.gate,
                                      .valid = o.valid,
                                      .report = o.plan});
    }
    return plan_dispatch(on, keep.choice.expert, keep.plan, s.plan,
                         {.capacity = o.capacity,
                          .drop = o.drop,
                          .gate = keep.choice.gate,
                          .valid = o.valid,
                          .first_expert = o.first_expert,
                          .experts = real_experts(),
                          .zero_experts = o.route.zero_experts,
                          .report = o.plan});
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
