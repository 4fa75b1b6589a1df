#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/rules.hpp"

/// The rule of each call of the router, in one step: no field is set later, but the histogram's range,
/// which only the bias's values tell.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// What a call asks of its rule, besides what its options say.
struct rule_needs {
  std::int64_t experts = 0, top_k = 0;
  float const* choice_bias = nullptr;  ///< added to what the choice compares
  bool z = false, importance = false;  ///< these outputs, or their gradients
  std::int64_t bins = 0;               ///< of the histogram
  bool random_second = false;
};

[[nodiscard]] inline route_rule make_rule(route_options const& o, rule_needs const& n) noexcept {
  bool const softmax = o.score == score_kind::softmax, logits = o.score == score_kind::logits;
  bool const chosen_logits = softmax && o.gates == gate_kind::renormalized && !(o.epsilon > 0.0f);
  bool const sums_of_two = o.groups > 1 && o.group_by == group_rule::sum_of_two_best;
  bool const choose_by_score = n.choice_bias != nullptr || sums_of_two;
  bool const scores = n.importance || n.bins > 0 || choose_by_score;
  return {
      .experts = n.experts,
      .top_k = n.top_k,
      .padded = strips_of(n.experts),
      .padded_k = strips_of(n.top_k),
      .score = o.score,
      .gates = o.gates,
      .scale = o.scale,
      .epsilon = o.epsilon,
      .groups = o.groups,
      .top_groups = o.top_groups,
      .group_by = o.group_by,
      .jitter = o.jitter,
      .random_second = n.random_second,
      .choice_bias = n.choice_bias,
      .chosen_logits = chosen_logits,
      .choose_by_score = choose_by_score,
      .exponentials = n.z || (softmax && (scores || !chosen_logits)) || (logits && n.importance),
      .scores = scores,
      .importance = n.importance,
      .z = n.z,
      .bins = n.bins};
}

/// Of route(): forced ids leave nothing for a bias to choose.
template <class T, space S> [[nodiscard]] route_rule make_rule(route_call<T, S> const& c) noexcept {
  return make_rule(c.options, {.experts = c.logits.extent(1),
                               .top_k = c.out.expert.extent(1),
                               .choice_bias = c.with.ids ? nullptr : c.with.choice_bias.data(),
                               .z = bool(c.out.z),
                               .importance = c.out.importance || c.out.sequence_importance,
                               .bins = c.out.histogram ? c.out.histogram.extent(1) : 0,
                               .random_second = c.options.random_second});
}

/// Of route_backward(), whose choice is known.
template <class T, class G, space S>
[[nodiscard]] route_rule make_rule(route_backward_call<T, G, S> const& c) noexcept {
  return make_rule(c.options, {.experts = c.logits.extent(1),
                               .top_k = c.expert.extent(1),
                               .z = bool(c.d.z),
                               .importance = c.d.importance || c.d.sequence_importance});
}
/// Of the choice that route_backward() repeats, without the draw, where a draw left the second out.
template <class T, class G, space S>
[[nodiscard]] route_rule make_choice_rule(route_backward_call<T, G, S> const& c) noexcept {
  return make_rule(c.options, {.experts = c.logits.extent(1),
                               .top_k = c.expert.extent(1),
                               .choice_bias = c.with.choice_bias.data()});
}

/// Of route_expert_choice() and its backward: scores only, as experts choose.
template <class T, space S>
[[nodiscard]] route_rule make_rule(expert_choice_call<T, S> const& c) noexcept {
  return make_rule(c.options, {.experts = c.logits.extent(1), .top_k = 1});
}
template <class T, class G, space S>
[[nodiscard]] route_rule make_rule(expert_choice_backward_call<T, G, S> const& c) noexcept {
  return make_rule(c.options, {.experts = c.logits.extent(1), .top_k = 1});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
