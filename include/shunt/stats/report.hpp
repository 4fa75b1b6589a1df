#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/dispatch/plan.hpp"
#include "shunt/route/options.hpp"

namespace shunt {

/// How the load lies on E experts. With p the shares of the experts and u = 1/E:
struct load_figures {
  std::int64_t slots = 0;       ///< all counts together
  std::int64_t dropped = 0;     ///< slots refused by full experts, where a plan's totals are given
  std::int64_t non_finite = 0;  ///< logits that were NaN or +Inf, where a route's report is given
  index_t experts = 0;          ///< E
  float utilization = 1;      ///< utilization: 1 when all experts have the same load, 1/E at worst
  float active_fraction = 1;  ///< share of the experts with at least half the uniform load
  float max_violation = 0;    ///< max over mean, less 1
  float entropy = 0;          ///< -Σ p log2 p, in bits: log2 E when uniform
  float jsd = 0;  ///< Jensen-Shannon divergence of p and u in bits: 0 when uniform, below 1
};

/// What load_stats writes.
///   Shapes  figures [1] · share [E], null: not wanted
template <space S = space::host> struct load_report {
  view<load_figures, 1, S> figures = {};  ///< written
  view<float, 1, S> share = {};           ///< p
};

/// What load_stats passes on; optional.
template <space S = space::host> struct load_events {
  view<plan_counts const, 1, S> plan = {};    ///< plan_report::totals
  view<std::int64_t const, 1, S> route = {};  ///< routing::report
};

namespace detail {
/// The backend of a policy: one specialization in each backend's stats header.
template <class P> struct stats_backend;
}  // namespace detail

}  // namespace shunt
