#pragma once
#include <algorithm>
#include <cstdint>

#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/math.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/rules.hpp"

/// The losses and the bias steps, a row by one warp.
namespace shunt::cuda::balance {
inline namespace SHUNT_ABI {

using namespace shunt::detail;

template <class At> __device__ std::int64_t whole_sum(std::int64_t n, At const& at) {
  std::int64_t part = 0;
  for (std::int64_t i = lane_of_thread(); i < n; i += warp_lanes) part += at(i);
  return warp_fold(part, [](std::int64_t a, std::int64_t b) { return a + b; });
}
template <class Step> __device__ float strided_sum(std::int64_t n, Step const& step) {
  float part = 0.0f;
#pragma unroll 8
  for (std::int64_t i = lane_of_thread(); i < n; i += warp_lanes) part = step(i, part);
  return warp_sum(part);
}
template <class F> __device__ void each(std::int64_t n, F const& f) {
  for (std::int64_t i = lane_of_thread(); i < n; i += warp_lanes) f(i);
}
template <class F> __device__ void once(F const& f) {
  if (lane_of_thread() == 0) f();
}

struct place_in_sum {
  std::int64_t at, below;
};
template <class At>
__device__ place_in_sum first_reaching(std::int64_t n, At const& at, std::int64_t wanted) {
  std::int64_t below = 0;
  for (std::int64_t base = 0; base < n; base += warp_lanes) {
    std::int64_t const i = base + lane_of_thread(), here = i < n ? at(i) : 0;
    std::int64_t const up_to = below + warp_prefix(here);
    unsigned const reached = __ballot_sync(all_lanes, here > 0 && up_to >= wanted);
    if (reached != 0) {
      int const lane = __ffs(static_cast<int>(reached)) - 1;
      return {base + lane, __shfl_sync(all_lanes, up_to - here, lane)};
    }
    below = __shfl_sync(all_lanes, up_to, warp_lanes - 1);
  }
  return {n, below};
}
template <class Bias> __device__ bias_range range_of(Bias const& bias) {
  bias_range r = bias_range::none();
  for (offset_t e = lane_of_thread(); e < bias.extent(0); e += warp_lanes) r.add(bias[e]);
  return bias_range{-warp_largest(-r.lowest), warp_largest(r.highest)}.widened();
}

#define SHUNT_BALANCE __device__ inline
#include "shunt/route/balance_functions.inl"
#undef SHUNT_BALANCE

/// One block: a warp has one sequence, the first thread chains their losses in order.
SHUNT_KERNEL void __launch_bounds__(tuning::lone_block, 1)
    balance_losses(balance_call<space::device> c) {
  __shared__ float sums[tuning::lone_block / warp_lanes];
  offset_t const sequences = c.counts.extent(0);
  auto const warps = static_cast<int>(blockDim.x) / warp_lanes;
  auto const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  std::int64_t counted = 0;
  for (offset_t at = 0; at < sequences; at += blockDim.x) {
    offset_t const n = at + threadIdx.x;
    counted += __syncthreads_count(n < sequences && c.tokens[n] > 0);
  }
  float const factor = balance_factor(c, counted);
  float loss = c.accumulate ? c.loss[0] : 0.0f;
  for (offset_t at = 0; at < sequences; at += warps) {
    if (at + warp < sequences) {
      float const sum = balance_row(c, at + warp, factor);
      if (lane_of_thread() == 0) sums[warp] = sum;
    }
    __syncthreads();
    auto const here = static_cast<int>(min(sequences - at, offset_t{warps}));
    for (int i = 0; threadIdx.x == 0 && i < here; ++i) loss = math::fma(factor, sums[i], loss);
    __syncthreads();
  }
  if (threadIdx.x == 0) c.loss[0] = loss;
}

/// The value is one chain for each of 32 lanes: the first warp's, beside its share of the slopes.
SHUNT_KERNEL void z_losses(z_loss_call<space::device> c) {
  float const factor = z_factor(c);
  if (grid_warp() == 0) z_value(c, factor);
  for (offset_t t = grid_thread(); t < c.z.extent(0); t += grid_threads()) z_slope(c, factor, t);
}

SHUNT_KERNEL void band_losses(band_call<space::device> c) { band_loss(c); }
SHUNT_KERNEL void sign_steps(sign_step_call<space::device> c) { sign_step(c); }

/// One block, as every expert's quantile needs the range of the old biases, and the mean all new ones.
SHUNT_KERNEL void __launch_bounds__(tuning::lone_block, 1)
    quantile_steps(quantile_step_call<space::device> c) {
  auto const warps = static_cast<int>(blockDim.x) / warp_lanes;
  auto const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  bias_range const range = range_of(c.bias);
  __syncthreads();
  for (offset_t e = warp; e < c.histogram.extent(0); e += warps) quantile_of(c, e, range);
  __syncthreads();
  if (warp == 0) center(c);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda::balance

namespace shunt::detail {

template <> struct route_balance_backend<on_cuda> {
  static status run(on_cuda const& on, balance_call<space::device> const& c) noexcept {
    return cuda::launch(on, "balance_loss", 1, cuda::threads_for(c.counts.extent(0)),
                        cuda::balance::balance_losses, c);
  }
  static status run(on_cuda const& on, z_loss_call<space::device> const& c) noexcept {
    return cuda::launch_threads(on, "z_loss", std::max<offset_t>(c.z.extent(0), 1),
                                cuda::balance::z_losses, c);
  }
  static status run(on_cuda const& on, band_call<space::device> const& c) noexcept {
    return cuda::launch(on, "band_loss", 1, cuda::warp_lanes, cuda::balance::band_losses, c);
  }
  static status run(on_cuda const& on, sign_step_call<space::device> const& c) noexcept {
    return cuda::launch(on, "sign_step", 1, cuda::warp_lanes, cuda::balance::sign_steps, c);
  }
  static status run(on_cuda const& on, quantile_step_call<space::device> const& c) noexcept {
    return cuda::launch(on, "quantile_step", 1, cuda::threads_for(c.histogram.extent(0)),
                        cuda::balance::quantile_steps, c);
  }
};

}  // namespace shunt::detail
