#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/math.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/rules.hpp"

/// The losses and the bias steps by one thread: rows as short as the number of experts.
namespace shunt::host::balance {
inline namespace SHUNT_ABI {

using namespace shunt::detail;

template <class At> std::int64_t whole_sum(std::int64_t n, At at) noexcept {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += at(i);
  return sum;
}
template <class Step> float strided_sum(std::int64_t n, Step step) noexcept {
  float part[32] = {};
  for (std::int64_t i = 0; i < n; ++i) part[i % 32] = step(i, part[i % 32]);
  for (int half = 16; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}
template <class F> void each(std::int64_t n, F f) noexcept {
  for (std::int64_t i = 0; i < n; ++i) f(i);
}
template <class F> void once(F f) noexcept { f(); }

struct place_in_sum {
  std::int64_t at, below;
};
template <class At>
place_in_sum first_reaching(std::int64_t n, At at, std::int64_t wanted) noexcept {
  place_in_sum p{0, 0};
  for (; p.at < n; ++p.at) {
    std::int64_t const here = at(p.at);
    if (here > 0 && p.below + here >= wanted) break;
    p.below += here;
  }
  return p;
}
inline bias_range range_of(view<float const, 1> bias) noexcept {
  bias_range r = bias_range::none();
  for (std::int64_t e = 0; e < bias.extent(0); ++e) r.add(bias[e]);
  return r.widened();
}

#define SHUNT_BALANCE inline
#include "shunt/route/balance_functions.inl"
#undef SHUNT_BALANCE

inline void balance_loss(balance_call<space::host> const& c) noexcept {
  std::int64_t const sequences = c.counts.extent(0);
  std::int64_t counted = 0;
  for (std::int64_t n = 0; n < sequences; ++n) counted += c.tokens[n] > 0 ? 1 : 0;
  float const factor = balance_factor(c, counted);
  float loss = c.accumulate ? c.loss[0] : 0.0f;
  for (std::int64_t n = 0; n < sequences; ++n) {
    loss = math::fma(factor, balance_row(c, n, factor), loss);
  }
  c.loss[0] = loss;
}

inline void z_loss(z_loss_call<space::host> const& c) noexcept {
  float const factor = z_factor(c);
  z_value(c, factor);
  for (std::int64_t t = 0; t < c.z.extent(0); ++t) z_slope(c, factor, t);
}

inline void quantile_step(quantile_step_call<space::host> const& c) noexcept {
  bias_range const range = range_of(c.bias);
  for (std::int64_t e = 0; e < c.histogram.extent(0); ++e) quantile_of(c, e, range);
  center(c);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host::balance

namespace shunt::detail {

template <> struct route_balance_backend<on_host> {
  static status run(on_host const&, balance_call<space::host> const& c) noexcept {
    host::balance::balance_loss(c);
    return {};
  }
  static status run(on_host const&, z_loss_call<space::host> const& c) noexcept {
    host::balance::z_loss(c);
    return {};
  }
  static status run(on_host const&, band_call<space::host> const& c) noexcept {
    host::balance::band_loss(c);
    return {};
  }
  static status run(on_host const&, sign_step_call<space::host> const& c) noexcept {
    host::balance::sign_step(c);
    return {};
  }
  static status run(on_host const&, quantile_step_call<space::host> const& c) noexcept {
    host::balance::quantile_step(c);
    return {};
  }
};

}  // namespace shunt::detail
