#pragma once
#include "shunt/backend/cuda/nn/attention/mma.cuh"

// The gradients of attention of bf16 and fp16 on tensor cores: the weights, and what they become, are
// rounded to the storage type before they meet the other side. Blocks as in attention/backward.cuh;
// within one, a warp has 16 of the 64 rows or keys that are the block's own.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Both sides' 64 vectors, and what belongs to each query row.
template <class T, int Depth> struct mma_pair {
  alignas(16) T first[tile_side * Depth], second[tile_side * Depth];
};
/// sum = own · the 32 vectors of a tile from `from` on.
template <int Steps, class T, int Depth>
__device__ void mma_products(std::uint32_t const (&own)[Steps][4], mma_tile<T, Depth> const& tile,
                             int from, float (&sum)[4][4]) {
  int const lane = lane_of_thread();
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[n][i] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < Steps; ++k) {
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      std::uint32_t b[4];
      tile.template load<false>(from + 8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2, b);
      add_step<T>(own[k], b[0], b[1], sum[n]);
      add_step<T>(own[k], b[2], b[3], sum[n + 1]);
    }
  }
}
/// sum += weight · the 32 vectors of a tile from `from` on, of which 8 · Tiles columns from `chunk` on.
template <int Tiles, class T, int Depth>
__device__ void mma_gather(float const (&weight)[4][4], mma_tile<T, Depth> const& tile, int from,
                           int chunk, float (&sum)[Tiles][4]) {
  int const lane = lane_of_thread(), eighth = lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    std::uint32_t const w[4] = {pair_of<T>(weight[2 * k][0], weight[2 * k][1]),
                                pair_of<T>(weight[2 * k][2], weight[2 * k][3]),
                                pair_of<T>(weight[2 * k + 1][0], weight[2 * k + 1][1]),
                                pair_of<T>(weight[2 * k + 1][2], weight[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      std::uint32_t b[4];
      tile.template load<true>(from + 16 * k + eighth, chunk + n + lane / 16, b);
      add_step<T>(w, b[0], b[1], sum[n]);
      add_step<T>(w, b[2], b[3], sum[n + 1]);
    }
  }
}
/// A score, d_out · v, log_sum in powers of two and δ to the weights of both gradients.
__device__ inline void mma_weights(bool seen, float factor, float shift, float delta, float& s,
                                   float& d_p) {
  s = seen ? power_of_two(__fmaf_rn(s, factor, -shift)) : 0.0f;
  d_p = seen ? __fmul_rn(s, __fadd_rn(d_p, -delta)) : 0.0f;
}
/// One of a lane's two rows of results to the columns of a head that they are, times a factor.
template <int Tiles, class T>
__device__ void store_own(float const (&sum)[Tiles][4], int r, float factor, T* to, int column,
                          int columns) {
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    int const d = column + 8 * n + lane_of_thread() % 4 * 2;
    if (d < columns) to[d] = from_float<T>(__fmul_rn(sum[n][2 * r], factor));
    if (d + 1 < columns) to[d + 1] = from_float<T>(__fmul_rn(sum[n][2 * r + 1], factor));
  }
}

inline constexpr float log2_of_e = 0x1.715476p+0f;

template <int Depth, class T>
SHUNT_KERNEL void __launch_bounds__(mma_threads, 2)
    attend_queries_back_mma(attention_backward_call<T, space::device> call, attention_cut cut,
                            float const* delta, bool aligned) {
  __shared__ mma_pair<T, Depth> memory;
  mma_tile<T, Depth> const left{memory.first}, right{memory.second};
  int const lane = lane_of_thread(),
            mine = static_cast<int>(threadIdx.x) / warp_lanes * 16 + lane / 4;
  float const factor = __fmul_rn(call.scale, log2_of_e);
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, first = (cut.tiles - 1 - task.tile) * tile_side;
    int const count = static_cast<int>(min(offset_t{tile_side}, cut.rows - first));
    offset_t const most = cut.keys_of(first + count - 1);
    __syncthreads();
    left.template bring<tile_side>(count, cut.head_dim, aligned,
                                   [&](int r) { return query_at(call.q, cut, part, first + r); });
    right.template bring<tile_side>(count, cut.head_dim, aligned, [&](int r) {
      return query_at(call.d_out, cut, part, first + r);
    });
    wait_for_groups<0>();
    __syncthreads();
    std::uint32_t q[Depth / 16][4], d_out[Depth / 16][4];
    load_own(left, q);
    load_own(right, d_out);
    float shift[2], less[2], d_q[Depth / 8][4] = {};
    offset_t sees[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      offset_t const row = first + mine + 8 * r;
      bool const there = row < cut.rows;
      shift[r] = there ? __fmul_rn(row_value(call.log_sum, cut, part, row), log2_of_e) : 0.0f;
      less[r] = there ? delta[part * cut.rows + row] : 0.0f;
      sees[r] = there ? cut.keys_of(row) : 0;
    }
    T const* const keys = key_at(call.k, cut, part, 0);
    T const* const values = key_at(call.v, cut, part, 0);
    for (offset_t key = 0; key < most; key += tile_side) {
      int const there = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      left.template bring<tile_side>(there, cut.head_dim, aligned,
                                     [&](int j) { return keys + (key + j) * call.k.stride(1); });
      right.template bring<tile_side>(there, cut.head_dim, aligned,
                                      [&](int j) { return values + (key + j) * call.v.stride(1); });
      wait_for_groups<0>();
      __syncthreads();
      for (int from = 0; from < there; from += 32) {
        float s[4][4], d_p[4][4];
        mma_products(q, left, from, s);
        mma_products(d_out, right, from, d_p);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            offset_t const j = key + from + 8 * n + lane % 4 * 2 + i % 2;
            mma_weights(j < sees[i / 2], factor, shift[i / 2], less[i / 2], s[n][i], d_p[n][i]);
          }
        }
        mma_gather(d_p, left, from, 0, d_q);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (mine + 8 * r >= count) continue;
      store_own(d_q, r, call.scale, query_at(call.d_q, cut, part, first + mine + 8 * r), 0,
                cut.head_dim);
    }
  }
}

