#pragma once
#include "shunt/nn/block.hpp"
#include "shunt/nn/cross_entropy.hpp"
#include "shunt/nn/detail/model_parts.hpp"
#include "shunt/nn/detail/model_types.hpp"
#include "shunt/nn/embedding.hpp"
#include "shunt/nn/optimizer.hpp"

/// What the model's functions are made of: scratch, checks, the way from tokens to the loss.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <class T, space S> struct model_scratch {
  view<index_t, 1, S> input, target;  // [T]
  view<std::uint8_t, 1, S> valid;     // [T]
  rotary_table<S> table;
  T* stream = nullptr;  // [layers + 1][T,W] when training, else two in turn
  offset_t stream_step = 0, streams = 0;
  view<T, 2, S> last;                  // [T,W] after the last norm
  view<float, 1, S> inverse;           // [T]
  view<T, 2, S> d_stream, d_last;      // [T,W] training
  view<float, 1, S> loss, token_loss;  // [1] [T]
  std::byte* saved = nullptr;          // a block_saved a layer when training, else one
  std::size_t saved_each = 0;
  bool training = false;
  arena<S> own;  // the primitives', one after another

  [[nodiscard]] view<T, 3, S> stream_at(offset_t n, offset_t batch, offset_t length,
                                        offset_t width) const noexcept {
    return {stream + n % streams * stream_step, {{batch, length, width}}};
  }
  [[nodiscard]] arena<S> saved_at(offset_t n) const noexcept {
    return {saved + (training ? n : 0) * static_cast<offset_t>(saved_each), saved_each};
  }
};

/// `tables`: sequences that have positions of their own, each with its rows of rotary's table.
template <storage T, class P, class Group = one_process>
[[nodiscard]] model_scratch<T, P::memory> carve_model(P const& on, arena<P::memory>& from,
                                                      model_config const& c, offset_t batch,
                                                      offset_t length, bool training,
                                                      offset_t tables = 1,
                                                      Group const& group = {}) noexcept {
  constexpr space S = P::memory;
  using shunt::detail::carve;
  using shunt::detail::carve_part;
  offset_t const tokens = batch * length, w = c.width;
  model_scratch<T, S> s;
  s.input = carve<index_t, 1, S>(from, {{tokens}});
  s.target = carve<index_t, 1, S>(from, {{tokens}});
  s.valid = carve<std::uint8_t, 1, S>(from, {{tokens}});
  s.table.cosine = carve<float, 2, S>(from, {{tables * length, c.head_dim() / 2}});
  s.table.sine = carve<float, 2, S>(from, {{tables * length, c.head_dim() / 2}});
  s.streams = training ? c.layers + 1 : 2;
  s.stream_step = tokens * w;
  s.stream = from.template take<T>(s.streams * s.stream_step);
  s.last = carve<T, 2, S>(from, {{tokens, w}});
  s.inverse = carve<float, 1, S>(from, {{tokens}});
  s.loss = carve<float, 1, S>(from, {{1}});
  s.token_loss = carve<float, 1, S>(from, {{tokens}});
  if (training) {
    s.d_stream = carve<T, 2, S>(from, {{tokens, w}});
    s.d_last = carve<T, 2, S>(from, {{tokens, w}});
  }
  auto const nowhere = weights_nowhere<T, S>(c);
  auto const weights =
      c.layers > 0 ? layer_weights<T, S>(c, 0, nowhere, {}) : block_weights<T, S>{};
  auto const options = block_options_of<S>(c, {}, training, {});
  std::size_t own = cross_entropy_scratch_bytes(tokens, c.vocabulary);
  auto const at_least = [&own](std::size_t n) { own = n > own ? n : own; };
  if (training) {
    at_least(rms_norm_backward_scratch_bytes(tokens, w));
    at_least(gradient_norm_scratch_bytes(model_layout(c).count));
  }
  if (c.layers > 0) {
    block_sizes const n(batch, length, weights, options);
    auto const bytes = [&](auto const& carve_it) {
      auto counting = arena<S>::measuring();
      (void)carve_it(counting);
      return counting.needed();
    };
    s.saved_each = bytes([&](auto& a) { return carve_saved_block(a, n, weights, options, group); });
    at_least(bytes([&](auto& a) { return carve_block(on, a, n, weights, options, group); }));
    if (training) {
      at_least(
          bytes([&](auto& a) { return carve_block_backward(on, a, n, weights, options, group); }));
    }
  }
  s.training = training;
  s.saved = from.template take<std::byte>(static_cast<offset_t>(s.saved_each) *
                                          (training ? c.layers : 1));
  s.own = carve_part(from, own);
  return s;
}

