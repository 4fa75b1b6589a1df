#pragma once
#include "shunt/across/make_plan.hpp"
#include "shunt/backend/cuda/dispatch.cuh"

namespace shunt::detail {

/// Numbers that the host makes of the ranks' counts, and their copy on the device; and what the device counts.
template <> struct across_tables<on_cuda> {
  static constexpr space S = space::device;
  // On both sides, one behind the other: see `fill`.
  view<index_t, 1> host;
  view<index_t, 1, S> device;
  offset_t at_place = 0, at_quota = 0, at_wanted = 0, at_here = 0, at_tokens = 0;

  // Where no host sees the counts: the placement as kernels read it, and what they make of it.
  view<index_t, 1> placement;  // [R,E] place of each rank's tokens, [R+1] start, [P] expert
  view<index_t, 1, S> placed;  // the same
  view<index_t, 1, S> counts_of, kept;  // [R] of counts + 1, [R,E]
  offset_t at_start = 0, at_expert = 0;

  view<index_t, 1, S> counted;      // [counts + 1] this rank's slots, and its tokens
  view<index_t, 1, S> tail;         // [R] of counts beyond those in the messages
  view<index_t, 1, S> received;     // [N] the expert of each row that came
  view<index_t, 1, S> competitors;  // [T·K] where there is a capacity, and their plan
  dispatch_plan<S> order;
  view<index_t, 1, S> dropped;  // [1]
  arena<S> plan_of_received, plan_of_competitors;

  static across_tables carve(arena<S>& from, arena<>& counts, across_sizes const& n) noexcept {
    across_tables t;
    offset_t const lists = n.ranks * n.local;
    t.at_place = lists;
    t.at_quota = t.at_place + n.experts;
    t.at_wanted = t.at_quota + n.experts;
    t.at_here = t.at_wanted + n.ids();
    t.at_tokens = t.at_here + n.local;
    offset_t const all = t.at_tokens + 1;
    t.host = view<index_t, 1>(counts.take<index_t>(all), {{all}});
    auto const list = [&](offset_t count) {
      return view<index_t, 1, S>(from.take<index_t>(count), {{count}});
    };
    t.device = list(all);
    t.at_start = n.ranks * n.experts;
    t.at_expert = t.at_start + n.ranks + 1;
    offset_t const placement = t.at_expert + n.places;
    t.placement = view<index_t, 1>(counts.take<index_t>(placement), {{placement}});
    t.placed = list(placement);
    t.counts_of = list(n.ranks * (n.counts() + 1));
    t.kept = list(n.ranks * n.experts);
    t.counted = list(n.counts() + 1);
    offset_t const beyond = n.counts() - rank_messages::first;
    t.tail = list(beyond > 0 ? beyond * n.ranks : 0);
    t.received = list(n.rows);
    t.dropped = list(1);
    t.plan_of_received = part(from, {.tokens = static_cast<index_t>(n.rows),
                                     .experts = static_cast<index_t>(n.local),
                                     .top_k = 1});
    if (n.capacity == 0) return t;
    bool const by_choice = n.levels() > 1;
    shape const s{.tokens = static_cast<index_t>(by_choice ? n.top_k : n.tokens),
                  .experts = static_cast<index_t>(n.experts),
                  .top_k = static_cast<index_t>(by_choice ? n.tokens : n.top_k)};
    t.competitors = list(n.tokens * n.top_k);
    t.order = carve_plan(from, s, n.tokens * n.top_k);
    t.plan_of_competitors = part(from, s);
    return t;
  }

 private:
  static arena<S> part(arena<S>& from, shape const& s) noexcept {
    std::size_t const bytes = plan_scratch_bytes(on_cuda{}, s);
    return {from.take<std::byte>(static_cast<offset_t>(bytes)), bytes};
  }
};

}  // namespace shunt::detail
