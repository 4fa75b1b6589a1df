#pragma once
#include <concepts>

#include "shunt/core/abi.hpp"
#include "shunt/dispatch.hpp"
#include "shunt/experts.hpp"
#include "shunt/moe_experts/memory.hpp"

/// The two products around an activation, forward and backward: the same for routed experts, and for
/// a shared one, whose plan sends every token to it. And projections of the whole batch.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// One matrix [N,K] as a stack of one.
template <class T, space S>
[[nodiscard]] constexpr view<T, 3, S> stack_of_one(view<T, 2, S> m) noexcept {
  return {m.data(), {{1, m.extent(0), m.extent(1)}}, {{0, m.stride(0), m.stride(1)}}};
}
template <class T, space S>
[[nodiscard]] constexpr view<T, 2, S> row_of_one(view<T, 1, S> v) noexcept {
  return {v.data(), {{1, v.extent(0)}}, {{0, v.stride(0)}}};
}
template <class T, space S>
[[nodiscard]] constexpr view<T, 2, S> column_of_one(view<T, 1, S> v) noexcept {
  return {v.data(), {{v.extent(0), 1}}, {{v.stride(0), 1}}};
}
template <class T, space S> [[nodiscard]] constexpr view<T, 1, S> flat(view<T, 2, S> m) noexcept {
  return {m.data(), {{m.extent(0) * m.extent(1)}}};
}

/// y = x · wᵀ for the whole batch.
template <class P, class X, class W, class Y>
[[nodiscard]] status project(P const& on, view<X const, 2, P::memory> x,
                             view<W const, 2, P::memory> w,
                             dispatch_plan<P::memory> const& all_tokens,
                             view<Y, 2, P::memory> y) noexcept {
  return grouped_gemm(on, x, stack_of_one(w), all_tokens.segments(), y);
}

/// The gradients of project: dx (+)= d_y · w and, where wanted, dw (+)= d_yᵀ · x, d_bias (+)= Σ d_y;
/// of valid tokens only; the content of the others is not read.
template <class P, class D, class W, class DX>
[[nodiscard]] status project_back(P const& on, view<D const, 2, P::memory> d_y,
                                  view<W const, 2, P::memory> w,
                                  dispatch_plan<P::memory> const& all_tokens,
                                  view<DX, 2, P::memory> d_x, bool accumulate) noexcept {
  return grouped_dgrad(on, d_y, stack_of_one(w), all_tokens.segments(), d_x,
                       {.gather = {all_tokens.row_slot, 1}, .accumulate = accumulate});
}
template <class P, class D, class X>
[[nodiscard]] status project_gradient(P const& on, view<D const, 2, P::memory> d_y,
                                      view<X const, 2, P::memory> x,
                                      dispatch_plan<P::memory> const& all_tokens,
                                      view<float, 2, P::memory> dw, bool accumulate,
                                      view<float, 1, P::memory> d_bias = {}) noexcept {
  if (!dw) return {};
  wgrad_options<P::memory> options{.gather_dc = {all_tokens.row_slot, 1},
                                   .gather_a = {all_tokens.row_slot, 1},
                                   .accumulate = accumulate};
  if (d_bias) options.d_bias = row_of_one(d_bias);
  return grouped_wgrad(on, d_y, x, all_tokens.segments(), stack_of_one(dw), options);
}