template <class P, storage T>
[[nodiscard]] status check_model(P const& on, char const* who, model_config const& c,
                                 model_weights<T, P::memory> const& weights,
                                 view<index_t const, 2, P::memory> tokens, offset_t least,
                                 offset_t most) noexcept {
  if (status bad = first_of(check::policy(on), check_config(c)); !bad.ok()) return bad;
  if (status bad = first_of(check::rows("model_weights.values", weights.values),
                            check::extent("model_weights.values", 0, weights.values.extent(0),
                                          model_layout(c).count, "parameter_count"),
                            check::memory("model.tokens", tokens),
                            check::between("model.tokens: extent 1", tokens.extent(1), least, most),
                            check::fits_index("model.tokens, sequences by tokens,",
                                              tokens.extent(0), tokens.extent(1)));
      !bad.ok()) {
    return bad;
  }
  if (weights.choice_bias.data() != nullptr) {
    if (status bad = first_of(check::rows("model_weights.choice_bias", weights.choice_bias),
                              check::extent("model_weights.choice_bias", 0,
                                            weights.choice_bias.extent(0), c.layers, "layers"),
                              check::extent("model_weights.choice_bias", 1,
                                            weights.choice_bias.extent(1), c.experts, "experts"));
        !bad.ok()) {
      return bad;
    }
  }
  if constexpr (P::memory == space::host) {  // what a device holds is not read here
    for (offset_t i = 0; i < tokens.size(); ++i) {
      offset_t const b = i / tokens.extent(1), s = i % tokens.extent(1);
      if (tokens(b, s) < c.vocabulary) continue;
      return status::fail(error::bad_argument,
                          "%s.tokens: entry %lld, %lld is %d; it must be below %d (negative: none)",
                          who, static_cast<long long>(b), static_cast<long long>(s), tokens(b, s),
                          c.vocabulary);
    }
  }
  return {};
}

template <space S>
[[nodiscard]] status check_report(model_report<S> const& r, model_config const& c, offset_t batch,
                                  offset_t length) noexcept {
  if (r.loss.data() != nullptr) {
    if (status bad = check::extent("model_report.loss", 0, r.loss.extent(0), 1, "one number");
        !bad.ok()) {
      return bad;
    }
  }
  if (r.token_loss.data() != nullptr) {
    if (status bad = first_of(
            check::rows("model_report.token_loss", r.token_loss),
            check::extent("model_report.token_loss", 0, r.token_loss.extent(0), batch, "sequences"),
            check::extent("model_report.token_loss", 1, r.token_loss.extent(1), length, "targets"));
        !bad.ok()) {
      return bad;
    }
  }
  if (r.counts.data() == nullptr) return {};
  return first_of(
      check::rows("model_report.counts", r.counts),
      check::extent("model_report.counts", 0, r.counts.extent(0), c.layers, "layers"),
      check::extent("model_report.counts", 1, r.counts.extent(1), c.experts, "experts"));
}

/// What layer n writes in addition to its stream: its counts, where they are wanted.
template <class T, space S>
[[nodiscard]] moe_outputs<T, S> outputs_of_layer(model_config const& c,
                                                 model_report<S> const& report, int n) noexcept {
  moe_outputs<T, S> out;
  if (report.counts.data() != nullptr && !c.dense) out.route.counts = report.counts[n];
  return out;
}

