#pragma once
#include <algorithm>
#include <cstdint>

#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/stats/report.hpp"
#include "shunt/stats/rules.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// 32 experts of a load, and the running sums over strips of them.
struct load_strip {
  float share[32], skew[32], weight[32];
};
struct load_sums {
  float entropy[32], divergence[32];
};

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/stats_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// Figures of the load of counts or of a plan.
template <class Load>
void load_figures_of(on_host const& on, offset_t experts, Load const& load,
                     load_report<space::host> const& out,
                     load_events<space::host> const& events) noexcept {
  std::int64_t slots = 0, most = 0;
  for (offset_t e = 0; e < experts; ++e) {
    std::int64_t const n = detail::slots_of(load, e);
    slots += n;
    most = std::max(most, n);
  }
  detail::load_distribution const whole(experts, slots, most);
  auto* const add = SHUNT_ISA_PICK(on, add_experts);
  auto* const sum = SHUNT_ISA_PICK(on, sum_of_strip);
  load_sums sums = {};
  offset_t busy = 0;
  for (offset_t first = 0; first < experts; first += 32) {
    load_strip strip = {};
    for (offset_t e = first; e < std::min(first + 32, experts); ++e) {
      detail::load_ratios const r = whole.of(detail::slots_of(load, e));
      offset_t const j = e - first;
      strip.share[j] = r.share;
      strip.skew[j] = r.skew;
      strip.weight[j] = r.weight;
      busy += r.busy ? 1 : 0;
      if (out.share) out.share[e] = r.share;
    }
    add(strip, sums);
  }
  out.figures[0] = whole.figures(busy, sum(sums.entropy), sum(sums.divergence), events);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct stats_backend<on_host> {
  template <class Count>
  static status figures(on_host const& on, view<Count const, 1, space::host> counts,
                        load_report<> const& out, load_events<> const& events) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    host::load_figures_of(on, counts.extent(0), counts, out, events);
    return {};
  }
  static status plan_figures(on_host const& on, dispatch_plan<> const& plan,
                             load_report<> const& out, load_events<> const& events) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    host::load_figures_of(on, plan.experts(), plan, out, events);
    return {};
  }
  static status add(on_host const& on, view<index_t const, 1, space::host> counts,
                    view<std::int64_t, 1, space::host> total) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    for (offset_t e = 0; e < counts.extent(0); ++e) total[e] += counts[e];
    return {};
  }
};

}  // namespace shunt::detail
