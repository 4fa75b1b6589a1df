#pragma once
#include "shunt/core/compiler.hpp"

#include <cstdint>
#include <cstdio>

#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/view.hpp"

/// Which experts each rank holds.
namespace shunt {

/// Experts on ranks. A place is one expert on one rank; places are numbered rank by rank: rank r has places
/// [start[r], start[r+1]), in ascending order of their experts, which is also the order of its weights. An
/// expert may have a place on several ranks (copies), on each of them one; every expert has at least one.
///   Shapes  start [R+1] · expert [P]
struct expert_placement {
  view<index_t const, 1> start = {};   ///< [R+1] first place of each rank, and their number P
  view<index_t const, 1> expert = {};  ///< [P] the global expert of each place
  index_t experts = 0;                 ///< E: experts that have weights, zero experts not counted

  /// R.
  [[nodiscard]] constexpr int ranks() const noexcept {
    return static_cast<int>(start.extent(0)) - 1;
  }
  /// P.
  [[nodiscard]] constexpr index_t places() const noexcept {
    return static_cast<index_t>(expert.extent(0));
  }
  /// Experts that live on a rank.
  [[nodiscard]] constexpr index_t on_rank(int rank) const noexcept {
    return start[rank + 1] - start[rank];
  }
};

namespace check {
inline namespace SHUNT_ABI {

/// A placement on so many ranks: each expert has a place, and no rank the same expert twice.
[[nodiscard]] inline status placement(char const* who, expert_placement const& p,
                                      int ranks) noexcept {
  auto const bad = [&](char const* format, auto... numbers) {
    char what[160];
    std::snprintf(what, sizeof what, format, numbers...);
    return status::fail(error::bad_argument, "%s.placement.%s", who, what);
  };
  if (p.start.extent(0) != offset_t{ranks} + 1) {
    return bad("start: extent 0 is %lld; it must be %d (ranks + 1)",
               static_cast<long long>(p.start.extent(0)), ranks + 1);
  }
  if (!p.start || (!p.expert && p.experts > 0))
    return bad("%s: it must not be null", "start, expert");
  if (p.start[0] != 0 || p.start[ranks] != p.places()) {
    return bad("start: it runs from %d to %d; it must run from 0 to %d (places)", p.start[0],
               p.start[ranks], p.places());
  }
  for (int r = 0; r < ranks; ++r) {
    if (p.start[r + 1] < p.start[r]) {
      return bad("start: entry %d is %d; it must be at least the one before, %d", r + 1,
                 p.start[r + 1], p.start[r]);
    }
    for (index_t at = p.start[r]; at < p.start[r + 1]; ++at) {
      index_t const e = p.expert[at], least = at == p.start[r] ? 0 : p.expert[at - 1] + 1;
      if (e >= least && e < p.experts) continue;
      return bad("expert: place %d (rank %d) is %d; it must be from %d to %d: ascending, each once",
                 at, r, e, least, p.experts - 1);
    }
  }
  constexpr index_t batch = 2048;  // experts looked for at a time, a bit each
  for (index_t first = 0; first < p.experts; first += batch) {
    std::uint64_t found[batch / 64] = {};
    for (index_t at = 0; at < p.places(); ++at) {
      index_t const bit = p.expert[at] - first;
      if (bit >= 0 && bit < batch) found[bit / 64] |= std::uint64_t{1} << (bit % 64);
    }
    for (index_t bit = 0; bit < batch && first + bit < p.experts; ++bit) {
      if ((found[bit / 64] >> (bit % 64) & 1u) != 0) continue;
      return bad("expert: expert %d has no place; it must have one on some rank", first + bit);
    }
  }
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace check

inline namespace SHUNT_ABI {

/// Experts in equal runs by rank, the first ranks one more where they do not divide: writes start [R+1] and
/// expert [E], and returns the placement that views them.
[[nodiscard]] inline expert_placement place_evenly(view<index_t, 1> start,
                                                   view<index_t, 1> expert) noexcept {
  auto const ranks = start.extent(0) - 1, experts = expert.extent(0);
  index_t next = 0;
  for (offset_t r = 0; r <= ranks; ++r) {
    start[r] = next;
    if (r < ranks) next += static_cast<index_t>(experts / ranks + (r < experts % ranks ? 1 : 0));
  }
  for (offset_t e = 0; e < experts; ++e) expert[e] = static_cast<index_t>(e);
  return {start, expert, static_cast<index_t>(experts)};
}

/// A number of the whole placement, to be compared between ranks.
[[nodiscard]] inline std::int64_t placement_number(expert_placement const& p) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  auto const add = [&](index_t value) {
    h = (h ^ static_cast<std::uint32_t>(value)) * 0x100000001b3u;
  };
  for (offset_t r = 0; r < p.start.extent(0); ++r) add(p.start[r]);
  for (offset_t at = 0; at < p.expert.extent(0); ++at) add(p.expert[at]);
  return static_cast<std::int64_t>(h >> 1);
}

/// The place that tokens of `rank` use for each expert: their own rank's where it has one, else of its
/// copies, in the order of ranks, the one whose number is rank mod copies. A rule of rank and expert
/// alone, so that an owner knows where every rank's tokens go.
///   Shapes  place [E]
inline void places_of_rank(expert_placement const& p, int rank, view<index_t, 1> place) noexcept {
  for (index_t e = 0; e < p.experts; ++e) place[e] = 0;
  for (index_t at = 0; at < p.places(); ++at) ++place[p.expert[at]];
  for (index_t e = 0; e < p.experts; ++e) {
    // Until its place is found: how many copies are still to be passed over, as a number below 0.
    place[e] = -1 - (place[e] > 0 ? rank % place[e] : 0);
  }
  for (index_t at = 0; at < p.places(); ++at) {
    index_t& is = place[p.expert[at]];
    if (is >= 0) continue;
    is = is == -1 ? at : is + 1;
  }
  for (index_t at = p.start[rank]; at < p.start[rank + 1]; ++at) place[p.expert[at]] = at;
}

}  // namespace SHUNT_ABI
}  // namespace shunt
