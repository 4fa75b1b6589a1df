#pragma once
/// Losses that act on the router, each with its gradient: to `importance` or to `z` of routing, which
/// route_backward() takes on to the logits. The coefficient is applied here and nowhere else. All of
/// them count valid tokens only, and all read sums (counts, importance, tokens) that the caller may
/// gather over micro-batches (route_options::accumulate) and add over ranks before: the loss is then
/// that of the whole, and so is its gradient to each part's importance.
#include <type_traits>

#include "shunt/backend/host/route/balance.hpp"
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/check.hpp"

namespace shunt {

/// Options of balance_loss, sequence_balance_loss and z_loss.
struct loss_options {
  float coefficient = 0.01f;  ///< times the loss and its gradient
  bool accumulate = false;    ///< add to the loss and to the gradient, instead of replacing them
};

/// What the band loss calls the load of an expert, in units of the uniform share.
enum class band_load : std::uint8_t {
  probability,  ///< E times its mean probability: differentiable
  counts  ///< E times its share of the slots; the gradient goes straight through to the former
};
/// Options of band_loss.
struct band_options {
  float coefficient = 0.01f;                ///< times the loss and its gradient
  float low = 0.5f, high = 1.5f;            ///< the band: loads inside cost nothing
  band_load load = band_load::probability;  ///< which load
  bool accumulate = false;                  ///< add to the loss and to the gradient
};

namespace check {
inline namespace SHUNT_ABI {
template <space S>
[[nodiscard]] status loss_arguments(char const* who, routing<S> const& load, view<float, 1, S> loss,
                                    float coefficient, view<float, 1, S> d_importance) noexcept {
  offset_t const experts = load.counts.extent(0);
  if (!load.counts || !load.importance || !load.tokens) {
    return status::fail(error::null_pointer,
                        "%s.load: counts, importance or tokens is missing; all three must be those "
                        "that route() wrote",
                        who);
  }
  return first_of(finite("loss.coefficient", coefficient),
                  extent("load.importance", 0, load.importance.extent(0), experts, "experts"),
                  extent("load.tokens", 0, load.tokens.extent(0), 1, "one total"),
                  extent("loss", 0, loss.extent(0), 1, "one number"), memory("loss", loss),
                  extent("d_importance", 0, d_importance.extent(0), experts, "experts"),
                  rows("d_importance", d_importance), rows("load.counts", load.counts),
                  rows("load.importance", load.importance));
}
}  // namespace SHUNT_ABI
}  // namespace check

/// Switch's and GShard's auxiliary loss: coefficient * E * sum of f_e P_e, f_e the share of slots that
/// chose expert e, P_e its mean probability. 0 where no token is valid.
/// Shapes   load.counts [E] · load.importance [E] · load.tokens [1] → loss [1] · d_importance [E]
/// Types    float
/// Order    32 strided partial sums, then halving
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     E
/// Source   Fedus et al. 2021, eq. 4; Lepikhin et al. 2020
template <execution P>
[[nodiscard]] status balance_loss(P const& on, routing<P::memory> const& load,
                                  std::type_identity_t<view<float, 1, P::memory>> loss,
                                  std::type_identity_t<view<float, 1, P::memory>> d_importance,
                                  loss_options const& options = {}) noexcept {
  if (status bad = first_of(
          check::policy(on),
          check::loss_arguments("balance_loss", load, loss, options.coefficient, d_importance));
      !bad.ok()) {
    return bad;
  }
  offset_t const e = load.counts.extent(0);
  return detail::route_balance_backend<P>::run(
      on, detail::balance_call<P::memory>{{load.counts.data(), {{1, e}}},
                                          {load.importance.data(), {{1, e}}},
                                          load.tokens,
                                          loss,
                                          {d_importance.data(), {{1, e}}},
                                          options.coefficient,
                                          options.accumulate});
}

/// The same within each sequence, averaged over the sequences that have a valid token (DeepSeek-V3's
/// complementary loss; its factors K and T cancel against the share of slots).
/// Shapes   load.sequence_* [N,E], [N] → loss [1] · d_sequence_importance [N,E]
/// Types    float
/// Order    as balance_loss; sequences one after another
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     N·E
/// Source   DeepSeek-V3 2024, eqs. 17-20
template <execution P>
[[nodiscard]] status sequence_balance_loss(
    P const& on, routing<P::memory> const& load,
    std::type_identity_t<view<float, 1, P::memory>> loss,
    std::type_identity_t<view<float, 2, P::memory>> d_sequence_importance,
    loss_options const& options = {}) noexcept {
  auto const& d = d_sequence_importance;
  offset_t const n = load.sequence_counts.extent(0), experts = load.sequence_counts.extent(1);
  if (!load.sequence_counts || !load.sequence_importance || !load.sequence_tokens) {
    return status::fail(error::null_pointer,
                        "sequence_balance_loss.load: sequence_counts, sequence_importance or "
                        "sequence_tokens is missing; all three must be those that route() wrote");
  }
  if (status bad = first_of(
          check::policy(on), check::finite("loss.coefficient", options.coefficient),
          check::extent("load.sequence_importance", 0, load.sequence_importance.extent(0), n,
                        "sequences"),
          check::extent("load.sequence_importance", 1, load.sequence_importance.extent(1), experts,
                        "experts"),
          check::extent("load.sequence_tokens", 0, load.sequence_tokens.extent(0), n, "sequences"),
          check::extent("loss", 0, loss.extent(0), 1, "one number"), check::memory("loss", loss),
          check::extent("d_sequence_importance", 0, d.extent(0), n, "sequences"),
          check::extent("d_sequence_importance", 1, d.extent(1), experts, "experts"),
          check::rows("d_sequence_importance", d));
      !bad.ok()) {
    return bad;
  }
  return detail::route_balance_backend<P>::run(
      on, detail::balance_call<P::memory>{load.sequence_counts, load.sequence_importance,
                                          load.sequence_tokens, loss, d, options.coefficient,
                                          options.accumulate});
}

/// Keeps the logits small: coefficient times the mean over valid tokens of (log sum exp logits)^2.
/// Shapes   load.z [T] · load.tokens [1] → loss [1] · d_z [T]
/// Types    float
/// Order    32 strided partial sums, then halving
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     T. load.tokens may be that of the whole global batch: each part then adds its share.
/// Source   Zoph et al. 2022 (ST-MoE), eq. 5
template <execution P>
[[nodiscard]] status z_loss(P const& on, routing<P::memory> const& load,
                            std::type_identity_t<view<float, 1, P::memory>> loss,
                            std::type_identity_t<view<float, 1, P::memory>> d_z,
                            loss_options const& options = {}) noexcept {
  if (!load.tokens || (!load.z && d_z.extent(0) > 0)) {
    return status::fail(
        error::null_pointer,
        "z_loss.load: z or tokens is missing; both must be those that route() wrote");
  }
  if (status bad = first_of(
          check::policy(on), check::finite("loss.coefficient", options.coefficient),
          check::extent("load.tokens", 0, load.tokens.extent(0), 1, "one total"),
          check::extent("loss", 0, loss.extent(0), 1, "one number"), check::memory("loss", loss),
          check::extent("d_z", 0, d_z.extent(0), load.z.extent(0), "tokens"),
          check::rows("d_z", d_z), check::rows("load.z", load.z));
      !bad.ok()) {
    return bad;
  }
  return detail::route_balance_backend<P>::run(
      on, detail::z_loss_call<P::memory>{load.z, load.tokens, loss, d_z, options.coefficient,
                                         options.accumulate});
}

/// Leaves a load alone while it is within [low, high] times the uniform share: coefficient times
/// (sum of relu(load - high) + sum of relu(low - load)).
/// Shapes   load.counts [E] · load.importance [E] · load.tokens [1] → loss [1] · d_importance [E]
/// Types    float
/// Order    32 strided partial sums, then halving
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     E
/// Source   docs/stages/route.md (band router)
template <execution P>
[[nodiscard]] status band_loss(P const& on, routing<P::memory> const& load,
                               std::type_identity_t<view<float, 1, P::memory>> loss,
                               std::type_identity_t<view<float, 1, P::memory>> d_importance,
                               band_options const& options = {}) noexcept {
  if (status bad = first_of(
          check::policy(on),
          check::loss_arguments("band_loss", load, loss, options.coefficient, d_importance));
      !bad.ok()) {
    return bad;
  }
  if (!(options.low >= 0.0f && options.low <= options.high && options.high < 3.0e38f)) {
    return status::fail(error::bad_argument,
                        "band_loss.low is %g and high is %g; they must be 0 <= low <= high",
                        static_cast<double>(options.low), static_cast<double>(options.high));
  }
  return detail::route_balance_backend<P>::run(
      on, detail::band_call<P::memory>{load.counts, load.importance, load.tokens, loss,
                                       d_importance, options.coefficient, options.low, options.high,
                                       options.load == band_load::counts, options.accumulate});
}

}  // namespace shunt
