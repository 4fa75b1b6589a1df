#pragma once
#include "shunt/nn/attention.hpp"
#include "shunt/nn/detail/block_types.hpp"
#include "shunt/nn/linear.hpp"
#include "shunt/nn/rotary.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <class P, storage T, class Group>
[[nodiscard]] bool dense_backward(P const& on, block_weights<T, P::memory> const& w,
                                  std::type_identity_t<view<T const, 2, P::memory>> in,
                                  std::type_identity_t<view<T const, 2, P::memory>> pre,
                                  std::type_identity_t<view<T const, 2, P::memory>> d_y,
                                  block_gradients<P::memory> const& g,
                                  block_backward_scratch<T, P::memory> const& s, bool add,
                                  stages& step, Group const& group) noexcept {
  return step("dense", linear_dgrad(on, d_y, w.down, s.d_act)) &&
         step("dense", activation_backward(on, s.d_act, pre, swiglu{}, s.d_pre, {.act = s.act})) &&
         step("dense", group.weight_gradient(on, d_y, s.act, g.down, add)) &&
         step("dense", group.weight_gradient(on, s.d_pre, in, g.up, add)) &&
         step("dense", linear_dgrad(on, s.d_pre, w.up, s.d_in));
}

/// block_backward, its arguments checked.
template <class P, storage T, class Kept, class Group>
[[nodiscard]] status block_gradients_of(
    P const& on, block_sizes const& n, view<T const, 2, P::memory> x,
    block_weights<T, P::memory> const& w, rotary_table<P::memory> const& table, Kept const& saved,
    view<T const, 2, P::memory> d_y, view<T, 2, P::memory> d_x, block_gradients<P::memory> const& g,
    block_backward_scratch<T, P::memory> const& s, block_options<P::memory> const& options,
    Group const& group) noexcept {
  bool const add = options.accumulate;
  stages step(options.hook);

  // y = m + feed(norm(m))
  bool done = true;
  if (n.dense) {
    done = dense_backward<P, T>(on, w, saved.feed_in, saved.pre, d_y, g, s, add, step, group);
  } else if (status bad =
                 group.mixture_backward(on, saved.feed_in, w.experts, d_y, saved.experts, s.d_in,
                                        g.experts, s.own, layer_options_of(options));
             !bad.ok()) {
    return bad;
  }
  done = done && step("norm", group.norm_backward(on, saved.middle, w.feed_norm, saved.feed_inverse,
                                                  s.d_in, s.d_middle, g.feed_norm, s.own,
                                                  {.add = d_y, .accumulate = add}));
  // m = x + Wo · attention(…)
  auto const q = n.part(saved.qkv, 0, n.heads), k = n.part(saved.qkv, n.heads, n.kv_heads),
             v = n.part(saved.qkv, n.heads + n.kv_heads, n.kv_heads);
  auto const d_q = n.part(s.d_qkv, 0, n.heads), d_k = n.part(s.d_qkv, n.heads, n.kv_heads),
             d_v = n.part(s.d_qkv, n.heads + n.kv_heads, n.kv_heads);
  done =
      done && step("projection", linear_dgrad(on, s.d_middle, w.out, s.d_attended)) &&
      step("projection", group.weight_gradient(on, s.d_middle, saved.attended, g.out, add)) &&
      step("attention", attention_backward(on, q, k, v, n.heads_of(saved.attended), saved.log_sum,
                                           n.heads_of(s.d_attended), d_q, d_k, d_v, s.own)) &&
      step("rotary", rotary_backward(on, d_q, table, {.pairs = options.pairs})) &&
      step("rotary", rotary_backward(on, d_k, table, {.pairs = options.pairs})) &&
      step("projection", group.weight_gradient(on, s.d_qkv, saved.attention_in, g.qkv, add)) &&
      step("projection", linear_dgrad(on, s.d_qkv, w.qkv, s.d_in)) &&
      step("norm",
           group.norm_backward(on, x, w.attention_norm, saved.attention_inverse, s.d_in, d_x,
                               g.attention_norm, s.own, {.add = s.d_middle, .accumulate = add}));
  return step.outcome();
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
