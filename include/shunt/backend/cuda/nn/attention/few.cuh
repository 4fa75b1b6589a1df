#pragma once
#include "shunt/backend/cuda/nn/attention/cut.cuh"
#include "shunt/core/math.hpp"

// Attention of few query rows over a cache: what a decoding step asks. Tiles of 64 rows would mostly
// multiply zeros; here a block has all rows of one sequence and key/value head, keys are read by lanes
// side by side in their panels and values in theirs, and nothing is staged. The same chains, the same
// bits.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int few_rows = 16, few_depth = 256;

struct few_memory {
  float q[few_rows][few_depth], weight[few_rows][tile_side], factor[few_rows];
};

/// The scores of 64 keys, -Inf where a row does not see one: a thread has one key and every fourth row.
template <class T>
__device__ void few_scores(T const* panel, attention_cut const& cut, offset_t key, int keys,
                           few_memory& m) {
  constexpr int each = few_rows * tile_side / tile_threads, apart = tile_threads / tile_side;
  int const thread = static_cast<int>(threadIdx.x), j = thread % tile_side;
  float sum[each] = {};
#pragma unroll 8
  for (int d = 0; d < cut.head_dim; ++d) {
    float const x = j < keys ? to_float(panel[offset_t{d} * tile_side + j]) : 0.0f;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int const r = thread / tile_side + apart * i;
      if (r < cut.rows) sum[i] = __fmaf_rn(m.q[r][d], x, sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < each; ++i) {
    int const r = thread / tile_side + apart * i;
    if (r < cut.rows) { m.weight[r][j] = key + j < cut.keys_of(r) ? sum[i] : -__builtin_inff(); }
  }
}

/// One step of a row's online softmax, by a warp.
__device__ inline void few_soften(float* weight, float& peak, float& sum, float& factor) {
  int const lane = lane_of_thread();
  float const a = weight[lane], b = weight[lane + warp_lanes], least = -__builtin_inff();
  float top = least < a ? a : least;
  top = warp_largest(top < b ? b : top);
  float const next = peak < top ? top : peak;
  float const shrink = math::exp(__fadd_rn(peak, -next));
  float const p = math::exp(__fadd_rn(a, -next)), q = math::exp(__fadd_rn(b, -next));
  peak = next;
  sum = __fmaf_rn(sum, shrink, warp_sum(__fadd_rn(p, q)));
  weight[lane] = p;
  weight[lane + warp_lanes] = q;
  if (lane == 0) factor = shrink;
}

template <int Width, class T>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend_few(attention_call<T, space::device> call, device_cache<T> cache, attention_cut cut) {
  constexpr int warps = tile_threads / warp_lanes, apart = tile_threads / Width,
                each = few_rows / apart;
  __shared__ few_memory m;
  int const thread = static_cast<int>(threadIdx.x), warp = thread / warp_lanes;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part;
    if (!cut.begin(part, cache.capacity)) {
      store_zeros(call.out, cut, part, 0, cut.rows, task.column);
      continue;
    }
    offset_t const most = cut.keys_of(cut.rows - 1);
    int const rows = static_cast<int>(cut.rows), d = task.column + thread % Width;
    for (int r = 0; r < rows; ++r) {
      T const* const from = query_at(call.q, cut, part, r);
      if (thread < cut.head_dim) m.q[r][thread] = __fmul_rn(to_float(from[thread]), call.scale);
    }
    float peak[2] = {-__builtin_inff(), -__builtin_inff()}, sum[2] = {}, out[each] = {};
    for (offset_t key = 0; key < most; key += tile_side) {
      int const keys = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      few_scores(cache.keys(part) + key * cut.head_dim, cut, key, keys, m);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int const r = warp + i * warps;
        if (r < rows) few_soften(m.weight[r], peak[i], sum[i], m.factor[r]);
      }
      __syncthreads();
      T const* const values = cache.values(part) + key * cache.wide() + d;
      int seen[each];
#pragma unroll
      for (int i = 0; i < each; ++i) {
        int const r = thread / Width + apart * i;
        offset_t const sees = r < rows ? cut.keys_of(r) - key : 0;
        seen[i] = static_cast<int>(min(sees, offset_t{keys}));
        if (r < rows) out[i] = __fmul_rn(out[i], m.factor[r]);
      }
#pragma unroll 8
      for (int j = 0; j < keys; ++j) {
        float const x = d < cut.head_dim ? to_float(values[j * cache.wide()]) : 0.0f;
#pragma unroll
        for (int i = 0; i < each; ++i) {
          if (j < seen[i]) out[i] = __fmaf_rn(m.weight[thread / Width + apart * i][j], x, out[i]);
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const r = warp + i * warps;
      if (r < rows && lane_of_thread() == 0) m.factor[r] = __fdiv_rn(1.0f, sum[i]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int const r = thread / Width + apart * i;
      if (r >= rows || d >= cut.head_dim) continue;
      query_at(call.out, cut, part, r)[d] = from_float<T>(__fmul_rn(out[i], m.factor[r]));
    }
    __syncthreads();
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
