#pragma once
#include <cstdint>

#include "shunt/core/view.hpp"
#include "shunt/route/options.hpp"

namespace shunt {

/// What route() writes. Everything below `gate` is optional: a view without memory is not wanted
/// and costs nothing.
template <space S = space::host> struct routing {
  view<index_t, 2, S> expert{};  ///< [T,K] chosen ids, best first (ties: lower id); -1 where none
  view<float, 2, S> gate{};      ///< [T,K]; 0 where there is no expert

  view<std::int16_t, 2, S> recorded{};  ///< [T,K] the same ids, narrow: for replay
  view<float, 1, S> z{};  ///< [T] log of the sum of exp(logits); 0 for an invalid token

  // The load, over valid tokens. `importance` sums each expert's probability: its score divided by
  // the sum of the token's scores (softmax: the score; logits: their softmax).
  view<index_t, 1, S> counts{};    ///< [E] slots that chose the expert
  view<float, 1, S> importance{};  ///< [E]
  view<index_t, 1, S> tokens{};    ///< [1]

  // The same for each of N sequences, of T / N consecutive tokens each.
  view<index_t, 2, S> sequence_counts{};    ///< [N,E]
  view<float, 2, S> sequence_importance{};  ///< [N,E]
  view<index_t, 1, S> sequence_tokens{};    ///< [N]

  view<index_t, 2, S> histogram{};    ///< [E,bins] for quantile balancing; see bias.hpp
  view<std::int64_t, 1, S> report{};  ///< [route_events] what was counted: index by route_event
};

/// Expert ids from outside, int16 or int32, one row of K for each token or for each table entry.
template <space S = space::host> class expert_ids {
 public:
  constexpr expert_ids() noexcept = default;
  /// From [T,K], or from a table [V,K].
  constexpr expert_ids(view<std::int16_t const, 2, S> ids) noexcept : narrow_(ids) {}
  constexpr expert_ids(view<std::int16_t, 2, S> ids) noexcept : narrow_(ids) {}  ///< likewise
  constexpr expert_ids(view<index_t const, 2, S> ids) noexcept : wide_(ids) {}   ///< likewise
  constexpr expert_ids(view<index_t, 2, S> ids) noexcept : wide_(ids) {}         ///< likewise

  /// Whether the ids are int16.
  [[nodiscard]] SHUNT_HD constexpr bool is_narrow() const noexcept {
    return narrow_.data() != nullptr;
  }
  /// The int16 ids; null where wide() has them.
  [[nodiscard]] constexpr view<std::int16_t const, 2, S> narrow() const noexcept { return narrow_; }
  /// The int32 ids, or null.
  [[nodiscard]] constexpr view<index_t const, 2, S> wide() const noexcept { return wide_; }
  /// The extent of axis d.
  [[nodiscard]] SHUNT_HD constexpr offset_t extent(int d) const noexcept {
    return is_narrow() ? narrow_.extent(d) : wide_.extent(d);
  }
  /// Whether there are ids.
  [[nodiscard]] SHUNT_HD constexpr explicit operator bool() const noexcept {
    return narrow_.data() != nullptr || wide_.data() != nullptr;
  }
  /// The id of choice k in a row.
  [[nodiscard]] SHUNT_HD constexpr index_t operator()(offset_t row, offset_t k) const noexcept {
    return is_narrow() ? static_cast<index_t>(narrow_(row, k)) : wide_(row, k);
  }

 private:
  view<std::int16_t const, 2, S> narrow_;
  view<index_t const, 2, S> wide_;
};

/// Where the numbers of the draws (jitter, random second) are read when the kernel runs, in the
/// policy's memory: a captured CUDA graph that calls advance() (counter.hpp) on them draws anew in
/// each replay. Backward must find what forward found: advance after it.
template <space S = space::host> struct route_draws {
  view<std::uint64_t const, 1, S> seed{};         ///< [1] in place of route_options::seed
  view<std::uint64_t const, 1, S> first_token{};  ///< [1] in place of route_options::first_token

  /// The number in memory, else the option's: for code that runs where that memory is.
  [[nodiscard]] SHUNT_HD constexpr std::uint64_t seed_of(route_options const& o) const noexcept {
    return seed ? seed[0] : o.seed;
  }
  /// The same of the first token.
  [[nodiscard]] SHUNT_HD constexpr std::uint64_t first_token_of(
      route_options const& o) const noexcept {
    return first_token ? first_token[0] : o.first_token;
  }
};

/// What route() reads in addition to the logits; all optional.
template <space S = space::host> struct route_inputs {
  view<float const, 1, S> choice_bias{};   ///< [E] added to the scores for the choice only
  view<std::uint8_t const, 1, S> valid{};  ///< [T] 0: padding; no expert, no gate, no load, no loss
  /// Not chosen but given: [T,K] (a recorded choice), or with `token` a table [V,K].
  expert_ids<S> ids{};
  view<index_t const, 1, S> token{};  ///< [T] the table row of each token (its vocabulary id)
  route_draws<S> draws{};             ///< seed and first token, where memory holds them
};

/// Gradients that come back to the router; all optional but d_gate.
template <space S = space::host> struct route_gradients {
  view<float const, 2, S> gate{};                 ///< [T,K] of the loss to each gate
  view<float const, 1, S> importance{};           ///< [E] to `routing::importance`
  view<float const, 2, S> sequence_importance{};  ///< [N,E] to `routing::sequence_importance`
  view<float const, 1, S> z{};                    ///< [T] to `routing::z`
};

/// What route_expert_choice() writes: each expert's tokens. counts, coverage and report are optional.
template <space S = space::host> struct expert_choice {
  view<index_t, 2, S> token{};        ///< [E,C] ascending; -1 where fewer than C can be had
  view<float, 2, S> gate{};           ///< [E,C]
  view<index_t, 1, S> counts{};       ///< [E] tokens taken
  view<index_t, 1, S> coverage{};     ///< [T] experts that took the token
  view<std::int64_t, 1, S> report{};  ///< [route_events]
};

}  // namespace shunt