/// A stack of experts, without its rows.
template <class T, class A, space S, class W = T> struct feed_forward {
  expert_matrix<W, S> up, down;
  expert_vector<S> up_bias, down_bias;
  A act;
  dispatch_plan<S> plan;
  row_gather<S> gather;  ///< of its input through the plan; null: rows that stand as they are
  bool int8_rows = false;

  /// act = f(x · upᵀ + b1), out = act · downᵀ + b2. The bits do not depend on whether pre is kept.
  template <class P>
  [[nodiscard]] status forward(P const& on, view<T const, 2, S> x, view<T, 2, S> pre,
                               view<T, 2, S> activated, view<T, 2, S> out) const noexcept {
    status const first = grouped_gemm(
        on, x, up, plan.segments(), activated, act,
        {.gather = gather, .bias = up_bias, .pre = pre, .round_pre = true, .int8_rows = int8_rows});
    if (!first.ok()) return first;
    return grouped_gemm(on, activated, down, plan.segments(), out, identity{},
                        {.bias = down_bias, .int8_rows = int8_rows});
  }

  /// The pre-activations alone: what forward kept, bit for bit.
  template <class P>
  [[nodiscard]] status recompute_pre(P const& on, view<T const, 2, S> x,
                                     view<T, 2, S> pre) const noexcept {
    return grouped_gemm(on, x, up, plan.segments(), pre, identity{},
                        {.gather = gather, .bias = up_bias});
  }
};

/// Where its gradients go.
template <space S> struct feed_gradients {
  expert_gradient<S> up, down;
  view<float, 2, S> up_bias, down_bias;
  view<std::uint8_t const, 1, S> frozen;
  bool accumulate = false;
};

// Backward without the experts' outputs: with a = f(pre) and y = Σ gate (a · W2ᵀ + b2),
//   d_a    = d_y · W2               (d_y gathered, not yet times the gate)
//   d_gate = <d_a, a>               (+ <d_y, b2>: by who needs it)
//   d_pre  = gate · d_a · f'(pre)
//   dW2    = d_yᵀ · (gate · a)      db2 = Σ gate · d_y
//   d_rows = d_pre · W1             dW1 = d_preᵀ · x, db1 = Σ d_pre

