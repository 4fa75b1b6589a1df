#pragma once
#include "shunt/backend/cuda/nn/attention/cut.cuh"
#include "shunt/core/math.hpp"

// A block has 64 query rows of one sequence and key/value head, numbered query · heads of the group +
// head, as on the host, and goes through the keys 64 at a time: the online softmax takes a new peak
// where the host does. Where heads are wider than a block's columns, further blocks make the others
// (and the scores again).
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// The online softmax of four rows, whose 64 scores each are in the 16 lanes that share them.
struct softmax_rows {
  float peak[4], sum[4];

  __device__ softmax_rows() {
#pragma unroll
    for (int i = 0; i < 4; ++i) peak[i] = -__builtin_inff(), sum[i] = 0.0f;
  }
  /// s becomes e^(s − peak), 0 from `seen` keys on; the values in `out` go on from the new peaks.
  template <int Columns>
  __device__ void soften(float (&s)[4][4], tile_range const (&seen)[4], float (&out)[4][Columns]) {
    int const x = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float top = -__builtin_inff();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float const score = x + 16 * j < seen[i].last ? s[i][j] : -__builtin_inff();
        s[i][j] = score;
        top = top < score ? score : top;
      }
      for (int half = 8; half > 0; half /= 2) {
        float const other = __shfl_xor_sync(all_lanes, top, half);
        top = top < other ? other : top;
      }
      float const next = peak[i] < top ? top : peak[i];
      float const shrink = math::exp(__fadd_rn(peak[i], -next));
      peak[i] = next;
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][j] = math::exp(__fadd_rn(s[i][j], -next));
      // Partial sums l = x and x + 16 of keys l and l + 32, then halves.
      float part = __fadd_rn(__fadd_rn(s[i][0], s[i][2]), __fadd_rn(s[i][1], s[i][3]));
      for (int half = 8; half > 0; half /= 2) {
        part = __fadd_rn(part, __shfl_xor_sync(all_lanes, part, half));
      }
      sum[i] = __fmaf_rn(sum[i], shrink, part);
      if (shrink == 1.0f) continue;
#pragma unroll
      for (int c = 0; c < Columns; ++c) out[i][c] = __fmul_rn(out[i][c], shrink);
    }
  }
};

template <int Quads, class T, bool Cached>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend(attention_call<T, space::device> call, device_cache<T> cache, attention_cut cut) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part;
    offset_t const first = (cut.tiles - 1 - task.tile) * tile_side;  // the longest first
    offset_t const count = min(offset_t{tile_side}, cut.rows - first);
    if constexpr (Cached) {
      if (!cut.begin(part, cache.capacity)) {
        store_zeros(call.out, cut, part, first, count, task.column);
        continue;
      }
    }
    offset_t const least = cut.keys_of(first), most = cut.keys_of(first + count - 1);
    __syncthreads();  // the last task is done with the vectors
    find_vectors<T>(m.q, count, [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
    float out[4][4 * Quads] = {};
    softmax_rows state;
    for (offset_t key = 0; key < most; key += tile_side) {
      int const keys = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      if constexpr (Cached) {
        T const* const values = cache.values(part) + key * cache.wide();
        find_vectors<T>(m.v, keys, [&](offset_t j) { return values + j * cache.wide(); });
      } else {
        find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
        find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
      }
      __syncthreads();
      float s[4][4];
      tile_rows<T> const queries(m.q, call.scale);
      if constexpr (Cached) {
        tile_panel<T> const panel(cache.keys(part) + key * cut.head_dim, keys);
        tile_products(queries, panel, cut.head_dim, m.tile, s);
      } else {
        tile_products(queries, tile_rows<T>(m.k), cut.head_dim, m.tile, s);
      }
      tile_range seen[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const row = y + 16 * i;
        offset_t const sees = row < count ? cut.keys_of(first + row) - key : 0;
        seen[i] = {0, static_cast<int>(max(offset_t{0}, min(sees, offset_t{tile_side})))};
      }
      state.soften(s, seen, out);
      put_weights(s, m.tile);
      bool const whole = least >= key + tile_side;
      tile_gather<Quads>(m.v, 1.0f, keys, seen, whole, task.column, cut.head_dim, m.tile, out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = y + 16 * i;
      if (row >= count) continue;
      float const share = __fdiv_rn(1.0f, state.sum[i]);
      store_row<Quads>(out[i], share, query_at(call.out, cut, part, first + row), task.column,
                       cut.head_dim);
      if (call.log_sum && x == 0 && task.column == 0) {
        row_value(call.log_sum, cut, part, first + row) =
            __fadd_rn(state.peak[i], math::log(state.sum[i]));
      }
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
