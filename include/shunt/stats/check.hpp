#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/dispatch/check.hpp"
#include "shunt/stats/report.hpp"

/// What load_stats refuses.
namespace shunt {

namespace check {
inline namespace SHUNT_ABI {
template <space S>
[[nodiscard]] status load(load_report<S> const& out, load_events<S> const& events,
                          offset_t experts) noexcept {
  return first_of(
      extent("load_stats.out.figures", 0, out.figures.extent(0), 1, "one load_figures"),
      memory("load_stats.out.figures", out.figures),
      optional_vector("load_stats", "out.share", out.share, experts, "experts"),
      optional_vector("load_stats", "events.plan", events.plan, 1, "one plan_counts"),
      optional_vector("load_stats", "events.route", events.route, route_events, "route_events"));
}
}  // namespace SHUNT_ABI
}  // namespace check
}  // namespace shunt