/// Of it: d_a, d_gate, d_pre and gate · a.
template <class P, class T, class A>
[[nodiscard]] status feed_backward_pre(P const& on, feed_forward<T, A, P::memory> const& f,
                                       view<T const, 2, P::memory> d_y,
                                       view<T const, 2, P::memory> pre,
                                       view<float const, 1, P::memory> gate,
                                       feed_scratch<T, P::memory> const& s) noexcept {
  constexpr space S = P::memory;
  auto const rows = f.plan.segments();
  row_gather<S> const tokens{f.plan.row_slot, f.plan.top_k};
  row_factors<S> const scale = gate ? row_factors<S>{gate, f.plan.row_slot} : row_factors<S>{};
  activation_options<S> const through{
      .rows = rows, .scale = scale, .act = s.act, .d_scale = s.d_scale};
  if constexpr (S == space::host) {
    if (status bad = grouped_dgrad(on, d_y, f.down, rows, s.d_act, {.gather = tokens}); !bad.ok()) {
      return bad;
    }
    return activation_backward(on, s.d_act, pre, f.act, s.d_pre, through);
  } else {  // both in one pass: what lies between is a matrix less in memory
    return experts_backend<P>::dgrad_activation(on, d_y, f.down, rows, tokens, pre, f.act, s.d_pre,
                                                through, s.parts);
  }
}
/// Of it: the gradients of weights and biases.
template <class P, class T, class A>
[[nodiscard]] status feed_backward_weights(P const& on, feed_forward<T, A, P::memory> const& f,
                                           view<T const, 2, P::memory> x,
                                           view<T const, 2, P::memory> d_y,
                                           view<float const, 1, P::memory> gate,
                                           feed_scratch<T, P::memory> const& s,
                                           feed_gradients<P::memory> const& g) noexcept {
  constexpr space S = P::memory;
  row_gather<S> const tokens{f.plan.row_slot, f.plan.top_k};
  auto const wgrad = [&](auto const& dc, row_gather<S> from_dc, auto const& a, row_gather<S> from_a,
                         auto const& dw, view<float, 2, S> d_bias) {
    return grouped_wgrad(on, dc, a, f.plan.segments(), dw,
                         {.gather_dc = from_dc,
                          .gather_a = from_a,
                          .accumulate = g.accumulate,
                          .d_bias = d_bias,
                          .frozen = g.frozen});
  };
  if (g.down) {
    status const bad = wgrad(d_y, tokens, s.act, row_gather<S>{}, g.down,
                             gate ? view<float, 2, S>{} : g.down_bias);
    if (!bad.ok()) return bad;
  }
  if (g.down_bias && gate) {  // Σ gate · d_y: a product with the gates as a matrix of one column
    view<float, 3, S> const column(g.down_bias.data(),
                                   {{g.down_bias.extent(0), g.down_bias.extent(1), 1}},
                                   {{g.down_bias.stride(0), g.down_bias.stride(1), 1}});
    status const bad =
        wgrad(d_y, tokens, column_of_one(gate), row_gather<S>{f.plan.row_slot, 1}, column, {});
    if (!bad.ok()) return bad;
  }
  return g.up ? wgrad(s.d_pre, row_gather<S>{}, x, f.gather, g.up, g.up_bias) : status{};
}
/// Of it: d_rows.
template <class P, class T, class A, class DRows>
[[nodiscard]] status feed_backward_rows(P const& on, feed_forward<T, A, P::memory> const& f,
                                        feed_scratch<T, P::memory> const& s,
                                        view<DRows, 2, P::memory> d_rows,
                                        bool add_to_rows) noexcept {
  return grouped_dgrad(on, s.d_pre, f.up, f.plan.segments(), d_rows, {.accumulate = add_to_rows});
}
/// All of it.
template <class P, class T, class A, class DRows>
[[nodiscard]] status feed_backward(P const& on, feed_forward<T, A, P::memory> const& f,
                                   view<T const, 2, P::memory> x, view<T const, 2, P::memory> d_y,
                                   view<T const, 2, P::memory> pre,
                                   view<float const, 1, P::memory> gate,
                                   feed_scratch<T, P::memory> const& s,
                                   view<DRows, 2, P::memory> d_rows, bool add_to_rows,
                                   feed_gradients<P::memory> const& g) noexcept {
  status const done = feed_backward_pre(on, f, d_y, pre, gate, s);
  if (!done.ok()) return done;
  if (status bad = feed_backward_weights(on, f, x, d_y, gate, s, g); !bad.ok()) return bad;
  return feed_backward_rows(on, f, s, d_rows, add_to_rows);
}

/// Biases [E,N] as matrices of one row.
template <class B, space S>
[[nodiscard]] expert_matrix<B, S> as_rows(expert_vector<S> const& bias) noexcept {
  if (bias.pointers() != nullptr) {
    auto const each = reinterpret_cast<B const* const*>(bias.pointers());
    return expert_matrix<B, S>::each(view<B const* const, 1, S>(each, {{bias.experts()}}), 1,
                                     bias.rows());
  }
  return view<B const, 3, S>(static_cast<B const*>(bias.data()), {{bias.experts(), 1, bias.rows()}},
                             {{bias.stride(0), 0, bias.stride(1)}});
}

/// <d_y, down_bias> of each row: what the biases add to the gates' gradients.
template <class P, class T>
[[nodiscard]] status bias_part(P const& on, view<T const, 2, P::memory> d_y,
                               expert_vector<P::memory> const& bias,
                               dispatch_plan<P::memory> const& plan,
                               view<float, 2, P::memory> out) noexcept {
  auto const product = [&](auto const* type) {
    using B = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    return grouped_gemm(on, d_y, as_rows<B>(bias), plan.segments(), out, identity{},
                        {.gather = {plan.row_slot, plan.top_k}});
  };
  switch (bias.type()) {
    case element_type::bf16: return product(static_cast<bf16 const*>(nullptr));
    case element_type::fp16: return product(static_cast<fp16 const*>(nullptr));
    default: break;
  }
  return product(static_cast<float const*>(nullptr));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
