#pragma once
#include <algorithm>
#include <cstdint>

#include "shunt/backend/host/isa.hpp"
#include "shunt/backend/host/regions.hpp"
#include "shunt/stats/report.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// 32 experts of a load, and the running sums over strips of them.
struct load_strip {
  float share[32], skew[32], weight[32];
};
struct load_sums {
  float entropy[32], divergence[32];
};

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/stats_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// Figures of the load count(e), e in [0, experts). Ratios are of integers, exact below 2^53, each
/// rounded to float once; fma, so that no compiler decides how.
template <class Count>
void load_figures_of(on_host const& on, offset_t experts, Count const& count,
                     load_report<space::host> const& out,
                     load_events<space::host> const& events) noexcept {
  load_figures f{.experts = static_cast<index_t>(experts)};
  std::int64_t most = 0;
  for (offset_t e = 0; e < experts; ++e) {
    std::int64_t const n = count(e);
    f.slots += n;
    most = std::max(most, n);
  }
  // No load at all is taken for one slot an expert.
  bool const none = f.slots == 0;
  auto const load = [&](offset_t e) { return none ? 1.0 : static_cast<double>(count(e)); };
  auto const size = static_cast<double>(experts);
  double const total = none ? size : static_cast<double>(f.slots);
  double const peak = none ? 1.0 : static_cast<double>(most);

  auto* const add = SHUNT_ISA_PICK(on, add_experts);
  auto* const sum = SHUNT_ISA_PICK(on, sum_of_strip);
  load_sums sums = {};
  offset_t busy = 0;
  for (offset_t first = 0; first < experts; first += 32) {
    load_strip strip = {};
    for (offset_t e = first; e < std::min(first + 32, experts); ++e) {
      double const n = load(e), above = __builtin_fma(n, size, -total),
                   both = __builtin_fma(n, size, total);
      offset_t const j = e - first;
      strip.share[j] = static_cast<float>(n / total);
      strip.skew[j] = static_cast<float>(above / both);
      strip.weight[j] = static_cast<float>(both / (4.0 * total * size));
      busy += __builtin_fma(n, 2.0 * size, -total) >= 0.0 ? 1 : 0;
      if (out.share) out.share[e] = strip.share[j];
    }
    add(strip, sums);
  }
  if (experts > 0) {
    f.mean_over_max = static_cast<float>(total / (peak * size));
    f.busy_share = static_cast<float>(static_cast<double>(busy) / size);
    f.max_violation = static_cast<float>(__builtin_fma(peak, size, -total) / total);
  }
  f.entropy = sum(sums.entropy);
  f.jsd = sum(sums.divergence) * 0x1.715476p+0f;
  if (events.plan) f.dropped = events.plan[0].dropped;
  if (events.route) {
    f.non_finite = events.route[static_cast<offset_t>(route_event::non_finite_logits)];
  }
  out.figures[0] = f;
}

/// Rows of an expert without its padding rows, which stand at the end of its segment.
inline std::int64_t kept_rows(dispatch_plan<space::host> const& plan, offset_t e) noexcept {
  index_t const first = plan.offset[e];
  index_t last = plan.offset[e + 1];
  while (last > first && plan.row_slot[last - 1] < 0) --last;
  return last - first;
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct stats_on<on_host> {
  template <class Count>
  static status figures(on_host const& on, view<Count const, 1, space::host> counts,
                        load_report<> const& out, load_events<> const& events) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    host::load_figures_of(
        on, counts.extent(0), [&](offset_t e) { return std::max<std::int64_t>(counts[e], 0); }, out,
        events);
    return {};
  }
  static status plan_figures(on_host const& on, dispatch_plan<> const& plan,
                             load_report<> const& out, load_events<> const& events) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    host::load_figures_of(
        on, plan.experts(), [&](offset_t e) { return host::kept_rows(plan, e); }, out, events);
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
