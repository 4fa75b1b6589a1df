#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/block.hpp"
#include "shunt/nn/detail/block_backward.hpp"
#include "shunt/nn/detail/block_types.hpp"
#include "shunt/nn/linear.hpp"
#include "shunt/nn/norm.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// y holds the residual; the feed-forward of `in` is added to it.
template <class P, storage T>
[[nodiscard]] bool dense_forward(P const& on, block_weights<T, P::memory> const& w,
                                 std::type_identity_t<view<T const, 2, P::memory>> in,
                                 std::type_identity_t<view<T, 2, P::memory>> pre,
                                 block_scratch<T, P::memory> const& s,
                                 std::type_identity_t<view<T, 2, P::memory>> y,
                                 stages& step) noexcept {
  expert_matrix<T, P::memory> const up(shunt::detail::stack_of_one(w.up), pair_layout{});
  return step("dense", block_backend<P>::one_segment(on, s.all_tokens, in.extent(0))) &&
         step("dense", grouped_gemm(on, in, up, {s.all_tokens}, s.act, swiglu{},
                                    {.pre = pre, .round_pre = true})) &&
         step("dense", linear(on, s.act, w.down, y, {.accumulate = true}));
}

/// [B,S,heads,D] without gaps between sequences as [1,B·S,heads,D].
template <class T, space S> [[nodiscard]] view<T, 4, S> as_one_sequence(view<T, 4, S> x) noexcept {
  return {x.data(),
          {{1, x.extent(0) * x.extent(1), x.extent(2), x.extent(3)}},
          {{x.extent(0) * x.stride(0), x.stride(1), x.stride(2), x.stride(3)}}};
}

/// a = attention(norm(x)): from x to what is added to it. With a cache, over what it holds too.
template <class P, storage T, class Kept>
[[nodiscard]] bool attend(P const& on, block_sizes const& n,
                          std::type_identity_t<view<T const, 2, P::memory>> x,
                          block_weights<T, P::memory> const& w,
                          rotary_table<P::memory> const& table, Kept const& keep,
                          kv_cache<T, P::memory> const* cache,
                          token_positions<P::memory> const& first_position,
                          block_scratch<T, P::memory> const& s, block_options<P::memory> const& o,
                          stages& step) noexcept {
  auto const q = n.part(keep.qkv, 0, n.heads), k = n.part(keep.qkv, n.heads, n.kv_heads),
             v = n.part(keep.qkv, n.heads + n.kv_heads, n.kv_heads);
  auto const out = n.heads_of(keep.attended);
  // Where sequences have positions of their own, the table has a row for each token of each.
  auto const turned = [&](view<T, 4, P::memory> const& vectors) {
    return first_position.per_sequence() ? as_one_sequence(vectors) : vectors;
  };
  bool done = step("norm", rms_norm(on, x, w.attention_norm, keep.attention_in,
                                    keep.attention_inverse, {.epsilon = o.norm_epsilon})) &&
              step("projection", linear(on, keep.attention_in, w.qkv, keep.qkv)) &&
              step("rotary", rotary(on, turned(q), table, {.pairs = o.pairs})) &&
              step("rotary", rotary(on, turned(k), table, {.pairs = o.pairs}));
  if (cache == nullptr) {
    done = done && step("attention", attention(on, q, k, v, out, keep.log_sum, s.own));
  } else {
    done = done && step("attention", cache_append(on, k, v, *cache, first_position)) &&
           step("attention", cache_attend(on, q, *cache, first_position, out, s.own));
  }
  return done && step("projection", linear(on, keep.attended, w.out, s.delta));
}

template <class P, storage T, class Kept, class Group = one_process>
[[nodiscard]] status block_forward(
    P const& on, block_sizes const& n, std::type_identity_t<view<T const, 2, P::memory>> x,
    block_weights<T, P::memory> const& w, rotary_table<P::memory> const& table,
    std::type_identity_t<view<T, 2, P::memory>> y, Kept const& keep,
    kv_cache<T, P::memory> const* cache, token_positions<P::memory> const& first_position,
    std::type_identity_t<moe_outputs<T, P::memory>> const& outputs,
    block_scratch<T, P::memory> const& s, block_options<P::memory> const& o,
    Group const& group = {}) noexcept {
  stages step(o.hook);
  bool const done =
      attend<P, T>(on, n, x, w, table, keep, cache, first_position, s, o, step) &&
      step("norm", rms_norm_add(on, x, s.delta, keep.middle, w.feed_norm, keep.feed_in,
                                keep.feed_inverse, {.epsilon = o.norm_epsilon})) &&
      step("norm", block_backend<P>::template copy_rows<T>(on, keep.middle, y));
  if (!done) return step.outcome();
  if (n.dense) {
    (void)dense_forward<P, T>(on, w, keep.feed_in, keep.pre, s, y, step);
    return step.outcome();
  }
  status const done_feeding = group.mixture(on, keep.feed_in, w.experts, y, outputs, keep.experts,
                                            s.own, layer_options_of(o));
  if (done_feeding.ok() && o.layer.valid.data() != nullptr) {
    // The layer gives padding a zero output; the block, its residual.
    return block_backend<P>::template copy_unmarked_rows<T>(on, o.layer.valid, keep.middle, y);
  }
  return done_feeding;
}

}  // namespace detail