/// From tokens to the normalized stream, keeping what backward needs when training.
template <class P, storage T, class Group = one_process>
[[nodiscard]] status run_blocks(P const& on, model_config const& c,
                                model_weights<T, P::memory> const& weights, offset_t batch,
                                offset_t length, token_positions<P::memory> const& first_position,
                                model_cache<T, P::memory> const* cache,
                                model_scratch<T, P::memory> const& s,
                                block_options<P::memory> const& options,
                                model_report<P::memory> const& report,
                                Group const& group = {}) noexcept {
  constexpr space S = P::memory;
  stages step(report.hook);
  offset_t const w = c.width;
  if (!step("rotary", rotary_fill(on, s.table, c.rotary_base, first_position)) ||
      !step("embedding",
            embedding(on, embedding_of(c, weights.values), view<index_t const, 1, S>(s.input),
                      flat_tokens(s.stream_at(0, batch, length, w))))) {
    return step.outcome();
  }
  for (int n = 0; n < c.layers; ++n) {
    auto const layer = layer_weights<T, S>(c, n, weights.values, weights.choice_bias);
    auto const out = outputs_of_layer<T, S>(c, report, n);
    arena<S> memory = s.saved_at(n);
    block_sizes const sizes(batch, length, layer, options);
    auto const mine = carve_saved_block(memory, sizes, layer, options, group);
    arena<S> own = s.own;
    auto const scratch = carve_block(on, own, sizes, layer, options, group);
    auto const x = s.stream_at(n, batch, length, w), y = s.stream_at(n + 1, batch, length, w);
    kv_cache<T, S> part{nullptr, 0, 0, c.kv_heads, c.head_dim()};
    if (cache != nullptr) {
      part.batch = cache->batch;
      part.capacity = cache->capacity;
      part.memory = cache->memory.data() + n * part.elements();
    }
    status const bad = block_forward<P, T>(on, sizes, flat_tokens(x), layer, s.table,
                                           flat_tokens(y), mine, cache == nullptr ? nullptr : &part,
                                           first_position, out, scratch, options, group);
    if (!bad.ok()) return bad;
  }
  (void)step("norm", rms_norm(on, flat_tokens(s.stream_at(c.layers, batch, length, w)),
                              last_norm_of(c, weights.values), s.last, s.inverse,
                              {.epsilon = c.norm_epsilon}));
  return step.outcome();
}

/// The loss of the stream, and its gradients when training.
template <class P, storage T, class Group = one_process>
[[nodiscard]] status run_head(P const& on, model_config const& c,
                              model_weights<T, P::memory> const& weights,
                              model_scratch<T, P::memory> const& s,
                              view<float, 1, P::memory> gradients,
                              model_report<P::memory> const& report,
                              model_train_options const& options,
                              Group const& group = {}) noexcept {
  cross_entropy_out<T, P::memory> out{.mean = report.loss.data() != nullptr ? report.loss : s.loss,
                                      .loss = s.token_loss};
  if (s.training) {
    out.d_x = s.d_last;
    out.d_weight = head_of(c, gradients);
  }
  using memory = view<float const, 2, P::memory>;
  stages step(report.hook);
  if (step("head", group.head(on, s.last, head_of(c, weights.values),
                              view<index_t const, 1, P::memory>(s.target), out, s.own,
                              cross_entropy_options{.accumulate = options.accumulate,
                                                    .divisor = options.divisor})) &&
      report.token_loss.data() != nullptr) {
    memory const loss(s.token_loss.data(), report.token_loss.extents());
    (void)step("head", block_backend<P>::template copy_rows<float>(on, loss, report.token_loss));
  }
  return step.outcome();
}

/// From the loss's gradient at the end of the stream to those of all parameters.
template <class P, storage T, class Group>
[[nodiscard]] status run_backward(P const& on, model_config const& c,
                                  model_weights<T, P::memory> const& weights, offset_t batch,
                                  offset_t length, model_scratch<T, P::memory> const& s,
                                  view<float, 1, P::memory> gradients,
                                  block_options<P::memory> const& how,
                                  Group const& group) noexcept {
  constexpr space S = P::memory;
  stages step(how.hook);
  auto const stream = [&](offset_t n) {
    return flat_tokens(s.stream_at(n, batch, length, c.width));
  };
  bool done =
      step("norm", group.norm_backward(on, stream(c.layers), last_norm_of(c, weights.values),
                                       s.inverse, s.d_last, s.d_stream, last_norm_of(c, gradients),
                                       s.own, {.accumulate = how.accumulate}));
  for (int n = c.layers - 1; done && n >= 0; --n) {
    auto const layer = layer_weights<T, S>(c, n, weights.values, weights.choice_bias);
    block_sizes const sizes(batch, length, layer, how);
    arena<S> memory = s.saved_at(n), own = s.own;
    auto const mine = carve_saved_block(memory, sizes, layer, how, group);
    auto const scratch = carve_block_backward(on, own, sizes, layer, how, group);
    if (status bad = block_gradients_of<P, T>(
            on, sizes, stream(n), layer, s.table, mine, s.d_stream, s.d_stream,
            layer_gradients<S>(c, n, gradients), scratch, how, group);
        !bad.ok()) {
      return bad;
    }
  }
  done = done && step("embedding", group.table_gradient(
                                       on, s.d_stream, view<index_t const, 1, S>(s.input),
                                       embedding_of(c, gradients), how.accumulate || c.tied_head));
  return step.outcome();
}

}  // namespace detail

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
