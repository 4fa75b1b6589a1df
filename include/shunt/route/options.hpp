#pragma once
#include <cstdint>

#include "shunt/core/shape.hpp"

namespace shunt {

/// What a logit z becomes before anything is chosen.
enum class score_kind : std::uint8_t {
  softmax,        ///< exp(z - max) / sum over the token's experts
  sigmoid,        ///< 1 / (1 + exp(-z))
  sqrt_softplus,  ///< sqrt(log(1 + exp(z)))
  logits          ///< z itself
};

/// What the scores s of the chosen become.
enum class gate_kind : std::uint8_t {
  raw,            ///< scale * s
  renormalized,   ///< scale * s / (sum of the chosen s + epsilon)
  softmax_chosen  ///< scale * softmax of the chosen s (gpt-oss: with score_kind::logits)
};

/// By what the groups of experts are ranked.
enum class group_rule : std::uint8_t {
  best,            ///< their best score
  sum_of_two_best  ///< the sum of their two best (of their only one where a group has one)
};

/// The name of the enumerator.
[[nodiscard]] constexpr char const* to_string(score_kind kind) noexcept {
  switch (kind) {
    case score_kind::softmax: return "softmax";
    case score_kind::sigmoid: return "sigmoid";
    case score_kind::sqrt_softplus: return "sqrt_softplus";
    case score_kind::logits: return "logits";
  }
  return "unknown";
}

/// How a router chooses and weighs. The defaults are OLMoE's: softmax, top-k, raw.
struct route_options {
  score_kind score = score_kind::softmax;  ///< what a logit becomes
  gate_kind gates = gate_kind::raw;        ///< what the chosen scores become
  float scale = 1.0f;                      ///< times every gate
  float epsilon = 0.0f;                    ///< added to the sum when renormalizing

  index_t groups = 1;                      ///< equal runs of experts ...
  index_t top_groups = 1;                  ///< ... of which this many may be chosen from
  group_rule group_by = group_rule::best;  ///< by what groups are ranked

  /// Each logit is multiplied by a factor drawn evenly from [1 - jitter, 1 + jitter) (Switch).
  float jitter = 0.0f;
  /// GShard: the second of two experts is kept with probability 2 * its renormalized share.
  bool random_second = false;
  std::uint64_t seed = 0;         ///< of both; a number depends on seed, token and expert only
  std::uint64_t first_token = 0;  ///< added to the row number: micro-batches draw their own

  index_t zero_experts = 0;    ///< the last of E are no matrices but the identity (LongCat)
  bool gate_on_input = false;  ///< the gate scales the expert's input (Llama 4, band): for dispatch

  /// counts, importance, tokens, histogram and report add to what is there, instead of replacing it:
  /// so they gather over micro-batches.
  bool accumulate = false;
};

/// What routing() counts, each at its place in `routing::report` (int64, so that the reports of
/// micro-batches and ranks can be summed).
enum class route_event : std::uint8_t {
  tokens,             ///< valid tokens routed
  non_finite_tokens,  ///< of them: with a NaN or +Inf logit
  non_finite_logits,  ///< those logits
  empty_tokens,       ///< valid tokens that got no expert at all
  unfilled_slots,     ///< slots of valid tokens that stayed -1 (masked logits; data errors below)
  ids_out_of_range,   ///< forced ids (or table rows) that name no expert
  ids_repeated,       ///< forced ids that the same token had already
  second_dropped,     ///< second experts that the draw left out
  number_of_events    ///< no event: how many there are
};
/// The extent of routing::report.
inline constexpr offset_t route_events = static_cast<offset_t>(route_event::number_of_events);

/// Bins of the quantile balancing histogram where the caller has no wish of his own.
inline constexpr index_t quantile_bins = 1000;

}  // namespace shunt
