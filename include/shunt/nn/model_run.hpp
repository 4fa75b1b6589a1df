#pragma once
#include <cstring>

// The functions that model.hpp declares. Include that.
#include "shunt/nn/model.hpp"

namespace shunt::nn {
inline namespace SHUNT_HOST_ABI {
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

template <storage T, class P>
[[nodiscard]] model_scratch<T, P::memory> carve_model(P const& on, arena<P::memory>& from,
                                                      model_config const& c, offset_t batch,
                                                      offset_t length, bool training) noexcept {
  constexpr space S = P::memory;
  using shunt::detail::carve;
  using shunt::detail::carve_part;
  offset_t const tokens = batch * length, w = c.width;
  auto const b = static_cast<index_t>(batch), l = static_cast<index_t>(length);
  model_scratch<T, S> s;
  s.input = carve<index_t, 1, S>(from, {{tokens}});
  s.target = carve<index_t, 1, S>(from, {{tokens}});
  s.valid = carve<std::uint8_t, 1, S>(from, {{tokens}});
  s.table.cosine = carve<float, 2, S>(from, {{length, c.head_dim() / 2}});
  s.table.sine = carve<float, 2, S>(from, {{length, c.head_dim() / 2}});
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
  std::size_t own = cross_entropy_bytes(tokens, c.vocabulary);
  auto const at_least = [&own](std::size_t n) { own = n > own ? n : own; };
  if (training) {
    at_least(rms_norm_backward_bytes(tokens, w));
    at_least(gradient_norm_bytes(model_layout(c).count));
  }
  if (c.layers > 0) {
    s.saved_each = block_saved_bytes(b, l, weights, options);
    at_least(block_bytes(on, b, l, weights, options));
    if (training) at_least(block_backward_bytes(on, b, l, weights, options));
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
  for (offset_t b = 0; b < tokens.extent(0); ++b) {
    for (offset_t s = 0; s < tokens.extent(1); ++s) {
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

/// The options of layer n: its counts are reported where they are wanted.
template <space S>
[[nodiscard]] block_options<S> options_of_layer(block_options<S> options, model_config const& c,
                                                model_report<S> const& report, int n) noexcept {
  if (report.counts.data() != nullptr && !c.dense) options.layer.observe.counts = report.counts[n];
  return options;
}

/// From tokens to the normalised stream, keeping what backward needs when training.
template <class P, storage T>
[[nodiscard]] status run_blocks(P const& on, model_config const& c,
                                model_weights<T, P::memory> const& weights, offset_t batch,
                                offset_t length, index_t first_position,
                                model_cache<T, P::memory> const* cache,
                                model_scratch<T, P::memory> const& s,
                                block_options<P::memory> const& options,
                                model_report<P::memory> const& report) noexcept {
  constexpr space S = P::memory;
  steps step(report.hook);
  offset_t const w = c.width;
  if (!step("rotary", rotary_fill(on, s.table, c.rotary_base, first_position)) ||
      !step("embedding",
            embedding(on, embedding_of(c, weights.values), view<index_t const, 1, S>(s.input),
                      flat_tokens(s.stream_at(0, batch, length, w))))) {
    return step.outcome();
  }
  for (int n = 0; n < c.layers; ++n) {
    auto const layer = layer_weights<T, S>(c, n, weights.values, weights.choice_bias);
    auto const how = options_of_layer(options, c, report, n);
    arena<S> memory = s.saved_at(n);
    auto const mine = carve_block_saved(memory, static_cast<index_t>(batch),
                                        static_cast<index_t>(length), layer, how);
    auto const x = s.stream_at(n, batch, length, w), y = s.stream_at(n + 1, batch, length, w);
    status bad;
    if (cache == nullptr) {
      bad = block(on, x, layer, s.table, y, mine, s.own, how);
    } else {
      kv_cache<T, S> part{nullptr, cache->batch, cache->capacity, c.kv_heads, c.head_dim()};
      part.memory = cache->memory.data() + n * part.elements();
      bad = block_decode(on, x, layer, s.table, part, first_position, y, mine, s.own, how);
    }
    if (!bad.ok()) return bad;
  }
  (void)step("norm", rms_norm(on, flat_tokens(s.stream_at(c.layers, batch, length, w)),
                              last_norm_of(c, weights.values), s.last, s.inverse,
                              {.epsilon = c.norm_epsilon}));
  return step.outcome();
}

/// The loss of the stream, and its gradients when training.
template <class P, storage T>
[[nodiscard]] status run_head(P const& on, model_config const& c,
                              model_weights<T, P::memory> const& weights,
                              model_scratch<T, P::memory> const& s,
                              view<float, 1, P::memory> gradients,
                              model_report<P::memory> const& report,
                              model_train_options const& options) noexcept {
  cross_entropy_out<T, P::memory> out{.mean = report.loss.data() != nullptr ? report.loss : s.loss,
                                      .loss = s.token_loss};
  if (s.training) {
    out.d_x = s.d_last;
    out.d_weight = head_of(c, gradients);
  }
  steps step(report.hook);
  if (step("head", cross_entropy(on, s.last, head_of(c, weights.values),
                                 view<index_t const, 1, P::memory>(s.target), out, s.own,
                                 {.accumulate = options.accumulate, .divisor = options.divisor})) &&
      report.token_loss.data() != nullptr) {
    offset_t const length = report.token_loss.extent(1);
    for (offset_t b = 0; b < report.token_loss.extent(0); ++b) {
      for (offset_t i = 0; i < length; ++i) {
        report.token_loss(b, i) = s.token_loss[b * length + i];
      }
    }
  }
  return step.outcome();
}

}  // namespace detail

template <execution P>
status model_init(P const& on, model_config const& config, view<float, 1, P::memory> values,
                  std::uint64_t seed) noexcept {
  if (status bad = first_of(check::policy(on), check_config(config)); !bad.ok()) return bad;
  if (status bad = first_of(check::rows("model_init.values", values),
                            check::extent("model_init.values", 0, values.extent(0),
                                          detail::model_layout(config).count, "parameter_count"));
      !bad.ok()) {
    return bad;
  }
  double const shrink = 1.0 / __builtin_sqrt(config.layers > 0 ? 2.0 * config.layers : 1.0);
  for_each_parameter(config, [&](model_parameter const& p) {
    auto const part = values.slice(p.offset, p.size());
    std::size_t const length = std::strlen(p.name);
    auto const ends = [&](char const* tail) {
      std::size_t const n = std::strlen(tail);
      return length >= n && std::strcmp(p.name + length - n, tail) == 0;
    };
    if (!p.decays) {
      host::fill_with(on, part, 1.0f);
    } else {
      host::fill_normal(on, part, seed, p.offset,
                        ends(".out") || ends(".down") ? 0.02 * shrink : 0.02);
    }
  });
  return {};
}

template <storage T>
std::size_t model_train_bytes(on_host const& on, model_config const& config, index_t batch,
                              index_t length) noexcept {
  auto from = arena<>::measuring();
  if (!check_config(config).ok()) return 0;
  (void)detail::carve_model<T>(on, from, config, batch, length, true);
  return from.needed();
}
template <storage T>
std::size_t model_evaluate_bytes(on_host const& on, model_config const& config, index_t batch,
                                 index_t length) noexcept {
  auto from = arena<>::measuring();
  if (!check_config(config).ok()) return 0;
  (void)detail::carve_model<T>(on, from, config, batch, length, false);
  return from.needed();
}
template <storage T>
std::size_t model_decode_bytes(on_host const& on, model_config const& config, index_t batch,
                               index_t tokens) noexcept {
  return model_evaluate_bytes<T>(on, config, batch, tokens);
}

template <storage T, execution P>
status model_train(P const& on, model_config const& config,
                   model_weights<T, P::memory> const& weights,
                   view<index_t const, 2, P::memory> tokens, view<float, 1, P::memory> gradients,
                   model_report<P::memory> const& report, arena<P::memory> work,
                   model_train_options const& options) noexcept {
  constexpr space S = P::memory;
  if (status bad = detail::check_model(on, "model_train", config, weights, tokens, 1,
                                       offset_t{config.context} + 1);
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1) - 1;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, true);
  if (status bad = first_of(check::rows("model_train.gradients", gradients),
                            check::extent("model_train.gradients", 0, gradients.extent(0),
                                          detail::model_layout(config).count, "parameter_count"),
                            detail::check_report(report, config, batch, length),
                            work.check("model_train.work"));
      !bad.ok()) {
    return bad;
  }
  host::split_tokens(tokens, s.input.data(), s.target.data(), s.valid.data());
  auto how = detail::block_options_of<S>(config, s.valid, true, report.hook);
  how.accumulate = options.accumulate;
  if (status bad =
          detail::run_blocks<P, T>(on, config, weights, batch, length, 0, nullptr, s, how, report);
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::run_head<P, T>(on, config, weights, s, gradients, report, options);
      !bad.ok()) {
    return bad;
  }
  detail::steps step(report.hook);
  auto const stream = [&](offset_t n) { return s.stream_at(n, batch, length, config.width); };
  bool done =
      step("norm", rms_norm_backward(on, detail::flat_tokens(stream(config.layers)),
                                     detail::last_norm_of(config, weights.values), s.inverse,
                                     s.d_last, s.d_stream, detail::last_norm_of(config, gradients),
                                     s.own, {.accumulate = options.accumulate}));
  view<T, 3, S> const d_stream(s.d_stream.data(), {{batch, length, config.width}});
  for (int n = config.layers - 1; done && n >= 0; --n) {
    auto const layer = detail::layer_weights<T, S>(config, n, weights.values, weights.choice_bias);
    arena<S> memory = s.saved_at(n);
    auto const mine = carve_block_saved(memory, static_cast<index_t>(batch),
                                        static_cast<index_t>(length), layer, how);
    if (status bad = block_backward(on, stream(n), layer, s.table, mine, d_stream, d_stream,
                                    detail::layer_gradients<S>(config, n, gradients), s.own, how);
        !bad.ok()) {
      return bad;
    }
  }
  done = done && step("embedding",
                      embedding_backward(on, s.d_stream, view<index_t const, 1, S>(s.input),
                                         detail::embedding_of(config, gradients),
                                         {.accumulate = options.accumulate || config.tied_head}));
  return step.outcome();
}

template <storage T, execution P>
status model_evaluate(P const& on, model_config const& config,
                      model_weights<T, P::memory> const& weights,
                      view<index_t const, 2, P::memory> tokens,
                      model_report<P::memory> const& report, arena<P::memory> work) noexcept {
  if (status bad = detail::check_model(on, "model_evaluate", config, weights, tokens, 1,
                                       offset_t{config.context} + 1);
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1) - 1;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, false);
  if (status bad = first_of(detail::check_report(report, config, batch, length),
                            work.check("model_evaluate.work"));
      !bad.ok()) {
    return bad;
  }
  host::split_tokens(tokens, s.input.data(), s.target.data(), s.valid.data());
  auto const how = detail::block_options_of<P::memory>(config, s.valid, false, report.hook);
  if (status bad =
          detail::run_blocks<P, T>(on, config, weights, batch, length, 0, nullptr, s, how, report);
      !bad.ok()) {
    return bad;
  }
  return detail::run_head<P, T>(on, config, weights, s, {}, report, {});
}

template <storage T, execution P>
status model_update(P const& on, model_config const& config, adamw_state<T, P::memory> const& state,
                    view<float, 1, P::memory> norm, arena<P::memory> work,
                    adamw_options const& options) noexcept {
  offset_t const count = detail::model_layout(config).count;
  offset_t const decayed = detail::model_layout(config).norms;
  if (status bad = first_of(check_config(config),
                            check::extent("model_update.parameter", 0, state.parameter.extent(0),
                                          count, "parameter_count"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = gradient_norm(on, state.gradient, norm, work); !bad.ok()) return bad;
  auto const part = [&](offset_t first, offset_t n) {
    auto const cut = [&](auto v) { return v.data() == nullptr ? v : v.slice(first, n); };
    return adamw_state<T, P::memory>{state.parameter.slice(first, n), cut(state.gradient),
                                     cut(state.first_moment), cut(state.second_moment),
                                     cut(state.copy)};
  };
  adamw_options without = options;
  without.weight_decay = 0.0f;
  if (status bad = adamw(on, part(0, decayed), norm, options); !bad.ok()) return bad;
  return adamw(on, part(decayed, count - decayed), norm, without);
}

inline offset_t model_cache_elements(model_config const& config, index_t batch,
                                     index_t capacity) noexcept {
  return config.layers *
         kv_cache<float>{nullptr, batch, capacity, config.kv_heads, config.head_dim()}.elements();
}

template <storage T, execution P>
status model_decode(P const& on, model_config const& config,
                    model_weights<T, P::memory> const& weights,
                    view<index_t const, 2, P::memory> tokens, index_t first_position,
                    model_cache<T, P::memory> const& cache, view<float, 2, P::memory> logits,
                    arena<P::memory> work, model_report<P::memory> const& report) noexcept {
  constexpr space S = P::memory;
  if (status bad = detail::check_model(on, "model_decode", config, weights, tokens, 1,
                                       offset_t{config.context});
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1), w = config.width;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, false);
  if (status bad = first_of(
          check::extent("model_decode.cache for", 0, cache.batch, batch, "sequences of tokens"),
          check::between("model_decode.cache.capacity", cache.capacity, 0, config.context),
          check::between("model_decode.first_position plus the new tokens", first_position + length,
                         length, cache.capacity),
          check::rows("model_decode.cache.memory", cache.memory),
          check::extent("model_decode.cache.memory", 0, cache.memory.extent(0),
                        model_cache_elements(config, cache.batch, cache.capacity),
                        "model_cache_elements"),
          check::rows("model_decode.logits", logits),
          check::extent("model_decode.logits", 0, logits.extent(0), batch, "sequences"),
          check::extent("model_decode.logits", 1, logits.extent(1), config.vocabulary,
                        "vocabulary"),
          detail::check_report(report, config, batch, length), work.check("model_decode.work"));
      !bad.ok()) {
    return bad;
  }
  for (offset_t t = 0; t < batch * length; ++t) {
    s.input[t] = tokens(t / length, t % length);
    s.valid[t] = s.input[t] >= 0 ? 1 : 0;
  }
  auto const how = detail::block_options_of<S>(config, s.valid, false, report.hook);
  if (status bad = detail::run_blocks<P, T>(on, config, weights, batch, length, first_position,
                                            &cache, s, how, report);
      !bad.ok()) {
    return bad;
  }
  detail::steps step(report.hook);
  view<T const, 2, S> const ends(s.last.data() + (length - 1) * w, {{batch, w}}, {{length * w, 1}});
  (void)step("head", linear(on, ends, detail::head_of(config, weights.values), logits));
  return step.outcome();
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::nn
