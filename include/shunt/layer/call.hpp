#pragma once
#include "shunt/combine.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/gate_projection.hpp"
#include "shunt/layer/memory.hpp"
#include "shunt/layer/outputs.hpp"
#include "shunt/moe_experts/call.hpp"
#include "shunt/route_losses.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// One call of the layer: its arguments, and each stage as a method. forward() and backward(), in
/// layer.hpp, put the stages in order; their bodies are in layer/forward.hpp and layer/backward.hpp.
template <class P, class T, class G, class A, class W = T> struct moe_call {
  static constexpr space S = P::memory;
  using backend = layer_backend<P>;
  using tokens_in = view<T const, 2, S>;
  using floats_in = view<float const, 2, S>;

  P const& on;
  moe_sizes const& n;
  tokens_in x;
  moe_weights<T, G, S, W> const& w;
  layer_options<A, S> const& o;
  moe_outputs<T, S> const& out;
  moe_saved<T, S> const& saved;
  dispatch_plan<S> const& all_tokens;

  [[nodiscard]] status forward(forward_scratch<T, S> const& s, view<T, 2, S> y) const noexcept;
  [[nodiscard]] status backward(backward_scratch<T, S> const& s, tokens_in d_y,
                                moe_gradients<S> const& g, view<float, 2, S> d_x) const noexcept;

 protected:  // across/layer_call.hpp puts the same stages in another order
  void gate(stages& step) const noexcept;
  void choose(stages& step, forward_scratch<T, S> const& s) const noexcept;
  void losses(stages& step, routing<S> const& choice,
              forward_scratch<T, S> const& s) const noexcept;
  void make_plan(stages& step, forward_scratch<T, S> const& s) const noexcept;
  void latent_in(stages& step) const noexcept;
  void shared(stages& step, forward_scratch<T, S> const& s) const noexcept;
  void combine_tokens(stages& step, forward_scratch<T, S> const& s, view<T, 2, S> y) const noexcept;

  tokens_in latent_out_backward(stages& step, backward_scratch<T, S> const& s,
                                tokens_in d_y) const noexcept;
  void latent_out_gradient(stages& step, tokens_in d_y, moe_gradients<S> const& g) const noexcept;
  void zero_backward(stages& step, backward_scratch<T, S> const& s, tokens_in d_sum,
                     view<float, 2, S> d_input) const noexcept;
  void latent_in_backward(stages& step, backward_scratch<T, S> const& s, moe_gradients<S> const& g,
                          view<float, 2, S> d_x) const noexcept;
  status choose_backward(backward_scratch<T, S> const& s) const noexcept;
  void gate_backward(stages& step, backward_scratch<T, S> const& s, moe_gradients<S> const& g,
                     view<float, 2, S> d_x) const noexcept;
  void shared_backward(stages& step, backward_scratch<T, S> const& s, tokens_in d_y,
                       moe_gradients<S> const& g, view<float, 2, S> d_x) const noexcept;

  /// What the experts read: the tokens, or their latents.
  tokens_in expert_input() const noexcept { return n.latent ? tokens_in(saved.latent) : x; }

  experts_call<P, T, A, W> experts() const noexcept {
    return {on,
            {w.up, w.down, w.up_bias, w.down_bias},
            o.act,
            expert_input(),
            saved.choice.gate,
            saved.plan,
            n.gate_on_input,
            o.int8_rows};
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
    return {saved.choice.expert, expert_input(), real_experts(), o.route.zero_experts};
  }
  index_t real_experts() const noexcept {
    return static_cast<index_t>(n.experts - o.route.zero_experts);
  }
  route_inputs<S> router_inputs() const noexcept {
    return {w.choice_bias, o.valid, o.ids, o.token, o.draws};
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
