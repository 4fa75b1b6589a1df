#pragma once
#include "shunt/combine.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/moe_experts/feed_forward.hpp"
#include "shunt/moe_experts/memory.hpp"
#include "shunt/moe_experts/stages.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The routed experts of one call, with a plan that is made: from tokens to rows, and back.
template <class P, class T, class A, class W = T> struct experts_call {
  static constexpr space S = P::memory;
  using tokens_in = view<T const, 2, S>;

  P const& on;
  moe_experts_weights<W, S> w;
  A act;
  tokens_in x;                   // [T,H]
  view<float const, 2, S> gate;  // [T,K]
  dispatch_plan<S> const& plan;
  bool gate_on_input = false, int8_rows = false;

  /// What combine multiplies the rows by: the gates, or nothing where they acted on the input.
  [[nodiscard]] view<float const, 2, S> row_gates() const noexcept {
    return gate_on_input ? view<float const, 2, S>{} : gate;
  }

  /// s.rows = the experts' outputs, one row for each slot that was kept.
  void forward(stages& step, experts_forward_scratch<T, S> const& s,
               view<T, 2, S> pre) const noexcept {
    tokens_in in = x;
    if (gate_on_input) {
      step("dispatch", [&] { return dispatch(on, x, plan, s.gated_rows, {gate}); });
      in = s.gated_rows;
    }
    step("experts", [&] { return stack().forward(on, in, pre, s.act, s.rows); });
  }

  /// d_x (overwritten) and, where they are not null, d_gate and the weights' gradients. A gate's
  /// gradient is <d_y · W2, f(pre)>: no expert's output is needed.
  template <class DX>
  void backward(stages& step, experts_backward_scratch<T, S> const& s, tokens_in d_y, tokens_in pre,
                view<DX, 2, S> d_x, view<float, 2, S> d_gate,
                feed_gradients<S> const& g) const noexcept {
    tokens_in in = x;
    if (gate_on_input) {
      step("dispatch", [&] { return dispatch(on, x, plan, s.gated_rows, {gate}); });
      in = s.gated_rows;
    }
    if (s.feed.pre) {
      step("recompute", [&] { return stack().recompute_pre(on, in, s.feed.pre); });
      pre = s.feed.pre;
    }
    if (gate_on_input) {
      step("experts_backward", [&] {
        return feed_backward(on, stack(), in, d_y, pre, {}, s.feed, s.d_gated_rows, false, g);
      });
      step("dispatch_backward", [&] {
        return dispatch_backward(on, s.d_gated_rows, plan, d_x,
                                 {.gate = gate, .x = x, .d_gate = d_gate});
      });
      return;
    }
    step("experts_backward", [&] {
      return feed_backward(on, stack(), in, d_y, pre, flat(gate), s.feed, s.d_rows, false, g);
    });
    step("dispatch_backward", [&] { return dispatch_backward(on, s.d_rows, plan, d_x); });
    if (d_gate) gate_gradient(step, s, d_y, d_gate);
  }

 private:
  [[nodiscard]] feed_forward<T, A, S, W> stack() const noexcept {
    row_gather<S> const tokens{plan.row_slot, plan.top_k};
    return {.up = w.up,
            .down = w.down,
            .up_bias = w.up_bias,
            .down_bias = w.down_bias,
            .act = act,
            .plan = plan,
            .gather = gate_on_input ? row_gather<S>{} : tokens,
            .int8_rows = int8_rows};
  }
  void gate_gradient(stages& step, experts_backward_scratch<T, S> const& s, tokens_in d_y,
                     view<float, 2, S> d_gate) const noexcept {
    view<float, 1, S> const of_row = s.feed.d_scale;
    if (w.down_bias) {
      view<float const, 2, S> const part = s.bias_part;
      step("experts_backward", [&] { return bias_part(on, d_y, w.down_bias, plan, s.bias_part); });
      step("experts_backward",
           [&] { return layer_backend<P>::add(on, part, column_of_one(of_row), plan.segments()); });
    }
    step("combine_backward", [&] { return rows_to_gates(on, of_row, plan, d_gate); });
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
