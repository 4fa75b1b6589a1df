#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/math.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::cross_entropy_args;

/// One block: the targets that count.
SHUNT_KERNEL void count_targets(view<index_t const, 1, space::device> target, offset_t vocabulary,
                                offset_t divisor, offset_t* valid) {
  offset_t count = divisor;
  for (offset_t at = 0; divisor == 0 && at < target.extent(0); at += tuning::threads) {
    offset_t const t = at + threadIdx.x;
    count += __syncthreads_count(t < target.extent(0) && target[t] >= 0 && target[t] < vocabulary);
  }
  if (threadIdx.x == 0) *valid = count;
}

/// Loss and gradient of a row of logits, in place: a block has one row. All its threads take
/// exponentials, its first warp sums them in the order of every row: 32 strided partial sums.
SHUNT_KERNEL void cross_entropy_rows(cross_entropy_args a, offset_t tokens, bool wanted) {
  constexpr int threads = tuning::threads, warps = threads / warp_lanes, piece = 4 * threads;
  __shared__ float staged[2][piece], tops[warps], sum;
  int const thread = static_cast<int>(threadIdx.x), warp = thread / warp_lanes;
  offset_t const n = a.vocabulary;
  float const scale = wanted ? a.share() : 0.0f;
  for (offset_t t = blockIdx.x; t < tokens; t += gridDim.x) {
    float* const z = a.logits + t * a.logits_row;
    index_t const target = a.target[t * a.target_step];
    if (target < 0 || target >= n) {
      if (thread == 0) a.loss[t * a.loss_step] = 0.0f;
      for (offset_t i = thread; wanted && i < n; i += threads) z[i] = 0.0f;
      continue;
    }
    float top = -__builtin_inff();
#pragma unroll 4
    for (offset_t i = thread; i < n; i += threads) top = top < z[i] ? z[i] : top;
    top = warp_largest(top);
    if (lane_of_thread() == 0) tops[warp] = top;
    float const chosen = z[target];
    __syncthreads();
    float peak = tops[0];
    for (int w = 1; w < warps; ++w) peak = peak < tops[w] ? tops[w] : peak;
    float part = 0.0f;
    for (offset_t base = 0, turn = 0; base < n; base += piece, turn ^= 1) {
      for (int i = thread; i < piece; i += threads) {
        float e = 0.0f;
        if (base + i < n) {
          e = math::exp(__fadd_rn(z[base + i], -peak));
          if (wanted) z[base + i] = e;
        }
        staged[turn][i] = e;
      }
      __syncthreads();  // the first warp reads one half while the others fill the next
      for (int i = thread; warp == 0 && i < piece; i += warp_lanes) {
        part = __fadd_rn(part, staged[turn][i]);
      }
    }
    if (warp == 0) part = warp_sum(part);
    if (thread == 0) sum = part;
    __syncthreads();
    float const total = sum;
    if (thread == 0) {
      a.loss[t * a.loss_step] = __fadd_rn(__fadd_rn(peak, math::log(total)), -chosen);
    }
    float const share = __fdiv_rn(1.0f, total), factor = __fmul_rn(share, scale);
    float const there = __fmaf_rn(math::exp(__fadd_rn(chosen, -peak)), share, -1.0f);
    for (offset_t i = thread; wanted && i < n; i += threads) {
      z[i] = i == target ? __fmul_rn(there, scale) : __fmul_rn(z[i], factor);
    }
    __syncthreads();  // before the next row takes tops and sum
  }
}

/// One warp: the mean of the losses of the targets that count.
SHUNT_KERNEL void mean_of_losses(float const* loss, offset_t tokens, offset_t const* valid,
                                 float* mean) {
  float const sum = row_sum(loss, tokens);
  if (lane_of_thread() != 0) return;
  *mean = *valid == 0 ? 0.0f : __fdiv_rn(sum, static_cast<float>(*valid));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct cross_entropy_backend<on_cuda> {
  static constexpr char const* who = "cross_entropy";

  static status count(on_cuda const& on, view<index_t const, 1, space::device> target,
                      offset_t vocabulary, offset_t divisor, offset_t* valid) noexcept {
    return cuda::launch(on, who, 1, cuda::tuning::threads, cuda::count_targets, target, vocabulary,
                        divisor, valid);
  }
  static status rows(on_cuda const& on, cross_entropy_args const& a, offset_t tokens,
                     bool wanted) noexcept {
    return cuda::launch(on, who, tokens, cuda::tuning::threads, cuda::cross_entropy_rows, a, tokens,
                        wanted);
  }
  static status mean(on_cuda const& on, float const* loss, offset_t tokens, offset_t const* valid,
                     float* mean) noexcept {
    return cuda::launch(on, who, 1, cuda::warp_lanes, cuda::mean_of_losses, loss, tokens, valid,
                        mean);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
