#pragma once
#include <cstdint>

#include "shunt/backend/cuda/lanes.cuh"

/// A token's row, held by one warp: element e is lane e % 32's, of strip e / 32, as every row
/// reduction has it. Strips 0 … strips() - 1 exist; what lies behind the row's end is the caller's
/// to fill.
namespace shunt::cuda {

/// In registers: every loop over strips is unrolled, so that no index is dynamic; and an element is
/// read into a value before a choice is made, as a choice between places would keep all in memory.
template <class T, int Strips> struct register_row {
  static constexpr int most = Strips;
  T at[Strips];
  __device__ int strips() const { return Strips; }
  __device__ T& operator[](int strip) { return at[strip]; }
  /// Element e, for all lanes: e is the same in all.
  __device__ T pick(index_t e) const {
    T mine = at[0];
#pragma unroll
    for (int i = 1; i < Strips; ++i) {
      T const here = at[i];
      if (i == e / warp_lanes) mine = here;
    }
    return __shfl_sync(all_lanes, mine, e % warp_lanes);
  }
  __device__ void put(index_t e, T value) {
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
      T const was = at[i];
      bool const here = i == e / warp_lanes && lane_of_thread() == e % warp_lanes;
      at[i] = here ? value : was;
    }
  }
  /// Adds to element e; to none where e is -1.
  __device__ void add(index_t e, T value) {
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
      T const was = at[i];
      at[i] = i * warp_lanes + lane_of_thread() == e ? was + value : was;
    }
  }
};

/// In memory, of any length.
template <class T> struct memory_row {
  static constexpr int most = 1 << 30;
  T* at;
  int count;
  __device__ int strips() const { return count; }
  __device__ T& operator[](int strip) { return at[strip * warp_lanes + lane_of_thread()]; }
  __device__ T pick(index_t e) const {
    __syncwarp();
    T const value = at[e];
    __syncwarp();
    return value;
  }
  __device__ void put(index_t e, T value) {
    if (lane_of_thread() == e % warp_lanes) at[e] = value;
  }
  __device__ void add(index_t e, T value) {
    if (lane_of_thread() == e % warp_lanes) at[e] += value;  // no lane is -1
  }
};

/// each(strip) for every strip of a row.
template <class Row, class Each> __device__ void for_strips(Row const& row, Each const& each) {
  if constexpr (Row::most <= 64) {
#pragma unroll
    for (int i = 0; i < Row::most; ++i) each(i);
  } else {
#pragma unroll 2
    for (int i = 0; i < row.strips(); ++i) each(i);
  }
}
__device__ inline index_t element_of(int strip) { return strip * warp_lanes + lane_of_thread(); }

struct best_place {
  float value;
  index_t at;
};

/// The largest element and where it first stands; the same in all lanes. A NaN is passed over.
template <class Row> __device__ best_place largest_of(Row& row) {
  best_place best{-__builtin_inff(), 0x7fffffff};
  for_strips(row, [&](int i) {
    if (row[i] > best.value) best = {row[i], element_of(i)};
  });
  for (int half = warp_lanes / 2; half > 0; half /= 2) {
    best_place const other{__shfl_xor_sync(all_lanes, best.value, half),
                           __shfl_xor_sync(all_lanes, best.at, half)};
    if (other.value > best.value || (other.value == best.value && other.at < best.at)) best = other;
  }
  return best;
}

/// The `count` largest of key, best first, ids by put(k, id), -1 where only -Inf is left. Taken keys
/// become -Inf.
template <class Keys, class Put>
__device__ void take_best(Keys& key, index_t count, Put const& put) {
  float const none = -__builtin_inff();
  for (index_t k = 0; k < count; ++k) {
    best_place const best = largest_of(key);
    bool const found = best.value > none;
    put(k, found ? best.at : -1);
    if (found) key.put(best.at, none);
  }
}

}  // namespace shunt::cuda
