#pragma once
/// The other way round: each expert chooses its tokens.
#include <cstddef>
#include <type_traits>

#include "shunt/backend/host/route/expert_choice.hpp"
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/check.hpp"

namespace shunt {

namespace check {
inline namespace SHUNT_ABI {
template <class T, space S>
[[nodiscard]] status expert_choice_arguments(view<T const, 2, S> logits, offset_t experts,
                                             offset_t chosen, route_options const& o,
                                             view<std::uint8_t const, 1, S> valid) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  if (status bad =
          first_of(between("expert_choice.logits: extent 0 (tokens)", logits.extent(0), 0, most),
                   between("expert_choice.logits: extent 1 (experts)", logits.extent(1), 1, most),
                   rows("expert_choice.logits", logits),
                   extent("expert_choice.token", 0, experts, logits.extent(1), "experts"),
                   fits_index("expert_choice: experts x tokens each", logits.extent(1), chosen),
                   optional_row("expert_choice.valid", valid, logits.extent(0), "tokens"),
                   finite("expert_choice.scale", o.scale));
      !bad.ok()) {
    return bad;
  }
  char const* const what = o.gates != gate_kind::raw ? "gates that are not raw"
                           : o.groups != 1           ? "groups"
                           : o.jitter != 0.0f        ? "jitter"
                           : o.random_second         ? "random_second"
                                                     : nullptr;
  if (what == nullptr) return {};
  return status::fail(
      error::bad_argument,
      "expert_choice.options: %s mean nothing where the experts choose; they must be "
      "left at their defaults",
      what);
}
}  // namespace SHUNT_ABI
}  // namespace check

/// The scratch of route_expert_choice() and its backward, for T = tokens and E = experts of `sizes`.
template <execution P>
[[nodiscard]] std::size_t route_expert_choice_scratch_bytes(P const& on,
                                                            shape const& sizes) noexcept {
  auto work = arena<P::memory>::measuring();
  detail::expert_choice_backend<P>::carve(on, work,
                                          detail::expert_choice_sizes{sizes.tokens, sizes.experts});
  return work.needed();
}

/// Each expert takes the C valid tokens that score highest with it (ties: the lower token); gates are
/// the scores, times the scale. No expert overflows, a token may get none.
/// Shapes   logits [T,E] → out.token [E,C] ascending, -1 at the end where fewer than C can be had ·
///          out.gate [E,C] · optional out.counts [E] · out.coverage [T] experts that took each token
/// Types    logits float, bf16 or fp16; the rest float
/// Order    as route(). NOT batch-invariant: whom an expert takes depends on all tokens.
/// Aliasing none
/// Errors   a sentence, before anything is written; NaN and Inf as in route(), counted in out.report
/// Cost     T·E scores twice over; scratch: route_expert_choice_scratch_bytes()
/// Source   Zhou et al. 2022, "Mixture-of-experts with expert choice routing"
template <execution P, input<P, 2> Logits>
[[nodiscard]] status route_expert_choice(
    P const& on, Logits logits, expert_choice<P::memory> const& out,
    std::type_identity_t<arena<P::memory>> work, route_options const& options = {},
    std::type_identity_t<view<std::uint8_t const, 1, P::memory>> valid = {}) noexcept {
  auto const in = as_input<P, 2>(logits);
  offset_t const chosen = out.token.extent(1);
  if (status bad = check::policy(on); !bad.ok()) return bad;
  if (status bad = check::expert_choice_arguments(in, out.token.extent(0), chosen, options, valid);
      !bad.ok()) {
    return bad;
  }
  offset_t const tokens = in.extent(0), experts = in.extent(1);
  if (status bad = first_of(
          check::rows("expert_choice.token", out.token),
          check::extent("expert_choice.gate", 0, out.gate.extent(0), experts, "experts"),
          check::extent("expert_choice.gate", 1, out.gate.extent(1), chosen, "tokens each"),
          check::rows("expert_choice.gate", out.gate),
          check::optional_row("expert_choice.counts", out.counts, experts, "experts"),
          check::optional_row("expert_choice.coverage", out.coverage, tokens, "tokens"),
          check::optional_row("expert_choice.report", out.report, route_events, "route_events"),
          check::apart("expert_choice.token", out.token, "logits", in),
          check::apart("expert_choice.gate", out.gate, "logits", in),
          check::apart("expert_choice.gate", out.gate, "token", out.token));
      !bad.ok()) {
    return bad;
  }
  return detail::expert_choice_backend<P>::run(
      on, detail::expert_choice_call<element_t<Logits>, P::memory>{in, out, work, options, valid});
}

/// The logits' gradient from the gates' of route_expert_choice().
/// Shapes   logits [T,E] · chosen.token [E,C] · d_gate [E,C] → d_logits [T,E], overwritten
/// Types    logits and d_logits float, bf16 or fp16; d_gate float
/// Order    as route()
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     T·E
/// Source   docs/stages/route.md
template <execution P, input<P, 2> Logits, output<P, 2> DLogits>
[[nodiscard]] status route_expert_choice_backward(
    P const& on, Logits logits, expert_choice<P::memory> const& chosen,
    std::type_identity_t<view<float const, 2, P::memory>> d_gate, DLogits d_logits,
    std::type_identity_t<arena<P::memory>> work, route_options const& options = {},
    std::type_identity_t<view<std::uint8_t const, 1, P::memory>> valid = {}) noexcept {
  auto const in = as_input<P, 2>(logits);
  auto const out = as_output<P, 2>(d_logits);
  offset_t const tokens = in.extent(0), experts = in.extent(1), each = chosen.token.extent(1);
  if (status bad = check::policy(on); !bad.ok()) return bad;
  if (status bad = check::expert_choice_arguments(in, chosen.token.extent(0), each, options, valid);
      !bad.ok()) {
    return bad;
  }
  if (status bad =
          first_of(check::rows("expert_choice.token", chosen.token),
                   check::extent("expert_choice.d_gate", 0, d_gate.extent(0), experts, "experts"),
                   check::extent("expert_choice.d_gate", 1, d_gate.extent(1), each, "tokens each"),
                   check::rows("expert_choice.d_gate", d_gate),
                   check::extent("expert_choice.d_logits", 0, out.extent(0), tokens, "tokens"),
                   check::extent("expert_choice.d_logits", 1, out.extent(1), experts, "experts"),
                   check::rows("expert_choice.d_logits", out),
                   check::apart("expert_choice.d_logits", out, "logits", in),
                   check::apart("expert_choice.d_logits", out, "d_gate", d_gate));
      !bad.ok()) {
    return bad;
  }
  return detail::expert_choice_backend<P>::run(
      on, detail::expert_choice_backward_call<element_t<Logits>, element_t<DLogits>, P::memory>{
              in, chosen.token, d_gate, out, work, options, valid});
}

}  // namespace shunt
