#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"
#include "shunt/nn/schedule.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::adamw_args;
using nn::detail::adamw_factors;
using nn::detail::norm_piece;

/// The sum of squares of each piece of the gradient, a warp a piece.
SHUNT_KERNEL void sums_of_squares(view<float const, 1, space::device> gradient, float* partial) {
  offset_t const count = gradient.extent(0), pieces = nn::detail::pieces_of(count, norm_piece);
  for (offset_t piece = grid_warp(); piece < pieces; piece += grid_warps()) {
    float const* const x = gradient.data() + piece * norm_piece;
    offset_t const n = min(norm_piece, count - piece * norm_piece);
    float part = 0.0f;
#pragma unroll 8
    for (offset_t i = lane_of_thread(); i < n; i += warp_lanes) part = __fmaf_rn(x[i], x[i], part);
    part = warp_sum(part);
    if (lane_of_thread() == 0) partial[piece] = part;
  }
}
/// One warp: the root of the sum of all pieces.
SHUNT_KERNEL void root_of_squares(float const* partial, offset_t pieces, float* norm) {
  float const sum = row_sum(partial, pieces);
  if (lane_of_thread() == 0) *norm = __fsqrt_rn(sum);
}

/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← (1 − ηλ)p − η (m/c₁) / (√(v/c₂) + ε).
/// `of_host`: the factors, where step and rate are arguments; else a thread of each block makes them.
template <class T>
SHUNT_KERNEL void adamw_step(adamw_args<T> a, adamw_factors of_host, offset_t count) {
  __shared__ adamw_factors of_block;
  bool const read = a.step_at != nullptr || a.rate_at != nullptr;
  if (read) {
    if (threadIdx.x == 0) of_block = a.factors();
    __syncthreads();
  }
  adamw_factors const f = read ? of_block : of_host;
  float const scale = a.scale();
  if (scale < 0.0f || !f.usable) return;
  for (offset_t i = grid_thread(); i < count; i += grid_threads()) {
    float const g = __fmul_rn(a.gradient[i], scale);
    float const m = __fmaf_rn(a.beta1, a.first_moment[i], __fmul_rn(a.rest1, g));
    float const v = __fmaf_rn(a.beta2, a.second_moment[i], __fmul_rn(__fmul_rn(a.rest2, g), g));
    float const below = __fadd_rn(__fsqrt_rn(__fmul_rn(v, f.unbias2)), a.epsilon);
    float const step = __fdiv_rn(__fmul_rn(m, f.unbias1), below);
    float const p = __fmaf_rn(-f.rate, step, __fmul_rn(a.parameter[i], f.keep));
    a.first_moment[i] = m;
    a.second_moment[i] = v;
    a.parameter[i] = p;
    if (a.copy != nullptr) a.copy[i] = from_float<T>(p);
  }
}

/// One thread.
SHUNT_KERNEL void next_rate(nn::cosine_schedule schedule, std::int64_t const* taken, float* rate) {
  *rate = nn::rate_at(schedule, *taken);
}

template <class T>
SHUNT_KERNEL void round_values(view<float const, 1, space::device> from,
                               view<T, 1, space::device> to) {
  for (offset_t i = grid_thread(); i < to.extent(0); i += grid_threads()) {
    to[i] = from_float<T>(from[i]);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct optimizer_backend<on_cuda> {
  static status norm(on_cuda const& on, view<float const, 1, space::device> gradient, float* norm,
                     float* partial) noexcept {
    constexpr char const* who = "gradient_norm";
    offset_t const pieces = pieces_of(gradient.extent(0), norm_piece);
    status const done =
        cuda::launch_warps(on, who, pieces, cuda::sums_of_squares, gradient, partial);
    if (!done.ok()) return done;
    return cuda::launch(on, who, 1, cuda::warp_lanes, cuda::root_of_squares, partial, pieces, norm);
  }
  template <class T>
  static status adamw(on_cuda const& on, adamw_args<T> const& a, offset_t count) noexcept {
    bool const read = a.step_at != nullptr || a.rate_at != nullptr;
    adamw_factors const of_host = read ? adamw_factors{} : a.factors();
    return cuda::launch_threads(on, "adamw", count, cuda::adamw_step<T>, a, of_host, count);
  }
  static status rate(on_cuda const& on, cosine_schedule const& schedule, std::int64_t const* taken,
                     float* rate) noexcept {
    return cuda::launch(on, "scheduled_rate", 1, 1, cuda::next_rate, schedule, taken, rate);
  }
  template <class T>
  static status copy(on_cuda const& on, view<float const, 1, space::device> from,
                     view<T, 1, space::device> to) noexcept {
    return cuda::launch_threads(on, "working_copy", to.extent(0), cuda::round_values<T>, from, to);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
