#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"

// RMS norm: a warp has one row, a lane one of the 32 strided partial sums.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::rms_norm_args;
using nn::detail::rms_norm_backward_args;

/// Calls take(i, c) for this lane's columns c of a row, `flight` of them, and then put(i, c): the
/// loads of the first are all under way before the first store of the second.
template <class Take, class Put>
__device__ void for_columns(offset_t width, Take const& take, Put const& put) {
  constexpr int flight = tuning::elements_in_flight;
  for (offset_t at = lane_of_thread(); at < width; at += flight * warp_lanes) {
#pragma unroll
    for (int i = 0; i < flight; ++i) {
      if (at + i * warp_lanes < width) take(i, at + i * warp_lanes);
    }
#pragma unroll
    for (int i = 0; i < flight; ++i) {
      if (at + i * warp_lanes < width) put(i, at + i * warp_lanes);
    }
  }
}

template <class T, class W>
SHUNT_KERNEL void rms_norm_rows(rms_norm_args<T, W> a, offset_t tokens) {
  for (offset_t t = grid_warp(); t < tokens; t += grid_warps()) {
    T const* x = a.x + t * a.x_row;
    float v[tuning::elements_in_flight], w[tuning::elements_in_flight], part = 0.0f;
    if (a.add != nullptr) {
      T const* const add = a.add + t * a.add_row;
      T* const sum = a.sum + t * a.sum_row;
      for_columns(
          a.width, [&](int i, offset_t c) { v[i] = __fadd_rn(to_float(x[c]), to_float(add[c])); },
          [&](int i, offset_t c) {
            T const rounded = from_float<T>(v[i]);  // what backward will read
            float const value = to_float(rounded);
            part = __fmaf_rn(value, value, part);
            sum[c] = rounded;
          });
      x = sum;
    } else {
      for_columns(
          a.width, [&](int i, offset_t c) { v[i] = to_float(x[c]); },
          [&](int i, offset_t) { part = __fmaf_rn(v[i], v[i], part); });
    }
    float const mean = __fdiv_rn(warp_sum(part), static_cast<float>(a.width));
    float const inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, a.epsilon)));
    if (a.inverse != nullptr && lane_of_thread() == 0) a.inverse[t * a.inverse_step] = inverse;
    T* const y = a.y + t * a.y_row;
    for_columns(
        a.width, [&](int i, offset_t c) { v[i] = to_float(x[c]), w[i] = to_float(a.weight[c]); },
        [&](int i, offset_t c) {
          y[c] = from_float<T>(__fmul_rn(__fmul_rn(v[i], inverse), w[i]));
        });
  }
}

/// Each block of tokens' share of dw, a thread a column.
template <class T, class W>
SHUNT_KERNEL void norm_weight_shares(rms_norm_backward_args<T, W> a, offset_t tokens,
                                     float* partial) {
  offset_t const items = nn::detail::pieces_of(tokens, nn::detail::norm_block) * a.width;
  for (offset_t item = grid_thread(); item < items; item += grid_threads()) {
    offset_t const c = item % a.width, first = item / a.width * nn::detail::norm_block;
    offset_t const last = min(first + nn::detail::norm_block, tokens);
    float sum = 0.0f;
#pragma unroll 4
    for (offset_t t = first; t < last; ++t) {
      float const unit = __fmul_rn(to_float(a.x[t * a.x_row + c]), a.inverse[t * a.inverse_step]);
      sum = __fmaf_rn(to_float(a.d_y[t * a.d_y_row + c]), unit, sum);
    }
    partial[item] = sum;
  }
}

/// out (+)= the sum of the rows of `partial`, in their order.
SHUNT_KERNEL void add_norm_shares(float const* partial, offset_t rows,
                                  view<float, 1, space::device> out, bool accumulate) {
  offset_t const width = out.extent(0);
  for (offset_t c = grid_thread(); c < width; c += grid_threads()) {
    float sum = accumulate ? out[c] : 0.0f;
#pragma unroll 4
    for (offset_t b = 0; b < rows; ++b) sum = __fadd_rn(sum, partial[b * width + c]);
    out[c] = sum;
  }
}

/// dx of each row: r·w·dy − x·r³/H·Σ dy·w·x, plus what is added. dx may lie where dy or that does.
template <class T, class W>
SHUNT_KERNEL void rms_norm_gradients(rms_norm_backward_args<T, W> a, offset_t tokens) {
  for (offset_t t = grid_warp(); t < tokens; t += grid_warps()) {
    T const* const x = a.x + t * a.x_row;
    T const* const dy = a.d_y + t * a.d_y_row;
    T const* const add = a.add == nullptr ? nullptr : a.add + t * a.add_row;
    T* const dx = a.d_x + t * a.d_x_row;
    float const r = a.inverse[t * a.inverse_step];
    float v[tuning::elements_in_flight], g[tuning::elements_in_flight], part = 0.0f;
    auto const take = [&](int i, offset_t c) {
      v[i] = to_float(x[c]);
      g[i] = __fmul_rn(to_float(a.weight[c]), to_float(dy[c]));
    };
    for_columns(a.width, take, [&](int i, offset_t) { part = __fmaf_rn(g[i], v[i], part); });
    float const mean = __fdiv_rn(warp_sum(part), static_cast<float>(a.width));
    float const pull = -__fmul_rn(__fmul_rn(__fmul_rn(mean, r), r), r);
    for_columns(a.width, take, [&](int i, offset_t c) {
      float d = __fmaf_rn(v[i], pull, __fmul_rn(g[i], r));
      if (add != nullptr) d = __fadd_rn(d, to_float(add[c]));
      dx[c] = from_float<T>(d);
    });
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct norm_backend<on_cuda> {
  template <class T, class W>
  static status forward(on_cuda const& on, rms_norm_args<T, W> const& a, offset_t tokens) noexcept {
    return cuda::launch_warps(on, "rms_norm", tokens, cuda::rms_norm_rows<T, W>, a, tokens);
  }
  template <class T, class W>
  static status backward(on_cuda const& on, rms_norm_backward_args<T, W> const& a, offset_t tokens,
                         view<float, 1, space::device> d_weight, bool accumulate,
                         float* partial) noexcept {
    constexpr char const* who = "rms_norm_backward";
    status done;
    if (d_weight) {  // before dx, which may lie where dy does
      offset_t const blocks = pieces_of(tokens, norm_block);
      done = cuda::launch_threads(on, who, blocks * a.width, cuda::norm_weight_shares<T, W>, a,
                                  tokens, partial);
      if (done.ok()) {
        done = cuda::launch_threads(on, who, a.width, cuda::add_norm_shares, partial, blocks,
                                    d_weight, accumulate);
      }
    }
    if (!done.ok() || a.d_x == nullptr) return done;
    return cuda::launch_warps(on, who, tokens, cuda::rms_norm_gradients<T, W>, a, tokens);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
