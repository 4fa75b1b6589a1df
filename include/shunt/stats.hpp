#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "shunt/backend/host/stats.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/stats/check.hpp"
#include "shunt/stats/report.hpp"

/// Stats: how evenly the experts are used.
namespace shunt {

/// Figures of a load of slots per expert: a batch's (plan_report's or routing's counts) or one that
/// was gathered over many (add_load).
/// Shapes  counts [E] → figures [1], share [E]
/// Types   counts index_t or int64; figures float, from ratios of exact integers.
/// Order   the sums over experts are 32 strided partial sums and a halving tree.
/// Aliasing none.
/// Errors  shapes.  No load at all counts as a uniform one: nothing is NaN.
/// Cost    reads E twice. Never allocates, never syncs.
/// Source  max violation: Wang et al., "Auxiliary-Loss-Free Load Balancing", 2024; divergence: Lin,
///         "Divergence measures based on the Shannon entropy", 1991.
template <execution P, input<P, 1> Counts>
[[nodiscard]] status load_stats(P const& on, Counts counts, load_report<P::memory> const& out,
                                load_events<P::memory> const& events = {}) noexcept {
  using count_type = element_t<Counts>;
  static_assert(std::same_as<count_type, index_t> || std::same_as<count_type, std::int64_t>,
                "shunt::load_stats: counts must be shunt::index_t or std::int64_t");
  auto const load = as_input<P, 1>(counts);
  if (status bad = first_of(check::rows("load_stats.counts", load),
                            check::load(out, events, load.extent(0)));
      !bad.ok()) {
    return bad;
  }
  return detail::stats_backend<P>::figures(on, load, out, events);
}

/// The same for the rows of a plan; its padding rows are no load.
/// Shapes  plan → figures [1], share [E].  Else as above.
template <execution P>
[[nodiscard]] status load_stats(P const& on, dispatch_plan<P::memory> const& plan,
                                load_report<P::memory> const& out,
                                load_events<P::memory> const& events = {}) noexcept {
  if (status bad =
          first_of(check::plan("load_stats", plan), check::load(out, events, plan.experts()));
      !bad.ok()) {
    return bad;
  }
  return detail::stats_backend<P>::plan_figures(on, plan, out, events);
}

/// Gathers the load of batches: total += counts.
/// Shapes  counts [E] → total [E].  Types index_t, int64.  Order exact.  Aliasing none.
/// Errors  shapes.  Cost reads 2·E, writes E.
template <execution P>
[[nodiscard]] status add_load(
    P const& on, std::type_identity_t<view<index_t const, 1, P::memory>> counts,
    std::type_identity_t<view<std::int64_t, 1, P::memory>> total) noexcept {
  if (status bad =
          first_of(check::extent("add_load.total", 0, total.extent(0), counts.extent(0), "experts"),
                   check::rows("add_load.counts", counts), check::rows("add_load.total", total),
                   check::apart("add_load.total", total, "counts", counts));
      !bad.ok()) {
    return bad;
  }
  return detail::stats_backend<P>::add(on, counts, total);
}

}  // namespace shunt