/// d_k and d_v of 64 keys, 64 columns of them: registers hold no more beside keys and values.
template <int Depth, class T>
SHUNT_KERNEL void __launch_bounds__(mma_threads, 2)
    attend_keys_back_mma(attention_backward_call<T, space::device> call, attention_cut cut,
                         float const* delta, bool aligned) {
  __shared__ mma_pair<T, Depth> memory;
  __shared__ tile_vectors<T> queries, gradients;
  __shared__ float shift[tile_side], less[tile_side];
  __shared__ int sees[tile_side];
  mma_tile<T, Depth> const left{memory.first}, right{memory.second};
  int const lane = lane_of_thread(),
            mine = static_cast<int>(threadIdx.x) / warp_lanes * 16 + lane / 4;
  int const thread = static_cast<int>(threadIdx.x);
  float const factor = __fmul_rn(call.scale, log2_of_e);
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, key = task.tile * tile_side;  // the longest first
    int const keys = static_cast<int>(min(offset_t{tile_side}, cut.length - key));
    __syncthreads();
    left.template bring<tile_side>(keys, cut.head_dim, aligned,
                                   [&](int j) { return key_at(call.k, cut, part, key + j); });
    right.template bring<tile_side>(keys, cut.head_dim, aligned,
                                    [&](int j) { return key_at(call.v, cut, part, key + j); });
    wait_for_groups<0>();
    __syncthreads();
    std::uint32_t k[Depth / 16][4], v[Depth / 16][4];
    load_own(left, k);
    load_own(right, v);
    float d_k[8][4] = {}, d_v[8][4] = {};
    offset_t const start = key * cut.group / tile_side * tile_side;  // whose rows see the first key
    for (offset_t first = start; first < cut.rows; first += tile_side) {
      int const count = static_cast<int>(min(offset_t{tile_side}, cut.rows - first));
      __syncthreads();
      find_vectors<T>(queries, count,
                      [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
      find_vectors<T>(gradients, count,
                      [&](offset_t r) { return query_at(call.d_out, cut, part, first + r); });
      if (thread < tile_side) {
        offset_t const row = first + thread;
        bool const there = thread < count;
        shift[thread] =
            there ? __fmul_rn(row_value(call.log_sum, cut, part, row), log2_of_e) : 0.0f;
        less[thread] = there ? delta[part * cut.rows + row] : 0.0f;
        offset_t const keys_seen = there ? cut.keys_of(row) - key : 0;
        sees[thread] = static_cast<int>(max(offset_t{0}, min(keys_seen, offset_t{tile_side})));
      }
      __syncthreads();
      left.template bring<tile_side>(count, cut.head_dim, aligned,
                                     [&](int r) { return queries.at[r]; });
      right.template bring<tile_side>(count, cut.head_dim, aligned,
                                      [&](int r) { return gradients.at[r]; });
      wait_for_groups<0>();
      __syncthreads();
      for (int from = 0; from < count; from += 32) {
        float s[4][4], d_p[4][4];
        mma_products(k, left, from, s);
        mma_products(v, right, from, d_p);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            int const row = from + 8 * n + lane % 4 * 2 + i % 2;
            mma_weights(mine + i / 2 * 8 < sees[row], factor, shift[row], less[row], s[n][i],
                        d_p[n][i]);
          }
        }
        mma_gather(s, right, from, task.column / 8, d_v);
        mma_gather(d_p, left, from, task.column / 8, d_k);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      offset_t const j = mine + 8 * r;
      if (j >= keys) continue;
      store_own(d_k, r, call.scale, key_at(call.d_k, cut, part, key + j), task.column,
                cut.head_dim);
      store_own(d_v, r, 1.0f, key_at(call.d_v, cut, part, key + j), task.column, cut.head_dim);
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
