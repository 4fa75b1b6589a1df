#pragma once
#include "shunt/layer.hpp"
#include "shunt/moe_experts/stages.hpp"
#include "shunt/nn/detail/one_process.hpp"
#include "shunt/nn/kv_cache.hpp"
#include "shunt/nn/norm.hpp"
#include "shunt/nn/rotary.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// The weights of one transformer block: `experts` for a mixture, or `up` and `down` for a dense
/// feed-forward. W the width, D = W / heads.
template <storage T, space S = space::host> struct block_weights {
  view<T const, 1, S> attention_norm = {};  ///< [W]
  view<T const, 2, S> qkv = {};             ///< [(heads + 2 kv_heads) D, W]: queries, keys, values
  view<T const, 2, S> out = {};             ///< [W, heads D]
  view<T const, 1, S> feed_norm = {};       ///< [W]
  moe_weights<T, T, S> experts = {};        ///< of the mixture; unused where `up` is given
  view<T const, 2, S> up = {};              ///< [2I,W] gate half, then linear half; null: experts
  view<T const, 2, S> down = {};            ///< [W,I]
};

/// Their gradients, float; every one is written.
template <space S = space::host> struct block_gradients {
  view<float, 1, S> attention_norm = {};  ///< [W]
  view<float, 2, S> qkv = {}, out = {};   ///< as the weights
  view<float, 1, S> feed_norm = {};       ///< [W]
  moe_gradients<S> experts = {};          ///< of the mixture
  view<float, 2, S> up = {}, down = {};   ///< of a dense feed-forward
};

/// Options of block, its backward and its decoding: give all the same.
template <space S = space::host> struct block_options {
  index_t heads = 1, kv_heads = 1;  ///< of queries; of keys and values, which divides the first
  float norm_epsilon = 1e-5f;       ///< ε of both norms
  rotary_pairs pairs = rotary_pairs::halves;  ///< which columns turn together
  layer_options<swiglu, S> layer =
      {};                   ///< of the mixture; its hook and `gradients` are set from here
  bool accumulate = false;  ///< gradients: add instead of overwriting
  stage_hook hook = {};     ///< after each stage
};

/// What forward keeps for backward, in addition to the block's input: carve_block_saved. `Experts`: what the mixture
/// keeps.
template <storage T, space S = space::host, class Experts = moe_saved<T, S>> struct block_saved {
  view<float, 1, S> attention_inverse = {}, feed_inverse = {};  ///< [T] 1 / rms
  view<T, 2, S> attention_in = {};                              ///< [T,W] normalized
  view<T, 2, S> qkv = {};          ///< [T,(heads + 2 kv_heads) D], turned
  view<T, 2, S> attended = {};     ///< [T,heads D]
  view<float, 3, S> log_sum = {};  ///< [B,heads,S]
  view<T, 2, S> middle = {};       ///< [T,W] after the attention's residual
  view<T, 2, S> feed_in = {};      ///< [T,W] normalized
  Experts experts = {};            ///< of the mixture
  view<T, 2, S> pre = {};          ///< dense: [T,2I] pre-activations
};

