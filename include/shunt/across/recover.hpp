#pragma once
#include "shunt/core/compiler.hpp"

#include "shunt/across/placement.hpp"
#include "shunt/across/plan.hpp"

/// After a rank was lost: who is left, and where the experts go.
namespace shunt {

/// An exchange that can go on with fewer ranks.
template <class X>
concept recoverable_exchange = exchange<X> && requires(X& x, view<std::uint8_t, 1> survives) {
  { x.recover(survives) } -> std::same_as<status>;
};

namespace detail {
inline namespace SHUNT_ABI {

/// Whether a rank that is left has the expert.
[[nodiscard]] inline bool lives_on_survivor(expert_placement const& p,
                                            view<std::uint8_t const, 1> survives,
                                            index_t expert) noexcept {
  for (int r = 0; r < p.ranks(); ++r) {
    if (survives[r] == 0) continue;
    for (index_t at = p.start[r]; at < p.start[r + 1]; ++at) {
      if (p.expert[at] == expert) return true;
    }
  }
  return false;
}

/// The first of the ranks with the fewest places; count[1 + i] is that of rank i.
[[nodiscard]] inline int least_loaded(view<index_t const, 1> count) noexcept {
  int to = 1;
  for (int i = 2; i < count.extent(0); ++i) to = count[i] < count[to] ? i : to;
  return to - 1;
}

/// Writes how many places each rank that is left will have into start[1…], and returns how many in all.
inline offset_t count_on_survivors(expert_placement const& before,
                                   view<std::uint8_t const, 1> survives,
                                   view<index_t, 1> start) noexcept {
  start[0] = 0;
  offset_t places = 0;
  for (int r = 0, i = 0; r < before.ranks(); ++r) {
    if (survives[r] == 0) continue;
    start[++i] = before.on_rank(r);
    places += start[i];
  }
  for (index_t e = 0; e < before.experts; ++e) {
    if (lives_on_survivor(before, survives, e)) continue;
    ++start[1 + least_loaded(start)];
    ++places;
  }
  return places;
}

/// Fills `expert`: what each rank keeps, then its orphans, sorted in as they come. start[1…] are counts before, and
/// behind it where each rank's places begin.
inline void fill_survivors(expert_placement const& before, view<std::uint8_t const, 1> survives,
                           view<index_t, 1> start, view<index_t, 1> expert) noexcept {
  int const left = static_cast<int>(start.extent(0)) - 1;
  for (int i = 1; i <= left; ++i) start[i] += start[i - 1];
  for (int r = 0, i = 0; r < before.ranks(); ++r) {
    if (survives[r] == 0) continue;
    for (index_t k = 0; k < start[i + 1] - start[i]; ++k) {
      expert[start[i] + k] = k < before.on_rank(r) ? before.expert[before.start[r] + k] : -1;
    }
    ++i;
  }
  auto const filled = [&](int i) {
    index_t count = 0;
    while (start[i] + count < start[i + 1] && expert[start[i] + count] >= 0) ++count;
    return count;
  };
  for (index_t e = 0; e < before.experts; ++e) {
    if (lives_on_survivor(before, survives, e)) continue;
    int to = 0;
    for (int i = 1; i < left; ++i) to = filled(i) < filled(to) ? i : to;
    index_t at = start[to] + filled(to);
    for (; at > start[to] && expert[at - 1] > e; --at) expert[at] = expert[at - 1];
    expert[at] = e;
  }
}

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// Places of the ranks that are left: they keep the experts they have, and those that lived on lost ranks alone go,
/// in ascending order, each to the rank with the fewest places (of equals the first).
/// Shapes  before: R ranks · survives [R], 1: is left · start [R'+1], expert [room], R' ranks that are left → the new
///         placement, in start and expert
/// Errors  views of other extents, too little room (before.places() always suffices)
[[nodiscard]] inline status place_on_survivors(expert_placement const& before,
                                               view<std::uint8_t const, 1> survives,
                                               view<index_t, 1> start, view<index_t, 1> expert,
                                               expert_placement& after) noexcept {
  constexpr char const* who = "place_on_survivors";
  int const ranks = before.ranks();
  if (status bad = first_of(
          check::placement(who, before, ranks),
          check::extent("place_on_survivors.survives", 0, survives.extent(0), ranks, "ranks"));
      !bad.ok()) {
    return bad;
  }
  int left = 0;
  for (int r = 0; r < ranks; ++r) left += survives[r] != 0 ? 1 : 0;
  if (left == 0) {
    return status::fail(error::bad_argument,
                        "place_on_survivors.survives: no rank is left; it must be 1 or more");
  }
  if (status bad = check::extent("place_on_survivors.start", 0, start.extent(0), offset_t{left} + 1,
                                 "survivors + 1");
      !bad.ok()) {
    return bad;
  }
  offset_t const places = detail::count_on_survivors(before, survives, start);
  if (expert.extent(0) < places) {
    return status::fail(
        error::bad_shape,
        "place_on_survivors.expert: extent 0 is %lld; it must be %lld or more (places)",
        static_cast<long long>(expert.extent(0)), static_cast<long long>(places));
  }
  detail::fill_survivors(before, survives, start, expert);
  after = {view<index_t const, 1>(start), view<index_t const, 1>(expert.data(), places),
           before.experts};
  return {};
}

/// The ranks that are left agree on who they are, keep their order and are numbered anew; all of them call it once
/// the exchange has returned error::peer. The caller then places the experts (place_on_survivors), brings the
/// weights of those that lived on lost ranks alone from a checkpoint, and runs the step again: a call that returned
/// an error has written no output, and no weight gradient.
/// Shapes  survives [R] of the ranks before, or null: written, 1 where the rank is left
/// Errors  error::peer where this rank came too late and the others went on without it; error::unsupported where the
///         transport cannot
template <recoverable_exchange X>
[[nodiscard]] status recover(among_ranks<X> const& among,
                             std::type_identity_t<view<std::uint8_t, 1>> survives = {}) noexcept {
  if (survives && survives.extent(0) != among.transport.ranks()) {
    return check::extent("recover.survives", 0, survives.extent(0), among.transport.ranks(),
                         "ranks");
  }
  return among.transport.recover(survives);
}

}  // namespace SHUNT_ABI
}  // namespace shunt
