#pragma once
#include "shunt/core/compiler.hpp"

#include <type_traits>

#include "shunt/nn/detail/model_update.hpp"
#include "shunt/nn/detail/ranks_join.hpp"
#include "shunt/nn/model.hpp"

/// The model of model.hpp on several ranks: each has sequences of its own and some of the experts, and every tensor but
/// the experts' whole. Losses, gradients and weights have the bits of one process with the sequences of all, in the
/// order of ranks.
///
///   among_ranks<X> among{.transport = x, .placement = placement, .most_tokens = …};
///   auto const count = nn::parameter_count(nn::config_of_rank(config, placement, x.rank()));
///   nn::model_init_across(on, among, config, weights /*[count]*/, seed);
///   for (step = 1; …; ++step) {
///     nn::model_train_across<float>(on, among, config, {.values = weights}, own_tokens /*[B,S+1]*/, gradients,
///                                   {.loss = loss}, bytes);
///     nn::model_update_across<float>(on, among, config, {weights, gradients, m, v}, norm, bytes, {…});
///   }
namespace shunt::nn {
inline namespace SHUNT_ABI {

/// model_init for one rank: the same values. Asks no other rank.
template <exchange X>
status model_init_across(on_host const& on, among_ranks<X> const& among, model_config const& config,
                         view<float, 1> values, std::uint64_t seed) noexcept {
  constexpr char const* who = "model_init_across";
  int const rank = among.transport.rank();
  if (status bad = first_of(check::policy(on), detail::check_ranks(who, among, config));
      !bad.ok()) {
    return bad;
  }
  model_config const here = config_of_rank(config, among.placement, rank);
  if (status bad = first_of(check::rows("model_init_across.values", values),
                            check::extent("model_init_across.values", 0, values.extent(0),
                                          parameter_count(here), "parameter_count of the rank"));
      !bad.ok()) {
    return bad;
  }
  status done;
  for_each_run(config, among.placement, rank, [&](rank_run const& run) {
    if (!done.ok() || (run.owner >= 0 && run.owner != rank)) return;
    done = detail::init_part(on, config, run.whole, values.slice(run.here, run.count), seed,
                             run.in_whole);
  });
  return done;
}

/// Scratch of model_train_across and of model_update_across, for B sequences of S tokens of this rank.
template <storage T, exchange X>
[[nodiscard]] std::size_t model_train_across_scratch_bytes(on_host const& on,
                                                           among_ranks<X> const& among,
                                                           model_config const& config,
                                                           index_t batch, index_t length) noexcept {
  if (!detail::check_ranks("", among, config).ok()) return 0;
  model_config const here = config_of_rank(config, among.placement, among.transport.rank());
  auto from = arena<>::measuring(), norm = arena<>::measuring();
  auto const m = detail::carve_ranks<T>(from, "", among, here, offset_t{batch} * length, true);
  (void)detail::carve_model<T>(on, from, here, batch, length, true, 1, m.group);
  (void)shunt::detail::rank_messages::carve(norm, among.transport.ranks(), 0);
  (void)detail::model_norm<X>::carve(norm, among, config);
  return from.needed() > norm.needed() ? from.needed() : norm.needed();
}
/// Scratch of model_evaluate_across.
template <storage T, exchange X>
[[nodiscard]] std::size_t model_evaluate_across_scratch_bytes(on_host const& on,
                                                              among_ranks<X> const& among,
                                                              model_config const& config,
                                                              index_t batch,
                                                              index_t length) noexcept {
  if (!detail::check_ranks("", among, config).ok()) return 0;
  model_config const here = config_of_rank(config, among.placement, among.transport.rank());
  auto from = arena<>::measuring();
  auto const m = detail::carve_ranks<T>(from, "", among, here, offset_t{batch} * length, false);
  (void)detail::carve_model<T>(on, from, here, batch, length, false, 1, m.group);
  return from.needed();
}

/// model_train over the sequences of all ranks.
/// Shapes   tokens [B,S+1], B of this rank alone, 0 too · weights and gradients: flat buffers of the rank
///          (config_of_rank) · report: loss and counts are those of all ranks, token_loss this rank's
/// Types    as model_train
/// Order    as model_train with the sequences of all ranks in blocks by rank: loss, counts and gradients have its
///          bits, for any number of ranks and any placement; bf16 where all ranks run one arithmetic
/// Errors   those of model_train; an expert with copies; ranks with other configurations, lengths or options; more
///          tokens than a rank has memory for: the same sentence on all ranks, before anything is written. After
///          error::peer gradients are to be made anew.
/// Cost     model_train's, of this rank's tokens; the exchanges of moe_layer_across; for each replicated matrix [N,K]
///          N + K/R numbers of every token of the others, and its gradient once; scratch for as many tokens as all
///          ranks have, N + 2K/R numbers each, of the widest matrix
template <storage T, exchange X>
status model_train_across(on_host const& on, among_ranks<X> const& among,
                          model_config const& config,
                          std::type_identity_t<model_weights<T>> const& weights,
                          view<index_t const, 2> tokens, view<float, 1> gradients,
                          model_report<> const& report, arena<> work,
                          model_train_options const& options = {}) noexcept {
  constexpr char const* who = "model_train_across";
  status own = first_of(check::policy(on), detail::check_ranks(who, among, config));
  model_config const here = detail::config_here(own, among, config);
  if (own.ok()) {
    own = detail::check_model(on, who, here, weights, tokens, 1, offset_t{config.context} + 1);
  }
  offset_t const batch = own.ok() ? tokens.extent(0) : 0,
                 length = own.ok() ? tokens.extent(1) - 1 : 0;
  auto m = detail::carve_ranks<T>(work, who, among, here, batch * length, true);
  auto const s = detail::carve_model<T>(on, work, here, batch, length, true, 1, m.group);
  if (own.ok()) {
    own = first_of(check::rows("model_train_across.gradients", gradients),
                   check::extent("model_train_across.gradients", 0, gradients.extent(0),
                                 parameter_count(here), "parameter_count of the rank"),
                   detail::check_report(report, here, batch, length),
                   work.check("model_train_across.work"));
  }
  if (status met =
          detail::join<T>(on, who, 1, m, own, config, tokens, bool(weights.choice_bias), options);
      !met.ok()) {
    return met;
  }
  static_cast<void>(detail::model_backend<on_host>::split_tokens(on, tokens, length, s.input.data(),
                                                                 s.target.data(), s.valid.data()));
  auto how = detail::block_options_of<space::host>(config, s.valid, true, report.hook);
  how.accumulate = options.accumulate;
  status done = detail::run_blocks<on_host, T>(on, here, weights, batch, length, 0, nullptr, s, how,
                                               report, m.group);
  if (done.ok()) {
    done = detail::run_head<on_host, T>(on, here, weights, s, gradients, report, options, m.group);
  }
  if (done.ok()) {
    done = detail::run_backward<on_host, T>(on, here, weights, batch, length, s, gradients, how,
                                            m.group);
  }
  if (!done.ok() || m.group.alone()) return done;
  arena<> from = m.group.work;
  return detail::gradient_slices::carve(from, m.group.blocks, here)
      .share(m.group.blocks, here, gradients);
}

/// model_evaluate over the sequences of all ranks: loss and counts are those of all. report.loss is required.
template <storage T, exchange X>
status model_evaluate_across(on_host const& on, among_ranks<X> const& among,
                             model_config const& config,
                             std::type_identity_t<model_weights<T>> const& weights,
                             view<index_t const, 2> tokens, model_report<> const& report,
                             arena<> work) noexcept {
  constexpr char const* who = "model_evaluate_across";
  status own = first_of(check::policy(on), detail::check_ranks(who, among, config));
  model_config const here = detail::config_here(own, among, config);
  if (own.ok()) {
    own = detail::check_model(on, who, here, weights, tokens, 1, offset_t{config.context} + 1);
  }
  offset_t const batch = own.ok() ? tokens.extent(0) : 0,
                 length = own.ok() ? tokens.extent(1) - 1 : 0;
  auto m = detail::carve_ranks<T>(work, who, among, here, batch * length, false);
  auto const s = detail::carve_model<T>(on, work, here, batch, length, false, 1, m.group);
  if (own.ok()) {
    own = first_of(detail::check_report(report, here, batch, length),
                   work.check("model_evaluate_across.work"));
  }
  if (status met =
          detail::join<T>(on, who, 2, m, own, config, tokens, bool(weights.choice_bias), {});
      !met.ok()) {
    return met;
  }
  static_cast<void>(detail::model_backend<on_host>::split_tokens(on, tokens, length, s.input.data(),
                                                                 s.target.data(), s.valid.data()));
  auto const how = detail::block_options_of<space::host>(config, s.valid, false, report.hook);
  status const done = detail::run_blocks<on_host, T>(on, here, weights, batch, length, 0, nullptr,
                                                     s, how, report, m.group);
  if (!done.ok()) return done;
  return detail::run_head<on_host, T>(on, here, weights, s, {}, report, {}, m.group);
}

/// model_update of one rank's flat buffer: every rank updates what all have, and its own experts. The norm is that of
/// the whole model's gradients, with the bits of gradient_norm in one process; the same on all ranks.
/// Errors   as model_update; ranks with other options: the same sentence on all ranks. Cost: a gather of a number
///          for each 4096 gradients, and of those 4096 that experts of several ranks share.
template <storage T, exchange X>
status model_update_across(on_host const& on, among_ranks<X> const& among,
                           model_config const& config, adamw_state<T> const& state,
                           view<float, 1> norm, arena<> work,
                           adamw_options const& options) noexcept {
  constexpr char const* who = "model_update_across";
  status own = first_of(check::policy(on), detail::check_ranks(who, among, config));
  model_config const here = detail::config_here(own, among, config);
  auto const messages = shunt::detail::rank_messages::carve(work, among.transport.ranks(), 0);
  auto ours = detail::model_norm<X>::carve(work, among, own.ok() ? config : here);
  if (own.ok()) {
    offset_t const count = parameter_count(here);
    own = first_of(check::extent("model_update_across.parameter", 0, state.parameter.extent(0),
                                 count, "parameter_count of the rank"),
                   check::extent("model_update_across.gradient", 0, state.gradient.extent(0), count,
                                 "parameter_count of the rank"),
                   check::rows("model_update_across.gradient", state.gradient),
                   check::memory("model_update_across.norm", norm),
                   check::extent("model_update_across.norm", 0, norm.extent(0), 1, "one number"),
                   work.check("model_update_across.work"));
  }
  if (among.transport.ranks() > 1) {
    using shunt::detail::bits_of;
    shunt::detail::agreed_number const same[] = {
        {"call (3: update)", 3},
        {"model_config (as one number)", detail::config_number(config)},
        {"options.step", options.step},
        {"options.rate (as bits)", bits_of(options.rate)},
        {"options.clip (as bits)", bits_of(options.clip)},
        {"options.weight_decay (as bits)", bits_of(options.weight_decay)}};
    if (status met =
            shunt::detail::agree(who, among, messages, own, shunt::detail::rank_header{}, same);
        !met.ok()) {
      return met;
    }
  } else if (!own.ok()) {
    return own;
  }
  if (status done = ours.of(on, state.gradient, norm[0]); !done.ok()) return done;
  return detail::update_by(on, here, state, norm, options, adamw_scalars<>{});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