namespace detail {

using shunt::detail::stages;

/// Extents of a block for B sequences of S tokens.
struct block_sizes {
  offset_t batch, length, tokens, width, heads, kv_heads, head_dim, qkv_rows, intermediate;
  bool dense;
  template <class T, space S>
  block_sizes(offset_t sequences, offset_t each, block_weights<T, S> const& w,
              block_options<S> const& o) noexcept
      : batch(sequences),
        length(each),
        tokens(sequences * each),
        width(w.qkv.extent(1)),
        heads(o.heads),
        kv_heads(o.kv_heads),
        head_dim(o.heads > 0 ? w.out.extent(1) / o.heads : 0),
        qkv_rows((heads + 2 * kv_heads) * head_dim),
        intermediate(w.down.extent(1)),
        dense(w.up.data() != nullptr) {}
  [[nodiscard]] attention_shape attention() const noexcept {
    auto const n = [](offset_t x) { return static_cast<index_t>(x); };
    return {n(batch), n(length), n(heads), n(kv_heads), n(head_dim)};
  }
  /// Heads [first, first + count) of a [T, qkv_rows] buffer.
  template <class T, space S>
  [[nodiscard]] view<T, 4, S> part(view<T, 2, S> qkv, offset_t first,
                                   offset_t count) const noexcept {
    return {qkv.data() + first * head_dim,
            {{batch, length, count, head_dim}},
            {{length * qkv_rows, qkv_rows, head_dim, 1}}};
  }
  template <class T, space S> [[nodiscard]] view<T, 4, S> heads_of(view<T, 2, S> x) const noexcept {
    return {x.data(), {{batch, length, heads, head_dim}}};
  }
};

template <space S>
[[nodiscard]] layer_options<swiglu, S> layer_options_of(block_options<S> const& o) noexcept {
  layer_options<swiglu, S> layer = o.layer;
  layer.hook = o.hook;
  layer.add_to_y = true;
  layer.accumulate = o.accumulate;
  return layer;
}

template <storage T, space S, class Group = one_process>
[[nodiscard]] auto carve_saved_block(arena<S>& from, block_sizes const& n,
                                     block_weights<T, S> const& w, block_options<S> const& o,
                                     Group const& group = {}) noexcept {
  using shunt::detail::carve;
  auto const tokens = static_cast<index_t>(n.tokens);
  auto const mixture = [&] {
    return group.carve_saved(from, tokens, w.experts, layer_options_of(o));
  };
  block_saved<T, S, decltype(mixture())> s;
  s.attention_inverse = carve<float, 1, S>(from, {{n.tokens}});
  s.feed_inverse = carve<float, 1, S>(from, {{n.tokens}});
  s.attention_in = carve<T, 2, S>(from, {{n.tokens, n.width}});
  s.qkv = carve<T, 2, S>(from, {{n.tokens, n.qkv_rows}});
  s.attended = carve<T, 2, S>(from, {{n.tokens, n.heads * n.head_dim}});
  s.log_sum = carve<float, 3, S>(from, {{n.batch, n.heads, n.length}});
  s.middle = carve<T, 2, S>(from, {{n.tokens, n.width}});
  s.feed_in = carve<T, 2, S>(from, {{n.tokens, n.width}});
  if (n.dense) {
    s.pre = carve<T, 2, S>(from, {{n.tokens, 2 * n.intermediate}});
  } else {
    s.experts = mixture();
  }
  return s;
}

template <class T, space S> struct block_scratch {
  view<T, 2, S> delta;             // [T,W] what the attention adds
  view<T, 2, S> act;               // dense: [T,I]
  view<index_t, 1, S> all_tokens;  // dense: one segment
  arena<S> own;                    // the primitives', one after another
};
template <storage T, class P, class Group = one_process>
[[nodiscard]] block_scratch<T, P::memory> carve_block(P const& on, arena<P::memory>& from,
                                                      block_sizes const& n,
                                                      block_weights<T, P::memory> const& w,
                                                      block_options<P::memory> const& o,
                                                      Group const& group = {}) noexcept {
  constexpr space S = P::memory;
  using shunt::detail::carve;
  block_scratch<T, S> s;
  s.delta = carve<T, 2, S>(from, {{n.tokens, n.width}});
  std::size_t own = attention_scratch_bytes(on, n.attention());
  std::size_t const cached = cache_attend_scratch_bytes(on, static_cast<index_t>(n.head_dim));
  if (cached > own) own = cached;
  if (n.dense) {
    s.act = carve<T, 2, S>(from, {{n.tokens, n.intermediate}});
    s.all_tokens = carve<index_t, 1, S>(from, {{2}});
  } else {
    std::size_t const layer =
        group.forward_bytes(on, static_cast<index_t>(n.tokens), w.experts, layer_options_of(o));
    if (layer > own) own = layer;
  }
  s.own = shunt::detail::carve_part(from, own);
  return s;
}

template <class T, space S> struct block_backward_scratch {
  view<T, 2, S> d_in, d_middle, d_attended, d_qkv;  // [T,W] [T,W] [T,heads D] [T,qkv]
  view<T, 2, S> d_act, act, d_pre;                  // dense: [T,I] [T,I] [T,2I]
  arena<S> own;
};
template <storage T, class P, class Group = one_process>
[[nodiscard]] block_backward_scratch<T, P::memory> carve_block_backward(
    P const& on, arena<P::memory>& from, block_sizes const& n, block_weights<T, P::memory> const& w,
    block_options<P::memory> const& o, Group const& group = {}) noexcept {
  constexpr space S = P::memory;
  using shunt::detail::carve;
  block_backward_scratch<T, S> s;
  s.d_in = carve<T, 2, S>(from, {{n.tokens, n.width}});
  s.d_middle = carve<T, 2, S>(from, {{n.tokens, n.width}});
  s.d_attended = carve<T, 2, S>(from, {{n.tokens, n.heads * n.head_dim}});
  s.d_qkv = carve<T, 2, S>(from, {{n.tokens, n.qkv_rows}});
  std::size_t own = attention_backward_scratch_bytes(on, n.attention());
  std::size_t const norm = rms_norm_backward_scratch_bytes(n.tokens, n.width);
  if (norm > own) own = norm;
  if (n.dense) {
    s.d_act = carve<T, 2, S>(from, {{n.tokens, n.intermediate}});
    s.act = carve<T, 2, S>(from, {{n.tokens, n.intermediate}});
    s.d_pre = carve<T, 2, S>(from, {{n.tokens, 2 * n.intermediate}});
  } else {
    std::size_t const layer =
        group.backward_bytes(on, static_cast<index_t>(n.tokens), w.experts, layer_options_of(o));
    if (layer > own) own = layer;
  }
  s.own = shunt::detail::carve_part(from, own);
  return s;
}

/// [B,S,W] without gaps, as rows of tokens.
template <class T, space S>
[[nodiscard]] status tokens_of(char const* name, view<T, 3, S> x, offset_t batch, offset_t length,
                               offset_t width) noexcept {
  if (status bad =
          first_of(check::rows(name, x), check::extent(name, 0, x.extent(0), batch, "sequences"),
                   check::extent(name, 1, x.extent(1), length, "tokens"),
                   check::extent(name, 2, x.extent(2), width, "width"));
      !bad.ok()) {
    return bad;
  }
  bool const dense =
      (length <= 1 || x.stride(1) == width) && (batch <= 1 || x.stride(0) == length * width);
  if (x.empty() || dense) return {};
  return status::fail(error::bad_shape, "%s has strides %lld, %lld; it must be without gaps", name,
                      static_cast<long long>(x.stride(0)), static_cast<long long>(x.stride(1)));
}
template <class T, space S> [[nodiscard]] view<T, 2, S> flat_tokens(view<T, 3, S> x) noexcept {
  return {x.data(), {{x.extent(0) * x.extent(1), x.extent(2)}}};
}

template <class T, space S>
[[nodiscard]] status check_block(char const* who, block_sizes const& n,
                                 block_weights<T, S> const& w) noexcept {
  if (n.heads < 1 || n.kv_heads < 1 || n.heads % n.kv_heads != 0 || n.head_dim < 1) {
    return status::fail(error::bad_argument,
                        "%s: %lld heads and %lld key/value heads over rows of %lld; the first must "
                        "be a multiple of the second and divide the third",
                        who, static_cast<long long>(n.heads), static_cast<long long>(n.kv_heads),
                        static_cast<long long>(w.out.extent(1)));
  }
  if (status bad = first_of(
          check::rows("block.weights.attention_norm", w.attention_norm),
          check::extent("block.weights.attention_norm", 0, w.attention_norm.extent(0), n.width,
                        "width"),
          check::rows("block.weights.feed_norm", w.feed_norm),
          check::extent("block.weights.feed_norm", 0, w.feed_norm.extent(0), n.width, "width"),
          check::rows("block.weights.qkv", w.qkv),
          check::extent("block.weights.qkv", 0, w.qkv.extent(0), n.qkv_rows,
                        "heads and twice the key/value heads, times the head width"),
          check::rows("block.weights.out", w.out),
          check::extent("block.weights.out", 0, w.out.extent(0), n.width, "width"),
          check::extent("block.weights.out", 1, w.out.extent(1), n.heads * n.head_dim,
                        "heads times the head width"));
      !bad.ok()) {
    return bad;
  }
  if (!n.dense) return {};
  return first_of(check::rows("block.weights.up", w.up),
                  check::extent("block.weights.up", 0, w.up.extent(0), 2 * n.intermediate,
                                "twice the columns of down"),
                  check::extent("block.weights.up", 1, w.up.extent(1), n.width, "width"),
                  check::rows("block.weights.down", w.down),
                  check::extent("block.weights.down", 0, w.down.extent(0), n.width, "width"));
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
