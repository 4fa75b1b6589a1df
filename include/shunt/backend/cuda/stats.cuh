#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/stats/report.hpp"
#include "shunt/stats/rules.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Figures of the load of counts or of a plan, by one warp: a lane is one of the 32 partial sums.
template <class Load>
SHUNT_KERNEL void load_figures_of(offset_t experts, Load load, load_report<space::device> out,
                                  load_events<space::device> events) {
  std::int64_t slots = 0, most = 0;
  for (offset_t e = lane_of_thread(); e < experts; e += warp_lanes) {
    std::int64_t const n = shunt::detail::slots_of(load, e);
    slots += n;
    most = n > most ? n : most;
  }
  slots = warp_fold(slots, [](std::int64_t a, std::int64_t b) { return a + b; });
  most = warp_fold(most, [](std::int64_t a, std::int64_t b) { return a > b ? a : b; });
  shunt::detail::load_distribution const whole(experts, slots, most);
  float entropy = 0.0f, divergence = 0.0f;
  int busy = 0;
  for (offset_t e = lane_of_thread(); e < experts; e += warp_lanes) {
    auto const r = whole.of(shunt::detail::slots_of(load, e));
    entropy = __fmaf_rn(r.share, math::self_information(r.share), entropy);
    divergence = __fmaf_rn(r.weight, math::lopsided(r.skew), divergence);
    busy += r.busy ? 1 : 0;
    if (out.share) out.share[e] = r.share;
  }
  warp_totals(busy);
  entropy = warp_sum(entropy);
  divergence = warp_sum(divergence);
  if (lane_of_thread() == 0) out.figures[0] = whole.figures(busy, entropy, divergence, events);
}

SHUNT_KERNEL void add_loads(view<index_t const, 1, space::device> counts,
                            view<std::int64_t, 1, space::device> total) {
  for (offset_t e = grid_thread(); e < counts.extent(0); e += grid_threads()) total[e] += counts[e];
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct stats_backend<on_cuda> {
  template <class T> using memory = view<T, 1, space::device>;
  using report_type = load_report<space::device>;
  using events_type = load_events<space::device>;

  template <class Count>
  static status figures(on_cuda const& on, memory<Count const> counts, report_type const& out,
                        events_type const& events) noexcept {
    return cuda::launch(on, "load_stats", 1, cuda::warp_lanes,
                        cuda::load_figures_of<memory<Count const>>, counts.extent(0), counts, out,
                        events);
  }
  static status plan_figures(on_cuda const& on, dispatch_plan<space::device> const& plan,
                             report_type const& out, events_type const& events) noexcept {
    return cuda::launch(on, "load_stats", 1, cuda::warp_lanes,
                        cuda::load_figures_of<dispatch_plan<space::device>>,
                        offset_t{plan.experts()}, plan, out, events);
  }
  static status add(on_cuda const& on, memory<index_t const> counts,
                    memory<std::int64_t> total) noexcept {
    return cuda::launch_threads(on, "add_load", counts.extent(0), cuda::add_loads, counts, total);
  }
};

}  // namespace shunt::detail
