#pragma once
#include <cstdint>

#include "shunt/backend/host/abi.hpp"
#include "shunt/core/math.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"
#include "shunt/route/calls.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// Row sums in the house's order, for rows as short as the number of experts: partial j adds the
/// terms j, j + 32, ...; then halves. `step(i, so_far)` adds term i to its partial.
template <class Step> float strided_sum(std::int64_t n, Step step) noexcept {
  float part[32] = {};
  for (std::int64_t i = 0; i < n; ++i) part[i % 32] = step(i, part[i % 32]);
  for (int half = 16; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

/// The least and the largest finite bias, one unit to either side: the histogram's range.
struct bias_range {
  float lowest, highest;
};
inline bias_range range_of(view<float const, 1> bias) noexcept {
  bool any = false;
  bias_range r{0.0f, 0.0f};
  for (std::int64_t e = 0; e < bias.extent(0); ++e) {
    float const b = bias[e];
    if (!(math::abs(b) < __builtin_inff())) continue;
    r.lowest = !any || b < r.lowest ? b : r.lowest;
    r.highest = !any || b > r.highest ? b : r.highest;
    any = true;
  }
  return {r.lowest - 1.0f, r.highest + 1.0f};
}

inline std::int64_t total_of(view<index_t const, 1> counts) noexcept {
  std::int64_t total = 0;
  for (std::int64_t e = 0; e < counts.extent(0); ++e) total += counts[e];
  return total;
}

/// The sum of f P of one row; factor times its gradient to each importance.
inline float balance_row(view<index_t const, 1> counts, view<float const, 1> importance,
                         index_t tokens, float factor, view<float, 1> d, bool accumulate) noexcept {
  std::int64_t const experts = counts.extent(0), slots = total_of(counts);
  float const n = static_cast<float>(tokens), all = static_cast<float>(slots);
  bool const any = tokens > 0 && slots > 0;
  float const sum = !any ? 0.0f : strided_sum(experts, [&](std::int64_t e, float so_far) {
    return math::fma(static_cast<float>(counts[e]) / all, importance[e] / n, so_far);
  });
  for (std::int64_t e = 0; e < experts; ++e) {
    float const f = any ? static_cast<float>(counts[e]) / all : 0.0f;
    d[e] = math::fma(f, any ? factor / n : 0.0f, accumulate ? d[e] : 0.0f);
  }
  return sum;
}

inline void balance_loss(detail::balance_call<space::host> const& c) noexcept {
  std::int64_t const sequences = c.counts.extent(0), experts = c.counts.extent(1);
  std::int64_t counted = 0;
  for (std::int64_t n = 0; n < sequences; ++n) counted += c.tokens[n] > 0 ? 1 : 0;
  float const share = counted == 0 ? 0.0f : c.coefficient / static_cast<float>(counted);
  float const factor = share * static_cast<float>(experts);
  float loss = c.accumulate ? c.loss[0] : 0.0f;
  for (std::int64_t n = 0; n < sequences; ++n) {
    float const sum = balance_row(c.counts[n], c.importance[n], c.tokens[n], factor,
                                  c.d_importance[n], c.accumulate);
    loss = math::fma(factor, sum, loss);
  }
  c.loss[0] = loss;
}

inline void z_loss(detail::z_loss_call<space::host> const& c) noexcept {
  std::int64_t const tokens = c.z.extent(0);
  float const n = static_cast<float>(c.tokens[0]);
  float const factor = c.tokens[0] > 0 ? c.coefficient / n : 0.0f;
  float const sum = strided_sum(
      tokens, [&](std::int64_t t, float so_far) { return math::fma(c.z[t], c.z[t], so_far); });
  c.loss[0] = math::fma(factor, sum, c.accumulate ? c.loss[0] : 0.0f);
  for (std::int64_t t = 0; t < tokens; ++t) {
    c.d_z[t] = math::fma(factor + factor, c.z[t], c.accumulate ? c.d_z[t] : 0.0f);
  }
}

inline void band_loss(detail::band_call<space::host> const& c) noexcept {
  std::int64_t const experts = c.counts.extent(0), slots = total_of(c.counts);
  float const n = static_cast<float>(c.tokens[0]), wide = static_cast<float>(experts);
  bool const any = c.tokens[0] > 0 && (slots > 0 || !c.by_counts);
  struct excess {
    float over, under;  // the load above the band, and below it, where positive
  };
  auto const excess_of = [&](std::int64_t e) -> excess {
    float const share = c.by_counts ? static_cast<float>(c.counts[e]) / static_cast<float>(slots)
                                    : c.importance[e] / n;
    return {math::fma(share, wide, -c.high), math::fma(-share, wide, c.low)};
  };
  float const sum = !any ? 0.0f : strided_sum(experts, [&](std::int64_t e, float so_far) {
    excess const x = excess_of(e);
    return so_far + (x.over > 0.0f ? x.over : x.under > 0.0f ? x.under : 0.0f);
  });
  c.loss[0] = math::fma(c.coefficient, sum, c.accumulate ? c.loss[0] : 0.0f);
  float const slope = any ? c.coefficient * (wide / n) : 0.0f;
  for (std::int64_t e = 0; e < experts; ++e) {
    excess const x = any ? excess_of(e) : excess{0.0f, 0.0f};
    float const side = x.over > 0.0f ? 1.0f : x.under > 0.0f ? -1.0f : 0.0f;
    c.d_importance[e] = math::fma(side, slope, c.accumulate ? c.d_importance[e] : 0.0f);
  }
}

inline void sign_step(detail::sign_step_call<space::host> const& c) noexcept {
  std::int64_t const experts = c.counts.extent(0), total = total_of(c.counts);
  for (std::int64_t e = 0; e < experts; ++e) {
    std::int64_t const mine = c.counts[e] * experts;  // against the mean, without a division
    if (mine < total) c.bias[e] = c.bias[e] + c.step;
    if (mine > total) c.bias[e] = c.bias[e] - c.step;
  }
}

/// Where a share top_k / experts of the entries of one row lies, inside its bin.
inline float quantile_of(view<index_t const, 1> bins, std::int64_t top_k, std::int64_t experts,
                         bias_range range, float otherwise) noexcept {
  std::int64_t const entries = total_of(bins);
  if (entries == 0) return otherwise;
  float const width = (range.highest - range.lowest) / static_cast<float>(bins.extent(0));
  std::int64_t const wanted = top_k * entries;  // times experts: all in whole numbers
  std::int64_t below = 0;
  for (std::int64_t i = 0; i < bins.extent(0); ++i) {
    std::int64_t const here = static_cast<std::int64_t>(bins[i]) * experts;
    if (here > 0 && below + here >= wanted) {
      float const part = static_cast<float>(wanted - below) / static_cast<float>(here);
      float const edge = math::fma(static_cast<float>(i), width, range.lowest);
      return math::fma(part, width, edge);
    }
    below += here;
  }
  return range.highest;
}

inline void quantile_step(detail::quantile_step_call<space::host> const& c) noexcept {
  std::int64_t const experts = c.histogram.extent(0);
  bias_range const range = range_of(c.bias);
  for (std::int64_t e = 0; e < experts; ++e) {
    c.bias[e] = quantile_of(c.histogram[e], c.top_k, experts, range, c.bias[e]);
  }
  float const sum =
      strided_sum(experts, [&](std::int64_t e, float so_far) { return so_far + c.bias[e]; });
  float const mean = sum / static_cast<float>(experts);
  for (std::int64_t e = 0; e < experts; ++e) c.bias[e] = c.bias[e] - mean;
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

namespace shunt::detail {
inline status run_on(on_host const&, balance_call<space::host> const& c) noexcept {
  host::balance_loss(c);
  return {};
}
inline status run_on(on_host const&, z_loss_call<space::host> const& c) noexcept {
  host::z_loss(c);
  return {};
}
inline status run_on(on_host const&, band_call<space::host> const& c) noexcept {
  host::band_loss(c);
  return {};
}
inline status run_on(on_host const&, sign_step_call<space::host> const& c) noexcept {
  host::sign_step(c);
  return {};
}
inline status run_on(on_host const&, quantile_step_call<space::host> const& c) noexcept {
  host::quantile_step(c);
  return {};
}
}  // namespace shunt::detail
