#pragma once
#include "shunt/nn/detail/block_types.hpp"
#include "shunt/nn/model_config.hpp"

/// Where in the flat buffer a model's tensors lie: the order of for_each_parameter, as views. (A test
/// holds the two against each other.)
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

struct model_layout {
  offset_t head = 0, layers = 0, layer_size = 0, norms = 0, last_norm = 0, count = 0;

  explicit model_layout(model_config const& c) noexcept {
    offset_t const w = c.width, table = offset_t{c.vocabulary} * w;
    head = c.tied_head ? 0 : table;
    layers = head + table;
    offset_t const i = offset_t{c.intermediate} * w;
    layer_size = offset_t{c.qkv_width()} * w + offset_t{c.heads} * c.head_dim() * w;
    layer_size +=
        c.dense ? 3 * i : c.experts * w + 3 * (c.held() * i + offset_t{c.shared_intermediate} * w);
    norms = layers + c.layers * layer_size;
    last_norm = norms + 2 * w * c.layers;
    count = last_norm + w;
  }
};

/// Takes views from a buffer one after another.
template <class T, space S> struct view_taker {
  T* at;
  template <int Rank> view<T, Rank, S> take(axes<Rank> extents) noexcept {
    view<T, Rank, S> const v(at, extents);
    at += v.size();
    return v;
  }
};

template <class T, space S>
[[nodiscard]] view<T, 2, S> embedding_of(model_config const& c, view<T, 1, S> values) noexcept {
  return {values.data(), {{c.vocabulary, c.width}}};
}
template <class T, space S>
[[nodiscard]] view<T, 2, S> head_of(model_config const& c, view<T, 1, S> values) noexcept {
  return {values.data() + model_layout(c).head, {{c.vocabulary, c.width}}};
}
template <class T, space S>
[[nodiscard]] view<T, 1, S> last_norm_of(model_config const& c, view<T, 1, S> values) noexcept {
  return {values.data() + model_layout(c).last_norm, {{c.width}}};
}

/// The tensors of layer n, in a block_weights or a block_gradients; `Matrix` is what experts lie in.
template <class Matrix, class Block, class T, space S>
void take_layer(model_config const& c, int n, view<T, 1, S> values, Block& b) noexcept {
  model_layout const where(c);
  offset_t const w = c.width, i = c.intermediate, e = c.held(), s = c.shared_intermediate;
  view_taker<T, S> next{values.data() + where.layers + n * where.layer_size};
  b.qkv = next.template take<2>({{c.qkv_width(), w}});
  b.out = next.template take<2>({{w, offset_t{c.heads} * c.head_dim()}});
  if (c.dense) {
    b.up = next.template take<2>({{2 * i, w}});
    b.down = next.template take<2>({{w, i}});
  } else {
    b.experts.gate = next.template take<2>({{c.experts, w}});
    b.experts.up = Matrix(next.template take<3>({{e, 2 * i, w}}), pair_layout{});
    b.experts.down = Matrix(next.template take<3>({{e, w, i}}));
    if (s > 0) {
      b.experts.shared_up = Matrix(next.template take<3>({{1, 2 * s, w}}), pair_layout{});
      b.experts.shared_down = Matrix(next.template take<3>({{1, w, s}}));
    }
  }
  view_taker<T, S> norm{values.data() + where.norms + 2 * w * n};
  b.attention_norm = norm.template take<1>({{w}});
  b.feed_norm = norm.template take<1>({{w}});
}

template <class T, space S>
[[nodiscard]] block_weights<T, S> layer_weights(model_config const& c, int n,
                                                view<T const, 1, S> values,
                                                view<float const, 2, S> choice_bias) noexcept {
  block_weights<T, S> b;
  take_layer<expert_matrix<T, S>>(c, n, values, b);
  if (choice_bias.data() != nullptr && !c.dense) b.experts.choice_bias = choice_bias[n];
  return b;
}
template <space S>
[[nodiscard]] block_gradients<S> layer_gradients(model_config const& c, int n,
                                                 view<float, 1, S> values) noexcept {
  block_gradients<S> b;
  take_layer<expert_gradient<S>>(c, n, values, b);
  return b;
}

template <space S>
[[nodiscard]] block_options<S> block_options_of(model_config const& c,
                                                view<std::uint8_t const, 1, S> valid, bool training,
                                                stage_hook hook,
                                                route_draws<S> const& draws = {}) noexcept {
  block_options<S> o;
  o.heads = c.heads;
  o.kv_heads = c.kv_heads;
  o.norm_epsilon = c.norm_epsilon;
  o.hook = hook;
  if (c.dense) return o;
  o.layer.top_k = c.top_k;
  o.layer.route = c.route;
  o.layer.draws = draws;
  o.layer.valid = valid;
  o.layer.balance_loss = training ? c.balance_loss : 0.0f;
  o.layer.z_loss = training ? c.z_loss : 0.0f;
  return o;
}

/// Weights that only their extents are asked of: an address that is not null.
template <class T, space S>
[[nodiscard]] view<T const, 1, S> weights_nowhere(model_config const& c) noexcept {
  return {reinterpret_cast<T const*>(alignof(std::max_align_t)), {{model_layout(c).count}}};
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
