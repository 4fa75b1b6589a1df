#pragma once
#include <cstdint>

#include "shunt/core/macros.hpp"
#include "shunt/core/math.hpp"
#include "shunt/stats/report.hpp"

namespace shunt::math {
#define SHUNT_MATH SHUNT_HD inline
#include "shunt/stats/load_functions.inl"
#undef SHUNT_MATH
}  // namespace shunt::math

/// The figures of a load, said once for all backends. Ratios are of integers, exact below 2^53, each
/// rounded to float once; fma, so that no compiler decides how.
namespace shunt::detail {
inline namespace SHUNT_ABI {

SHUNT_HD inline double fma_of(double a, double b, double c) noexcept {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

/// Slots of an expert, none below 0; of a plan's, without its segment's padding rows, which stand at
/// the end.
template <class Count, space S>
[[nodiscard]] SHUNT_HD std::int64_t slots_of(view<Count const, 1, S> const& counts,
                                             offset_t e) noexcept {
  return counts[e] > 0 ? counts[e] : 0;
}
template <space S>
[[nodiscard]] SHUNT_HD std::int64_t slots_of(dispatch_plan<S> const& plan, offset_t e) noexcept {
  index_t const first = plan.offset[e];
  index_t last = plan.offset[e + 1];
  while (last > first && plan.row_slot[last - 1] < 0) --last;
  return last - first;
}

/// One expert: its share p of the load, and with u = 1/E (p - u) / (p + u) and (p + u) / 4.
struct load_ratios {
  float share, skew, weight;
  bool busy;  ///< at least half the uniform load
};

/// The whole load; none at all is taken for one slot an expert.
class load_distribution {
 public:
  SHUNT_HD load_distribution(offset_t experts, std::int64_t slots, std::int64_t most) noexcept
      : experts_(experts),
        slots_(slots),
        size_(static_cast<double>(experts)),
        total_(slots == 0 ? size_ : static_cast<double>(slots)),
        peak_(slots == 0 ? 1.0 : static_cast<double>(most)) {}

  [[nodiscard]] SHUNT_HD load_ratios of(std::int64_t slots) const noexcept {
    double const n = slots_ == 0 ? 1.0 : static_cast<double>(slots);
    double const above = fma_of(n, size_, -total_), both = fma_of(n, size_, total_);
    return {static_cast<float>(n / total_), static_cast<float>(above / both),
            static_cast<float>(both / (4.0 * total_ * size_)),
            fma_of(n, 2.0 * size_, -total_) >= 0.0};
  }

  /// From the sums over experts: of those that are busy, of p times its self_information, and of the weights
  /// times the skews' lopsidedness.
  template <space S>
  [[nodiscard]] SHUNT_HD load_figures figures(offset_t busy, float entropy, float divergence,
                                              load_events<S> const& events) const noexcept {
    load_figures f;
    f.slots = slots_;
    f.experts = static_cast<index_t>(experts_);
    if (experts_ > 0) {
      f.utilization = static_cast<float>(total_ / (peak_ * size_));
      f.active_fraction = static_cast<float>(static_cast<double>(busy) / size_);
      f.max_violation = static_cast<float>(fma_of(peak_, size_, -total_) / total_);
    }
    f.entropy = entropy;
    f.jsd = divergence * 0x1.715476p+0f;
    if (events.plan) f.dropped = events.plan[0].dropped;
    if (events.route) {
      f.non_finite = events.route[static_cast<offset_t>(route_event::non_finite_logits)];
    }
    return f;
  }

 private:
  offset_t experts_;
  std::int64_t slots_;
  double size_, total_, peak_;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
