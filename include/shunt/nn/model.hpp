#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/model.hpp"
#include "shunt/nn/detail/model_run.hpp"
#include "shunt/nn/detail/model_update.hpp"

/// A small language model on the library's primitives: bytes in, loss and gradients out, or logits
/// from a key/value cache. It owns nothing: parameters are one flat buffer of the caller (float
/// master weights, and where T is not float a working copy in T), scratch comes from an arena.
///
///   nn::model_config config{…};
///   std::vector<float> weights(nn::parameter_count(config)), gradients(weights.size()), m(…), v(…);
///   nn::model_init(on, config, weights, seed);
///   std::vector<std::byte> bytes(nn::model_train_scratch_bytes<float>(on, config, batch, length));
///   for (step = 1; …; ++step) {
///     nn::model_train<float>(on, config, {.values = weights}, tokens /*[B,S+1]*/, gradients,
///                            {.loss = loss, .counts = counts}, bytes);
///     nn::model_update<float>(on, config, {weights, gradients, m, v}, norm, bytes,
///                             {.rate = nn::rate_at(schedule, step - 1), .step = step, .clip = 1});
///   }
namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Fills the parameters: matrices with normal values of deviation 0.02 (those that write to the
/// residual stream divided by √(2·layers)), norms with 1. A value depends on seed and position only.
template <execution P>
status model_init(P const& on, model_config const& config,
                  std::type_identity_t<view<float, 1, P::memory>> values,
                  std::uint64_t seed) noexcept {
  if (status bad = first_of(check::policy(on), check_config(config),
                            detail::has_all_experts("model_init", config));
      !bad.ok()) {
    return bad;
  }
  if (status bad = first_of(check::rows("model_init.values", values),
                            check::extent("model_init.values", 0, values.extent(0),
                                          detail::model_layout(config).count, "parameter_count"));
      !bad.ok()) {
    return bad;
  }
  status done;
  for_each_parameter(config, [&](model_parameter const& p) {
    if (done.ok()) {
      done = detail::init_part(on, config, p, values.slice(p.offset, p.size()), seed, p.offset);
    }
  });
  return done;
}

/// Scratch of model_train (and of model_update, which needs less) for B sequences of S tokens.
template <storage T, execution P>
[[nodiscard]] std::size_t model_train_scratch_bytes(P const& on, model_config const& config,
                                                    index_t batch, index_t length) noexcept {
  auto from = arena<P::memory>::measuring();
  if (!check_config(config).ok()) return 0;
  (void)detail::carve_model<T>(on, from, config, batch, length, true);
  return from.needed();
}
/// Scratch of model_evaluate.
template <storage T, execution P>
[[nodiscard]] std::size_t model_evaluate_scratch_bytes(P const& on, model_config const& config,
                                                       index_t batch, index_t length) noexcept {
  auto from = arena<P::memory>::measuring();
  if (!check_config(config).ok()) return 0;
  (void)detail::carve_model<T>(on, from, config, batch, length, false);
  return from.needed();
}
/// Scratch of model_decode for B sequences of N new tokens.
template <storage T, execution P>
[[nodiscard]] std::size_t model_decode_scratch_bytes(P const& on, model_config const& config,
                                                     index_t batch, index_t tokens) noexcept {
  auto from = arena<P::memory>::measuring();
  if (!check_config(config).ok()) return 0;
  (void)detail::carve_model<T>(on, from, config, batch, tokens, false, batch);
  return from.needed();
}

/// Forward and backward: the mean cross-entropy of predicting tokens[b][s + 1] from tokens[b][0..s],
/// plus the routers' losses, and its gradient to every parameter.
/// Shapes   tokens [B,S+1] (input below 0: padding, no row in any expert; target below 0: ignored) ·
///          gradients [parameter_count] float · draws [1] each: the routers' seed and first token,
///          read when the kernels run in place of config.route's
/// Types    T: what weights and activations are stored as; arithmetic and gradients float
/// Order    fixed: the same bits on any thread count and ISA
/// Errors   sentences, before anything is written: extents, null pointers, ids that are V or more,
///          S above config.context, arena too small
/// Cost     3 · forward_flops() a token; scratch model_train_scratch_bytes()
template <storage T, execution P>
status model_train(P const& on, model_config const& config,
                   model_weights<T, P::memory> const& weights,
                   std::type_identity_t<view<index_t const, 2, P::memory>> tokens,
                   std::type_identity_t<view<float, 1, P::memory>> gradients,
                   model_report<P::memory> const& report,
                   std::type_identity_t<arena<P::memory>> work,
                   model_train_options const& options = {},
                   route_draws<P::memory> const& draws = {}) noexcept {
  constexpr space S = P::memory;
  if (status bad = first_of(detail::has_all_experts("model_train", config),
                            detail::check_model(on, "model_train", config, weights, tokens, 1,
                                                offset_t{config.context} + 1));
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1) - 1;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, true);
  if (status bad = first_of(check::rows("model_train.gradients", gradients),
                            check::extent("model_train.gradients", 0, gradients.extent(0),
                                          detail::model_layout(config).count, "parameter_count"),
                            detail::check_report(report, config, batch, length),
                            check::route_draws(draws), work.check("model_train.work"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::model_backend<P>::split_tokens(on, tokens, length, s.input.data(),
                                                          s.target.data(), s.valid.data());
      !bad.ok()) {
    return bad;
  }
  auto how = detail::block_options_of<S>(config, s.valid, true, report.hook, draws);
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
  return detail::run_backward<P, T>(on, config, weights, batch, length, s, gradients, how,
                                    detail::one_process{});
}

/// Forward only: the losses and the experts' load. report.loss is required.
template <storage T, execution P>
status model_evaluate(P const& on, model_config const& config,
                      model_weights<T, P::memory> const& weights,
                      std::type_identity_t<view<index_t const, 2, P::memory>> tokens,
                      model_report<P::memory> const& report,
                      std::type_identity_t<arena<P::memory>> work,
                      route_draws<P::memory> const& draws = {}) noexcept {
  if (status bad = first_of(detail::has_all_experts("model_evaluate", config),
                            detail::check_model(on, "model_evaluate", config, weights, tokens, 1,
                                                offset_t{config.context} + 1));
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1) - 1;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, false);
  if (status bad = first_of(detail::check_report(report, config, batch, length),
                            check::route_draws(draws), work.check("model_evaluate.work"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::model_backend<P>::split_tokens(on, tokens, length, s.input.data(),
                                                          s.target.data(), s.valid.data());
      !bad.ok()) {
    return bad;
  }
  auto const how = detail::block_options_of<P::memory>(config, s.valid, false, report.hook, draws);
  if (status bad =
          detail::run_blocks<P, T>(on, config, weights, batch, length, 0, nullptr, s, how, report);
      !bad.ok()) {
    return bad;
  }
  return detail::run_head<P, T>(on, config, weights, s, {}, report, {});
}

/// One optimizer step over the whole flat buffer: global norm, clipping, AdamW (weight decay on the
/// matrices only), and the working copy in T. norm[0] receives the norm before clipping; a norm that
/// is not finite changes nothing. `scalars`: step and rate from memory, for a captured graph.
template <storage T, execution P>
status model_update(P const& on, model_config const& config, adamw_state<T, P::memory> const& state,
                    std::type_identity_t<view<float, 1, P::memory>> norm,
                    std::type_identity_t<arena<P::memory>> work, adamw_options const& options,
                    std::type_identity_t<adamw_scalars<P::memory>> const& scalars = {}) noexcept {
  offset_t const count = detail::model_layout(config).count;
  if (status bad = first_of(check_config(config), detail::has_all_experts("model_update", config),
                            check::extent("model_update.parameter", 0, state.parameter.extent(0),
                                          count, "parameter_count"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = gradient_norm(on, state.gradient, norm, work); !bad.ok()) return bad;
  return detail::update_by(on, config, state, norm, options, scalars);
}

/// Elements of a model_cache's memory.
[[nodiscard]] inline offset_t model_cache_elements(model_config const& config, index_t batch,
                                                   index_t capacity) noexcept {
  return config.layers *
         kv_cache<float>{nullptr, batch, capacity, config.kv_heads, config.head_dim()}.elements();
}

/// Takes N more tokens of each sequence (a whole prompt, or one) at positions first_position … and
/// gives the logits that follow the last of them. Feeding a text in any pieces gives the same bits.
/// Shapes   tokens [B,N] → logits [B,V] float · first_position a number, or [1] or [B] numbers in
///          memory, read when the kernels run: a captured graph that calls advance() on them decodes on
/// Errors   as model_train; no room in the cache. A sequence whose position read from memory leaves no
///          room is left out of the cache, and its tokens attend to nothing.
template <storage T, execution P>
status model_decode(P const& on, model_config const& config,
                    model_weights<T, P::memory> const& weights,
                    std::type_identity_t<view<index_t const, 2, P::memory>> tokens,
                    std::type_identity_t<token_positions<P::memory>> first_position,
                    model_cache<T, P::memory> const& cache,
                    std::type_identity_t<view<float, 2, P::memory>> logits,
                    std::type_identity_t<arena<P::memory>> work,
                    model_report<P::memory> const& report = {},
                    route_draws<P::memory> const& draws = {}) noexcept {
  constexpr space S = P::memory;
  if (status bad = first_of(detail::has_all_experts("model_decode", config),
                            detail::check_model(on, "model_decode", config, weights, tokens, 1,
                                                offset_t{config.context}));
      !bad.ok()) {
    return bad;
  }
  offset_t const batch = tokens.extent(0), length = tokens.extent(1), w = config.width;
  auto const s = detail::carve_model<T>(on, work, config, batch, length, false,
                                        first_position.per_sequence() ? batch : 1);
  if (status bad = first_of(
          check::extent("model_decode.cache for", 0, cache.batch, batch, "sequences of tokens"),
          check::between("model_decode.cache.capacity", cache.capacity, 0, config.context),
          detail::positions_fit("model_decode.first_position", first_position, batch),
          check::between("model_decode.first_position plus the new tokens",
                         first_position.number() + length, length, cache.capacity),
          check::rows("model_decode.cache.memory", cache.memory),
          check::extent("model_decode.cache.memory", 0, cache.memory.extent(0),
                        model_cache_elements(config, cache.batch, cache.capacity),
                        "model_cache_elements"),
          check::rows("model_decode.logits", logits),
          check::extent("model_decode.logits", 0, logits.extent(0), batch, "sequences"),
          check::extent("model_decode.logits", 1, logits.extent(1), config.vocabulary,
                        "vocabulary"),
          detail::check_report(report, config, batch, length), check::route_draws(draws),
          work.check("model_decode.work"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::model_backend<P>::split_tokens(on, tokens, length, s.input.data(),
                                                          nullptr, s.valid.data());
      !bad.ok()) {
    return bad;
  }
  auto const how = detail::block_options_of<S>(config, s.valid, false, report.hook, draws);
  if (status bad = detail::run_blocks<P, T>(on, config, weights, batch, length, first_position,
                                            &cache, s, how, report);
      !bad.ok()) {
    return bad;
  }
  detail::stages step(report.hook);
  view<T const, 2, S> const ends(s.last.data() + (length - 1) * w, {{batch, w}}, {{length * w, 1}});
  (void)step("head", linear(on, ends, detail::head_of(config, weights.values), logits));
  return step.outcome();
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