/// Bytes of a block_saved for B sequences of S tokens, and the block_saved itself in memory of the
/// caller's: one for each block and micro-batch in flight.
template <storage T, space S>
[[nodiscard]] std::size_t block_saved_bytes(index_t batch, index_t length,
                                            block_weights<T, S> const& weights,
                                            block_options<S> const& options) noexcept {
  auto from = arena<S>::measuring();
  (void)detail::carve_saved_block(from, {batch, length, weights, options}, weights, options);
  return from.needed();
}
/// What forward keeps, carved from the caller's bytes.
template <storage T, space S>
[[nodiscard]] block_saved<T, S> carve_block_saved(arena<S>& from, index_t batch, index_t length,
                                                  block_weights<T, S> const& weights,
                                                  block_options<S> const& options) noexcept {
  return detail::carve_saved_block(from, {batch, length, weights, options}, weights, options);
}

/// Scratch of block() and of block_backward().
template <execution P, storage T>
[[nodiscard]] std::size_t block_scratch_bytes(P const& on, index_t batch, index_t length,
                                              block_weights<T, P::memory> const& weights,
                                              block_options<P::memory> const& options) noexcept {
  auto from = arena<P::memory>::measuring();
  (void)detail::carve_block(on, from, {batch, length, weights, options}, weights, options);
  return from.needed();
}
/// Scratch of block_backward() for B sequences of S tokens.
template <execution P, storage T>
[[nodiscard]] std::size_t block_backward_scratch_bytes(
    P const& on, index_t batch, index_t length, block_weights<T, P::memory> const& weights,
    block_options<P::memory> const& options) noexcept {
  auto from = arena<P::memory>::measuring();
  (void)detail::carve_block_backward(on, from, {batch, length, weights, options}, weights, options);
  return from.needed();
}

/// A transformer block: m = x + Wo·attention(rotary(Wqkv·norm(x))), y = m + feed(norm(m)), feed a
/// mixture of experts or a dense SwiGLU network.
/// Shapes   x, y [B,S,W] without gaps · table [positions ≥ S, pairs ≤ D/2] · saved for B, S · outputs as
///          the layer's; its `saved` is ignored: block_saved has it
/// Types    x, y and all weights of one storage type; arithmetic as the primitives'
/// Order    the primitives', one after another: the same bits on any thread count and ISA; a token's
///          bits do not depend on later tokens or other sequences
/// Aliasing y shares no memory with x
/// Errors   extents that do not fit, arena too small (says how much)
/// Cost     its five products and the layer's; scratch block_scratch_bytes(); allocates nothing
/// Source   Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020 (norm
///          before); Touvron et al., "LLaMA", 2023 (RMS norm, rotary, SwiGLU)
template <execution P, input<P, 3> X, storage T, output<P, 3> Y>
[[nodiscard]] status block(P const& on, X&& x_in, block_weights<T, P::memory> const& weights,
                           rotary_table<P::memory> const& table, Y&& y_in,
                           block_saved<T, P::memory> const& saved,
                           std::type_identity_t<moe_outputs<T, P::memory>> const& outputs,
                           std::type_identity_t<arena<P::memory>> work,
                           block_options<P::memory> const& options) noexcept {
  view<T const, 3, P::memory> const x = as_input<P, 3>(x_in);
  view<T, 3, P::memory> const y = as_output<P, 3>(y_in);
  offset_t const batch = x.extent(0), length = x.extent(1);
  detail::block_sizes const n(batch, length, weights, options);
  auto const scratch = detail::carve_block(on, work, n, weights, options);
  if (status bad = first_of(check::policy(on), detail::check_block("block", n, weights),
                            detail::tokens_of("block.x", x, batch, length, n.width),
                            detail::tokens_of("block.y", y, batch, length, n.width),
                            check::apart("block.y", y, "block.x", x), work.check("block.work"));
      !bad.ok()) {
    return bad;
  }
  return detail::block_forward<P, T>(on, n, detail::flat_tokens(x), weights, table,
                                     detail::flat_tokens(y), saved, nullptr, 0, outputs, scratch,
                                     options);
}

/// The same where the layer's other outputs are not wanted.
template <execution P, input<P, 3> X, storage T, output<P, 3> Y>
[[nodiscard]] status block(P const& on, X&& x, block_weights<T, P::memory> const& weights,
                           rotary_table<P::memory> const& table, Y&& y,
                           block_saved<T, P::memory> const& saved,
                           std::type_identity_t<arena<P::memory>> work,
                           block_options<P::memory> const& options) noexcept {
  return block(on, x, weights, table, y, saved, {}, work, options);
}

