#pragma once
#include "shunt/backend/cuda/nn/attention/cut.cuh"
#include "shunt/core/math.hpp"

// The gradients, with the host's chains: d_q by blocks of 64 query rows that go through the keys, d_k
// and d_v by blocks of 64 keys that go through the rows. Both make the scores again.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// δ of each query row: d_out · out. A warp has one.
template <class T>
SHUNT_KERNEL void attention_deltas(attention_backward_call<T, space::device> call,
                                   attention_cut cut, float* delta) {
  for (offset_t item = grid_warp(); item < cut.parts * cut.rows; item += grid_warps()) {
    offset_t const part = item / cut.rows, row = item % cut.rows;
    float const dot = row_dot(query_at(call.d_out, cut, part, row),
                              query_at(call.out, cut, part, row), cut.head_dim);
    if (lane_of_thread() == 0) delta[item] = dot;
  }
}

/// From a score, log_sum, d_out · v and δ to the weights of the gradients; 0 where a row does not see
/// a key.
__device__ inline void pair_weights(bool seen, float shift, float delta, float& s, float& d_p) {
  s = seen ? math::exp(__fadd_rn(s, -shift)) : 0.0f;
  d_p = seen ? __fmul_rn(s, __fadd_rn(d_p, -delta)) : 0.0f;
}

/// d_q of 64 query rows: over the keys from the first on.
template <int Quads, class T>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend_queries_back(attention_backward_call<T, space::device> call, attention_cut cut,
                        float const* delta) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, first = (cut.tiles - 1 - task.tile) * tile_side;
    offset_t const count = min(offset_t{tile_side}, cut.rows - first);
    offset_t const least = cut.keys_of(first), most = cut.keys_of(first + count - 1);
    __syncthreads();
    find_vectors<T>(m.q, count, [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
    find_vectors<T>(m.d_out, count,
                    [&](offset_t r) { return query_at(call.d_out, cut, part, first + r); });
    float shift[4], less[4], d_q[4][4 * Quads] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = first + y + 16 * i;
      bool const there = row < cut.rows;
      shift[i] = there ? row_value(call.log_sum, cut, part, row) : 0.0f;
      less[i] = there ? delta[part * cut.rows + row] : 0.0f;
    }
    for (offset_t key = 0; key < most; key += tile_side) {
      int const keys = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
      find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
      __syncthreads();
      float s[4][4], d_p[4][4];
      tile_products(tile_rows<T>(m.q, call.scale), tile_rows<T>(m.k), cut.head_dim, m.tile, s);
      tile_products(tile_rows<T>(m.d_out), tile_rows<T>(m.v), cut.head_dim, m.tile, d_p);
      tile_range seen[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const row = y + 16 * i;
        offset_t const sees = row < count ? cut.keys_of(first + row) - key : 0;
        seen[i] = {0, static_cast<int>(max(offset_t{0}, min(sees, offset_t{tile_side})))};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          pair_weights(x + 16 * j < seen[i].last, shift[i], less[i], s[i][j], d_p[i][j]);
        }
      }
      put_weights(d_p, m.tile);
      bool const whole = least >= key + tile_side;
      tile_gather<Quads>(m.k, 1.0f, keys, seen, whole, task.column, cut.head_dim, m.tile, d_q);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = y + 16 * i;
      if (row >= count) continue;
      store_row<Quads>(d_q[i], call.scale, query_at(call.d_q, cut, part, first + row), task.column,
                       cut.head_dim);
    }
  }
}

/// d_k and d_v of 64 keys: over the query rows that see them, in order. The tiles of `cut` are keys.
template <int Quads, class T>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend_keys_back(attention_backward_call<T, space::device> call, attention_cut cut,
                     float const* delta) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, key = task.tile * tile_side;  // the longest first
    offset_t const keys = min(offset_t{tile_side}, cut.length - key);
    __syncthreads();
    find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
    find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
    float d_k[4][4 * Quads] = {}, d_v[4][4 * Quads] = {};
    offset_t const start = key * cut.group / tile_side * tile_side;  // whose rows see the first key
    for (offset_t first = start; first < cut.rows; first += tile_side) {
      int const count = static_cast<int>(min(offset_t{tile_side}, cut.rows - first));
      __syncthreads();
      find_vectors<T>(m.q, count,
                      [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
      find_vectors<T>(m.d_out, count,
                      [&](offset_t r) { return query_at(call.d_out, cut, part, first + r); });
      __syncthreads();
      float s[4][4], d_p[4][4];
      tile_products(tile_rows<T>(m.k), tile_rows<T>(m.q, call.scale), cut.head_dim, m.tile, s);
      tile_products(tile_rows<T>(m.v), tile_rows<T>(m.d_out), cut.head_dim, m.tile, d_p);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        offset_t const row = first + x + 16 * j;
        bool const there = row < cut.rows;
        float const shift = there ? row_value(call.log_sum, cut, part, row) : 0.0f;
        float const less = there ? delta[part * cut.rows + row] : 0.0f;
        offset_t const sees = there ? cut.keys_of(row) - key : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i)
          pair_weights(y + 16 * i < sees, shift, less, s[i][j], d_p[i][j]);
      }
      tile_range see[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const from = (key + y + 16 * i) * cut.group - first;
        see[i] = {static_cast<int>(max(offset_t{0}, min(from, offset_t{tile_side}))), count};
      }
      bool const whole = cut.keys_of(first) >= key + tile_side;
      put_weights(s, m.tile);
      tile_gather<Quads>(m.d_out, 1.0f, count, see, whole, task.column, cut.head_dim, m.tile, d_v);
      __syncthreads();
      put_weights(d_p, m.tile);
      tile_gather<Quads>(m.q, call.scale, count, see, whole, task.column, cut.head_dim, m.tile,
                         d_k);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const j = y + 16 * i;
      if (j >= keys) continue;
      store_row<Quads>(d_k[i], 1.0f, key_at(call.d_k, cut, part, key + j), task.column,
                       cut.head_dim);
      store_row<Quads>(d_v[i], 1.0f, key_at(call.d_v, cut, part, key + j), task.column,
                       cut.head_dim);
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
