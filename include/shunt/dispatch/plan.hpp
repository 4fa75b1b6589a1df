#pragma once
#include <cstdint>
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/macros.hpp"
#include "shunt/core/segments.hpp"
#include "shunt/core/view.hpp"

namespace shunt {

/// Which row each slot (token·K + k) has, and which slot each row serves: one the inverse of the
/// other. Made by plan_dispatch or plan_from_expert_choice in memory of the caller (carve_plan).
/// Within an expert rows stand in slot order, then padding rows, if any were asked for.
///   Shapes  offset [E+1] · row_slot [R] · slot_row [T·K]
template <space S = space::host> struct dispatch_plan {
  view<index_t, 1, S> offset = {};  ///< rows of local expert e are [offset[e], offset[e+1])
  view<index_t, 1, S> row_slot =
      {};  ///< slot of each row; -1: padding, or a row behind the last segment
  view<index_t, 1, S> slot_row =
      {};                         ///< row of each slot; -1: none (dropped, padding, another shard)
  index_t tokens = 0, top_k = 0;  ///< T and K: the plan has T·K slots
  index_t expected = 0;  ///< rows of one expert, where a guess is better than R / E: see segments

  /// The segments that the experts' products take.
  [[nodiscard]] constexpr shunt::segments<S> segments() const noexcept {
    return {offset, expected};
  }
  /// Local experts.
  [[nodiscard]] constexpr index_t experts() const noexcept { return segments().experts(); }
};

/// Where the slots of a batch went. All but `rows` + `padding` have no row; together they are T·K
/// (of an expert-choice plan: E·C).
struct plan_counts {
  index_t rows = 0;          ///< slots that have a row
  index_t padding = 0;       ///< rows that fill segments up; not slots
  index_t dropped = 0;       ///< beyond an expert's capacity
  index_t unrouted = 0;      ///< id -1
  index_t foreign = 0;       ///< an expert of another shard
  index_t zero = 0;          ///< a zero expert (the identity: combine adds the token itself)
  index_t out_of_range = 0;  ///< an id that names no expert: taken for -1
  index_t repeated = 0;      ///< expert choice: a token named twice by one expert
  index_t invalid = 0;       ///< slots of tokens that do not count
};

/// Further results of a plan; each view is optional and may be read without a
/// synchronization that the caller chooses.
///   Shapes  wanted [E] · kept [E] · totals [1]
template <space S = space::host> struct plan_report {
  view<index_t, 1, S> wanted = {};      ///< slots that asked for each local expert, before drops
  view<index_t, 1, S> kept = {};        ///< slots that got a row there, without padding rows
  view<plan_counts, 1, S> totals = {};  ///< sums over the batch
};

/// Whose slots an expert at its capacity refuses.
enum class drop_policy : std::uint8_t {
  by_position,  ///< those of later tokens (of later k, in one token)
  by_choice,    ///< those of larger k first, then of later tokens (GShard: first choices go first)
  by_gate       ///< those with the lowest gates, a NaN lowest of all; equal gates: the later go
};

/// Options of plan_dispatch, and of what measures its memory: give all the same.
template <space S = space::host> struct plan_options {
  index_t capacity = 0;  ///< rows that an expert takes at most (capacity_rows); 0: dropless
  drop_policy drop = drop_policy::by_position;  ///< which slots go where the capacity is exceeded
  view<float const, 2, S> gate = {};            ///< [T,K], read by drop_policy::by_gate only
  view<std::uint8_t const, 1, S> valid = {};    ///< [T], 0: the token gets no row; null: all count
  index_t segment_multiple = 1;  ///< each segment is padded to a multiple of this many rows
  index_t first_expert = 0;      ///< shard: the global id of local expert 0
  index_t experts = 0;  ///< global ids of real experts are below this; 0: as if no shard followed
  index_t zero_experts = 0;    ///< ids [experts, experts + zero_experts) are zero experts
  plan_report<S> report = {};  ///< out: what was counted
};

/// Options of plan_from_expert_choice.
///   Shapes  gate [E,C] · dense_gate [T,E]
template <space S = space::host> struct expert_choice_options {
  view<float const, 2, S> gate = {};  ///< of each choice; null: not wanted
  view<float, 2, S> dense_gate = {};  ///< written: gate by slot, 0 where none; what combine takes
  view<std::uint8_t const, 1, S> valid = {};  ///< [T], 0: the token gets no row; null: all count
  index_t segment_multiple = 1;  ///< each segment is padded to a multiple of this many rows
  plan_report<S> report = {};    ///< out: what was counted
};

/// Rows an expert takes at most under a capacity factor: ceil(factor · T·K / E), at least 1.
/// Pass the tokens that count. `experts` are all that the tokens choose from.
[[nodiscard]] constexpr index_t capacity_rows(shape const& s, double factor) noexcept {
  constexpr double most = std::numeric_limits<index_t>::max();
  if (s.experts <= 0 || !(factor > 0)) return 1;
  double const rows = factor * s.tokens * s.top_k / s.experts;
  if (rows >= most) return std::numeric_limits<index_t>::max();
  auto const whole = static_cast<index_t>(rows);
  index_t const up = static_cast<double>(whole) < rows ? whole + 1 : whole;
  return up < 1 ? 1 : up;
}

namespace detail {
[[nodiscard]] SHUNT_HD constexpr offset_t rounded_up(offset_t n, offset_t multiple) noexcept {
  return multiple <= 1 ? n : (n + multiple - 1) / multiple * multiple;
}
/// Rows of at most `slots` slots in `experts` segments, none above `capacity` (0: no bound).
[[nodiscard]] constexpr offset_t rows_bound(offset_t slots, offset_t experts, offset_t capacity,
                                            offset_t multiple) noexcept {
  offset_t const padded = slots < experts ? slots : experts;  // segments that are not empty
  offset_t const loose = slots + padded * (multiple < 1 ? 0 : multiple - 1);
  if (capacity <= 0) return loose;
  offset_t const tight = experts * rounded_up(capacity, multiple);
  return tight < loose ? tight : loose;
}
}  // namespace detail

/// Rows that a plan of this shape may need for any ids: the least extent of row_slot.
/// `s.experts` counts the experts that live here.
template <space S = space::host>
[[nodiscard]] constexpr offset_t plan_rows_bound(shape const& s,
                                                 plan_options<S> const& options = {}) noexcept {
  return detail::rows_bound(offset_t{s.tokens} * s.top_k, s.experts, options.capacity,
                            options.segment_multiple);
}

/// The same for a plan from expert choice, of `chosen` tokens (C) an expert.
[[nodiscard]] constexpr offset_t expert_choice_rows_bound(index_t experts, index_t chosen,
                                                          index_t segment_multiple = 1) noexcept {
  return detail::rows_bound(offset_t{experts} * chosen, experts, chosen, segment_multiple);
}

inline namespace SHUNT_ABI {

/// The memory of a plan of tokens · top_k slots, `rows` rows and s.experts local experts.
template <space S>
[[nodiscard]] dispatch_plan<S> carve_plan(arena<S>& a, shape const& s, offset_t rows) noexcept {
  offset_t const slots = offset_t{s.tokens} * s.top_k, ends = offset_t{s.experts} + 1;
  auto const piece = [&](offset_t n) {
    return view<index_t, 1, S>(a.template take<index_t>(n), {{n}});
  };
  dispatch_plan<S> plan;
  plan.offset = piece(ends);
  plan.row_slot = piece(rows);
  plan.slot_row = piece(slots);
  plan.tokens = s.tokens;
  plan.top_k = s.top_k;
  return plan;
}
/// The same for the rows that plan_rows_bound() gives.
template <space S>
[[nodiscard]] dispatch_plan<S> carve_plan(arena<S>& a, shape const& s,
                                          plan_options<S> const& options = {}) noexcept {
  return carve_plan(a, s, plan_rows_bound(s, options));
}

}  // namespace SHUNT_ABI

}  // namespace shunt
