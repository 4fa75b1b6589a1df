#pragma once
#include <concepts>
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/routing.hpp"

/// The router's argument checks: each failure is a sentence, before anything is written.
namespace shunt::check {
inline namespace SHUNT_ABI {

[[nodiscard]] __attribute__((noinline)) inline status finite(char const* name, float x) noexcept {
  if (x - x == 0.0f) return {};
  return status::fail(error::bad_argument, "%s is %g; it must be a finite number", name,
                      static_cast<double>(x));
}

/// A rank-1 argument of `n` contiguous elements; one without memory passes.
template <class T, space S>
[[nodiscard]] status optional_row(char const* name, view<T, 1, S> const& v, offset_t n,
                                  char const* why) noexcept {
  return detail::optional_of(name, detail::any_view(v), {n, why});
}

template <class T, space S>
[[nodiscard]] status optional_rows(char const* name, view<T, 2, S> const& v, offset_t m,
                                   char const* why, offset_t n, char const* why_n) noexcept {
  return detail::optional_of(name, detail::any_view(v), {m, why}, {n, why_n});
}

/// Options that fit together, for E experts and K choices.
[[nodiscard]] inline status route_rules(route_options const& o, offset_t experts,
                                        offset_t top_k) noexcept {
  if (status bad = first_of(between("route.top_k (extent 1 of expert)", top_k, 1, experts),
                            finite("route.scale", o.scale), finite("route.epsilon", o.epsilon),
                            between("route.groups", o.groups, 1, experts),
                            between("route.top_groups", o.top_groups, 1, o.groups),
                            between("route.zero_experts", o.zero_experts, 0, experts - 1));
      !bad.ok()) {
    return bad;
  }
  auto const wide = [](offset_t n) { return static_cast<long long>(n); };
  if (o.epsilon < 0.0f) {
    return status::fail(error::bad_argument, "route.epsilon is %g; it must be 0 or more",
                        static_cast<double>(o.epsilon));
  }
  if (experts % o.groups != 0) {
    return status::fail(error::bad_argument,
                        "route.groups is %lld; it must divide the number of experts, %lld",
                        wide(o.groups), wide(experts));
  }
  if (offset_t const held = experts / o.groups * o.top_groups; held < top_k) {
    return status::fail(error::bad_argument,
                        "route.top_groups is %lld, of %lld experts each: they hold %lld experts; "
                        "they must hold at least top_k, %lld",
                        wide(o.top_groups), wide(experts / o.groups), wide(held), wide(top_k));
  }
  if (!(o.jitter >= 0.0f && o.jitter < 1.0f)) {
    return status::fail(error::bad_argument, "route.jitter is %g; it must be in [0, 1)",
                        static_cast<double>(o.jitter));
  }
  if (o.random_second && top_k != 2) {
    return status::fail(error::bad_argument,
                        "route.random_second needs a choice of two experts; top_k is %lld, it must "
                        "be 2",
                        wide(top_k));
  }
  if (o.random_second && o.gates == gate_kind::raw) {
    return status::fail(error::bad_argument,
                        "route.random_second needs gates that sum to one; gates is raw, it must be "
                        "renormalized or softmax_chosen");
  }
  return {};
}

/// The numbers of the draws that are read from memory.
template <space S> [[nodiscard]] status route_draws(::shunt::route_draws<S> const& draws) noexcept {
  return first_of(optional_row("route.draws.seed", draws.seed, 1, "one number"),
                  optional_row("route.draws.first_token", draws.first_token, 1, "one number"));
}

/// Optional inputs of route.
template <space S>
[[nodiscard]] status check_route_inputs(route_inputs<S> const& with, route_options const& o,
                                        offset_t tokens, offset_t experts,
                                        offset_t top_k) noexcept {
  if (status bad = first_of(optional_row("route.choice_bias", with.choice_bias, experts, "experts"),
                            optional_row("route.valid", with.valid, tokens, "tokens"),
                            optional_row("route.token", with.token, tokens, "tokens"),
                            route_draws(with.draws));
      !bad.ok()) {
    return bad;
  }
  if (!with.ids) {
    if (!with.token) return {};
    return status::fail(error::bad_argument,
                        "route.token is given without route.ids; it must come with the table that "
                        "it points into");
  }
  if (status bad = extent("route.ids", 1, with.ids.extent(1), top_k, "top_k"); !bad.ok())
    return bad;
  if (!with.token) {
    if (status bad = extent("route.ids", 0, with.ids.extent(0), tokens, "tokens"); !bad.ok()) {
      return bad;
    }
  }
  if (o.random_second) {
    return status::fail(error::bad_argument,
                        "route.ids leaves nothing to choose; random_second must not be asked for "
                        "with it (the same seed repeats its draws)");
  }
  return with.ids.is_narrow() ? rows("route.ids", with.ids.narrow())
                              : rows("route.ids", with.ids.wide());
}

/// Optional outputs of route.
template <space S>
[[nodiscard]] status check_route_outputs(routing<S> const& out, route_inputs<S> const& with,
                                         route_options const& o, offset_t tokens, offset_t experts,
                                         offset_t top_k) noexcept {
  offset_t const sequences = ::shunt::detail::sequences_of(out);
  if (sequences < 1 || tokens % sequences != 0) {
    return status::fail(error::bad_shape,
                        "route.sequence_importance: extent 0 is %lld (sequences); it must be at "
                        "least 1 and divide the number of tokens, %lld",
                        static_cast<long long>(sequences), static_cast<long long>(tokens));
  }
  char const* const n = "sequences";
  if (status bad =
          first_of(optional_rows("route.recorded", out.recorded, tokens, "tokens", top_k, "top_k"),
                   optional_row("route.z", out.z, tokens, "tokens"),
                   optional_row("route.counts", out.counts, experts, "experts"),
                   optional_row("route.importance", out.importance, experts, "experts"),
                   optional_row("route.tokens", out.tokens, 1, "one total"),
                   optional_rows("route.sequence_counts", out.sequence_counts, sequences, n,
                                 experts, "experts"),
                   optional_rows("route.sequence_importance", out.sequence_importance, sequences, n,
                                 experts, "experts"),
                   optional_row("route.sequence_tokens", out.sequence_tokens, sequences, n),
                   optional_row("route.report", out.report, route_events, "route_events"));
      !bad.ok()) {
    return bad;
  }
  if (out.recorded && experts > 32768) {
    return status::fail(error::too_large,
                        "route.recorded stores 16 bits; there are %lld experts, it must be at most "
                        "32768",
                        static_cast<long long>(experts));
  }
  if (!out.histogram) return {};
  if (status bad =
          first_of(extent("route.histogram", 0, out.histogram.extent(0), experts, "experts"),
                   between("route.histogram: extent 1 (bins)", out.histogram.extent(1), 1, 1 << 24),
                   rows("route.histogram", out.histogram));
      !bad.ok()) {
    return bad;
  }
  char const* const why = !with.choice_bias ? "a choice_bias (of zeros to begin with)"
                          : with.ids        ? "a free choice, not with ids"
                          : o.groups != 1   ? "groups to be 1"
                          : top_k >= experts
                              ? "top_k below the number of experts (the next best is the cutoff)"
                              : nullptr;
  if (why == nullptr) return {};
  return status::fail(error::bad_argument, "route.histogram is wanted; it must come with %s", why);
}

/// No output may lie in an input or in another output.
template <class T, space S>
[[nodiscard]] status check_route_no_alias(view<T const, 2, S> logits,
                                          routing<S> const& out) noexcept {
  return first_of(apart("route.expert", out.expert, "route.logits", logits),
                  apart("route.gate", out.gate, "route.logits", logits),
                  apart("route.gate", out.gate, "route.expert", out.expert),
                  apart("route.z", out.z, "route.logits", logits),
                  apart("route.z", out.z, "route.gate", out.gate),
                  apart("route.counts", out.counts, "route.expert", out.expert),
                  apart("route.importance", out.importance, "route.gate", out.gate));
}

/// Logits [T,E] with expert and gate [T,K].
template <class T, space S>
[[nodiscard]] status route_shapes(view<T const, 2, S> logits, view<index_t const, 2, S> expert,
                                  view<float const, 2, S> gate) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = logits.extent(0);
  if (status bad = first_of(between("route.logits: extent 0 (tokens)", tokens, 0, most),
                            between("route.logits: extent 1 (experts)", logits.extent(1), 1, most),
                            rows("route.logits", logits),
                            extent("route.expert", 0, expert.extent(0), tokens, "tokens"),
                            extent("route.gate", 0, gate.extent(0), tokens, "tokens"),
                            extent("route.gate", 1, gate.extent(1), expert.extent(1), "top_k"));
      !bad.ok()) {
    return bad;
  }
  return first_of(rows("route.expert", expert), rows("route.gate", gate),
                  fits_index("route: tokens x top_k", tokens, expert.extent(1)));
}

/// The gradients that route_backward reads, and the one that it writes.
template <class T, class G, space S>
[[nodiscard]] status route_gradients_given(route_gradients<S> const& d, view<G, 2, S> d_logits,
                                           view<T const, 2, S> logits,
                                           view<index_t, 2, S> expert) noexcept {
  offset_t const tokens = logits.extent(0), experts = logits.extent(1);
  offset_t const sequences = d.sequence_importance ? d.sequence_importance.extent(0) : 1;
  if (sequences < 1 || tokens % sequences != 0) {
    return status::fail(error::bad_shape,
                        "route_backward.d.sequence_importance: extent 0 is %lld (sequences); it "
                        "must be at least 1 and divide the number of tokens, %lld",
                        static_cast<long long>(sequences), static_cast<long long>(tokens));
  }
  if (status bad =
          first_of(extent("route_backward.d_logits", 0, d_logits.extent(0), tokens, "tokens"),
                   extent("route_backward.d_logits", 1, d_logits.extent(1), experts, "experts"),
                   rows("route_backward.d_logits", d_logits),
                   optional_row("route_backward.d.importance", d.importance, experts, "experts"),
                   optional_rows("route_backward.d.sequence_importance", d.sequence_importance,
                                 sequences, "sequences", experts, "experts"),
                   optional_row("route_backward.d.z", d.z, tokens, "tokens"),
                   apart("route_backward.d_logits", d_logits, "d.gate", d.gate),
                   apart("route_backward.d_logits", d_logits, "chosen.expert", expert),
                   apart("route_backward.d_logits", d_logits, "d.z", d.z));
      !bad.ok()) {
    return bad;
  }
  bool const in_place =
      std::same_as<T, G> &&
      static_cast<void const*>(d_logits.data()) == static_cast<void const*>(logits.data()) &&
      d_logits.strides() == logits.strides();
  return in_place ? status{} : apart("route_backward.d_logits", d_logits, "logits", logits);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
