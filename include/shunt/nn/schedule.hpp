#pragma once
#include <cstdint>

#include "shunt/nn/detail/angle.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// A learning rate that rises linearly over `warm_up` steps, then falls along half a cosine to
/// `floor` at `steps`, and stays there.
struct cosine_schedule {
  double peak = 1e-3;        ///< the highest rate
  double floor = 1e-4;       ///< the last rate
  std::int64_t warm_up = 0;  ///< steps until the peak
  std::int64_t steps = 1;    ///< all steps, those of the warm-up included
};

/// The rate of step 0, 1, …: the first of W warm-up steps has peak / W, step W has the peak.
/// Source   Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017
[[nodiscard]] SHUNT_HD inline float rate_at(cosine_schedule const& s, std::int64_t step) noexcept {
  if (step < s.warm_up) {
    return static_cast<float>(s.peak * static_cast<double>(step + 1) /
                              static_cast<double>(s.warm_up));
  }
  if (step >= s.steps) return static_cast<float>(s.floor);
  double const done =
      static_cast<double>(step - s.warm_up) / static_cast<double>(s.steps - s.warm_up);
  double const cosine = detail::sine_cosine_of(done * 3.14159265358979323846).cosine;
  double const share = __builtin_fma(cosine, 0.5, 0.5);
  return static_cast<float>(__builtin_fma(s.peak - s.floor, share, s.floor));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