/// The block over new tokens of each sequence, at positions first_position …, with what the cache
/// holds of the earlier ones. `table` starts at first_position. The bits of block() over the whole.
/// Shapes   x, y [B,N,W] · saved: memory for B, N, overwritten (nothing is kept) · first_position a
///          number, or [1] or [B] numbers in memory, read when the kernels run · table as rotary_fill
///          makes it from first_position: [N, pairs], or [B·N, pairs] where that has B numbers
/// Errors   as block(), no room in the cache. A sequence whose position read from memory leaves no room
///          is left out of the cache, and its tokens attend to nothing.
template <execution P, input<P, 3> X, storage T, output<P, 3> Y>
[[nodiscard]] status block_decode(P const& on, X&& x_in, block_weights<T, P::memory> const& weights,
                                  rotary_table<P::memory> const& table,
                                  kv_cache<T, P::memory> const& cache,
                                  std::type_identity_t<token_positions<P::memory>> first_position,
                                  Y&& y_in, block_saved<T, P::memory> const& saved,
                                  std::type_identity_t<moe_outputs<T, P::memory>> const& outputs,
                                  std::type_identity_t<arena<P::memory>> work,
                                  block_options<P::memory> const& options) noexcept {
  view<T const, 3, P::memory> const x = as_input<P, 3>(x_in);
  view<T, 3, P::memory> const y = as_output<P, 3>(y_in);
  offset_t const batch = x.extent(0), length = x.extent(1);
  detail::block_sizes const n(batch, length, weights, options);
  auto const scratch = detail::carve_block(on, work, n, weights, options);
  if (status bad =
          first_of(check::policy(on), detail::check_block("block_decode", n, weights),
                   detail::tokens_of("block_decode.x", x, batch, length, n.width),
                   detail::tokens_of("block_decode.y", y, batch, length, n.width),
                   check::apart("block_decode.y", y, "block_decode.x", x),
                   detail::cache_fits("block_decode", cache, batch, length, first_position),
                   work.check("block_decode.work"));
      !bad.ok()) {
    return bad;
  }
  return detail::block_forward<P, T>(on, n, detail::flat_tokens(x), weights, table,
                                     detail::flat_tokens(y), saved, &cache, first_position, outputs,
                                     scratch, options);
}

/// The same where the layer's other outputs are not wanted.
template <execution P, input<P, 3> X, storage T, output<P, 3> Y>
[[nodiscard]] status block_decode(P const& on, X&& x, block_weights<T, P::memory> const& weights,
                                  rotary_table<P::memory> const& table,
                                  kv_cache<T, P::memory> const& cache,
                                  std::type_identity_t<token_positions<P::memory>> first_position,
                                  Y&& y, block_saved<T, P::memory> const& saved,
                                  std::type_identity_t<arena<P::memory>> work,
                                  block_options<P::memory> const& options) noexcept {
  return block_decode(on, x, weights, table, cache, first_position, y, saved, {}, work, options);
}

/// The gradients of block(): d_x from d_y, and those of the weights.
/// Shapes   x, d_y, d_x [B,S,W] without gaps · gradients as the weights
/// Order, Errors as block(); scratch block_backward_scratch_bytes()
/// Aliasing d_x may be d_y, exactly; otherwise none
template <execution P, input<P, 3> X, storage T, input<P, 3> DY, output<P, 3> DX>
[[nodiscard]] status block_backward(P const& on, X&& x_in,
                                    block_weights<T, P::memory> const& weights,
                                    rotary_table<P::memory> const& table,
                                    block_saved<T, P::memory> const& saved, DY&& d_y_in,
                                    DX&& d_x_in, block_gradients<P::memory> const& gradients,
                                    std::type_identity_t<arena<P::memory>> work,
                                    block_options<P::memory> const& options) noexcept {
  constexpr space S = P::memory;
  view<T const, 3, S> const x_all = as_input<P, 3>(x_in), d_y_all = as_input<P, 3>(d_y_in);
  view<T, 3, S> const d_x_all = as_output<P, 3>(d_x_in);
  offset_t const batch = x_all.extent(0), length = x_all.extent(1);
  detail::block_sizes const n(batch, length, weights, options);
  auto const s = detail::carve_block_backward(on, work, n, weights, options);
  if (status bad =
          first_of(check::policy(on), detail::check_block("block_backward", n, weights),
                   detail::tokens_of("block_backward.x", x_all, batch, length, n.width),
                   detail::tokens_of("block_backward.d_y", d_y_all, batch, length, n.width),
                   detail::tokens_of("block_backward.d_x", d_x_all, batch, length, n.width),
                   check::apart("block_backward.d_x", d_x_all, "block_backward.x", x_all),
                   work.check("block_backward.work"));
      !bad.ok()) {
    return bad;
  }
  return detail::block_gradients_of<P, T>(
      on, n, detail::flat_tokens(x_all), weights, table, saved, detail::flat_tokens(d_y_all),
      detail::flat_tokens(d_x_all), gradients, s, options, detail::one_process{});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
