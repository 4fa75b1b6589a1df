#pragma once
#include <type_traits>

#include "shunt/backend/cuda/async_copy.cuh"
#include "shunt/backend/cuda/nn/attention/cut.cuh"
#include "shunt/backend/cuda/tensor_cores.cuh"
#include "shunt/core/math.hpp"

// Attention of bf16 and fp16 on tensor cores. Scores are sums of exact products in float; the weights
// are rounded to the storage type before they meet the values: a documented bound instead of the
// host's bits. What a row gets depends on its own query and on the keys it sees, 16 at a time from the
// first, so decoding still gives the bits of the whole sequence. A warp has 16 of a block's 64 rows.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int mma_threads = 128;

/// Whether heads this wide go to tensor cores.
template <class T> bool takes_mma(on_cuda const& on, offset_t head_dim) noexcept {
  return sizeof(T) == 2 && head_dim <= 128 && on.products != arithmetic::exact;
}

/// Two floats as two elements.
template <class T> __device__ std::uint32_t pair_of(float low, float high) {
  std::uint32_t both;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
}
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Rows of Columns elements in shared memory, in words of 16 bytes that are exchanged so that eight
/// rows' words of one column lie in all banks.
template <class T, int Columns> struct mma_tile {
  T* at;

  __device__ T* word(int row, int chunk) const {
    return at + row * Columns + (chunk ^ (row & 7)) * 8;
  }
  /// Brings Rows rows, the first `count` of them from(0), from(1), …, `there` elements of each; what
  /// is not there reads as zeros. Whole: all of it lies at multiples of 16 bytes.
  template <int Rows, class From>
  __device__ void bring(int count, int there, bool whole, From const& from) const {
    constexpr int chunks = Columns / 8, apart = mma_threads / chunks;
    int const thread = static_cast<int>(threadIdx.x), chunk = thread % chunks, first = chunk * 8;
    int const elements = max(0, min(8, there - first));
#pragma unroll
    for (int i = 0; i < Rows / apart; ++i) {
      int const row = thread / chunks + i * apart, here = row < count ? elements : 0;
      T* const to = word(row, chunk);
      if (here == 0) {
        *reinterpret_cast<uint4*>(to) = uint4{};
      } else if (T const* const source = from(row) + first; whole && here == 8) {
        copy_word(to, source, true);
      } else {
        for (int e = 0; e < 8; ++e) to[e] = e < here ? source[e] : T{};
      }
    }
    end_copy_group();
  }
  /// Four 8 × 8 matrices, of which this lane names a row; across: transposed.
  template <bool Across> __device__ void load(int row, int chunk, std::uint32_t (&m)[4]) const {
    load_fragments<Across>(shared_address(word(row, chunk)), m);
  }
};

/// The online softmax of a lane's two rows, in powers of two: 16 of 64 scores each.
struct mma_softmax {
  float peak[2] = {-__builtin_inff(), -__builtin_inff()}, sum[2] = {};

  /// Whole: both rows see all 64 keys, else `seen` of them.
  template <bool Whole, int Tiles>
  __device__ void soften(float (&s)[8][4], float factor, int const (&seen)[2],
                         float (&out)[Tiles][4]) {
    int const column = lane_of_thread() % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = peak[r];
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float x = __fmul_rn(s[n][2 * r + i], factor);
          if (!Whole && 8 * n + column + i >= seen[r]) x = -__builtin_inff();
          s[n][2 * r + i] = x;
          top = top < x ? x : top;
        }
      }
      for (int half = 2; half > 0; half /= 2) {
        float const other = __shfl_xor_sync(all_lanes, top, half);
        top = top < other ? other : top;
      }
      float const shrink = power_of_two(__fadd_rn(peak[r], -top));
      peak[r] = top;
      float part = 0.0f;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float const p = power_of_two(__fadd_rn(s[n][2 * r + i], -top));
          s[n][2 * r + i] = p;
          part = __fadd_rn(part, p);
        }
      }
      sum[r] = __fmaf_rn(sum[r], shrink, part);
#pragma unroll
      for (int n = 0; n < Tiles; ++n) {
        out[n][2 * r] = __fmul_rn(out[n][2 * r], shrink);
        out[n][2 * r + 1] = __fmul_rn(out[n][2 * r + 1], shrink);
      }
    }
  }
  /// The sum of a row over the four lanes that share it.
  __device__ float whole_sum(int r) const {
    float total = sum[r];
    for (int half = 2; half > 0; half /= 2) {
      total = __fadd_rn(total, __shfl_xor_sync(all_lanes, total, half));
    }
    return total;
  }
};

/// Where a task's keys and values begin, and the steps from one to the next: rows of the call's tensors,
/// or of a cache, whose panels hold a column of keys in each row.
template <class T, bool Cached> struct key_source {
  T const *keys, *values;
  offset_t key_step, value_step;

  __device__ key_source(attention_call<T, space::device> const& call, device_cache<T> const& cache,
                        attention_cut const& cut, offset_t part) {
    if constexpr (Cached) {
      keys = cache.keys(part), key_step = tile_side;
      values = cache.values(part), value_step = cache.wide();
    } else {
      keys = key_at(call.k, cut, part, 0), key_step = call.k.stride(1);
      values = key_at(call.v, cut, part, 0), value_step = call.v.stride(1);
    }
  }
  /// The `there` keys, or values, from `key` on to a tile.
  template <int Depth, class Tile>
  __device__ void bring_keys(Tile const& to, int columns, offset_t key, int there,
                             bool aligned) const {
    T const* const at = keys + key * (Cached ? columns : key_step);
    auto const from = [&](int row) { return at + row * key_step; };
    if constexpr (Cached) {
      to.template bring<Depth>(columns, there, aligned, from);
    } else {
      to.template bring<tile_side>(there, columns, aligned, from);
    }
  }
  template <class Tile>
  __device__ void bring_values(Tile const& to, int columns, offset_t key, int there,
                               bool aligned) const {
    T const* const at = values + key * value_step;
    to.template bring<tile_side>(there, columns, aligned,
                                 [&](int row) { return at + row * value_step; });
  }
};

/// A warp's 16 rows of a tile, as left operands.
template <int Steps, class T, int Depth>
__device__ void load_own(mma_tile<T, Depth> const& tile, std::uint32_t (&rows)[Steps][4]) {
  int const lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_lanes;
#pragma unroll
  for (int k = 0; k < Steps; ++k)
    tile.template load<false>(16 * warp + lane % 16, 2 * k + lane / 16, rows[k]);
}

/// s = q · kᵀ of a warp's 16 rows and the 64 keys of a tile.
template <bool Cached, class T, int Steps, class Keys>
__device__ void mma_scores(std::uint32_t const (&q)[Steps][4], Keys const& keys, float (&s)[8][4]) {
  int const lane = lane_of_thread(), eighth = lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int k = 0; k < Steps; ++k) {
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      std::uint32_t b[4];
      if constexpr (Cached) {
        keys.template load<true>(16 * k + eighth, n + lane / 16, b);
      } else {
        keys.template load<false>(8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2, b);
      }
      add_step<T>(q[k], b[0], b[1], s[n]);
      add_step<T>(q[k], b[2], b[3], s[n + 1]);
    }
  }
}

/// out += p · v of the 64 keys of a tile, p rounded to the storage type.
template <class T, int Tiles, class Values>
__device__ void add_values(float const (&s)[8][4], Values const& values, float (&out)[Tiles][4]) {
  int const lane = lane_of_thread(), eighth = lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    std::uint32_t const p[4] = {
        pair_of<T>(s[2 * k][0], s[2 * k][1]), pair_of<T>(s[2 * k][2], s[2 * k][3]),
        pair_of<T>(s[2 * k + 1][0], s[2 * k + 1][1]), pair_of<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      std::uint32_t b[4];
      values.template load<true>(16 * k + eighth, n + lane / 16, b);
      add_step<T>(p, b[0], b[1], out[n]);
      add_step<T>(p, b[2], b[3], out[n + 1]);
    }
  }
}

/// How many of the 64 keys from `key` on a lane's two rows see.
__device__ inline void find_seen(attention_cut const& cut, offset_t row, offset_t key,
                                 int (&seen)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    offset_t const sees = cut.keys_of(row + 8 * r) - key;
    seen[r] = static_cast<int>(max(offset_t{0}, min(sees, offset_t{tile_side})));
  }
}

/// One of a lane's two rows of sums, over the sum of its weights.
template <int Tiles, class T>
__device__ void store_shares(float const (&out)[Tiles][4], int r, float total, T* to, int columns,
                             bool aligned) {
  float const share = __fdiv_rn(1.0f, total);
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    int const d = 8 * n + lane_of_thread() % 4 * 2;
    float const low = __fmul_rn(out[n][2 * r], share), high = __fmul_rn(out[n][2 * r + 1], share);
    if (aligned && d < columns) {
      *reinterpret_cast<std::uint32_t*>(to + d) = pair_of<T>(low, high);
    } else {
      if (d < columns) to[d] = from_float<T>(low);
      if (d + 1 < columns) to[d + 1] = from_float<T>(high);
    }
  }
}

/// `aligned`: every row of every tensor begins at a multiple of 16 bytes and heads are 8 n wide.
template <int Depth, class T, bool Cached>
SHUNT_KERNEL void __launch_bounds__(mma_threads, 2)
    attend_mma(attention_call<T, space::device> call, device_cache<T> cache, attention_cut cut,
               bool aligned) {
  constexpr int steps = Depth / 16, tiles = Depth / 8;
  __shared__ alignas(16) T key_memory[tile_side * Depth], value_memory[tile_side * Depth];
  mma_tile<T, Depth> const values{value_memory}, queries{value_memory};
  mma_tile<T, Cached ? tile_side : Depth> const keys{key_memory};
  int const lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_lanes;
  float const factor = __fmul_rn(call.scale, 0x1.715476p+0f);
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, first = (cut.tiles - 1 - task.tile) * tile_side;
    offset_t const count = min(offset_t{tile_side}, cut.rows - first);
    if constexpr (Cached) {
      if (!cut.begin(part, cache.capacity)) {
        store_zeros(call.out, cut, part, first, count, task.column);
        continue;
      }
    }
    offset_t const least = cut.keys_of(first), most = cut.keys_of(first + count - 1);
    key_source<T, Cached> const source(call, cache, cut, part);
    auto const here = [&](offset_t key) {
      return static_cast<int>(max(offset_t{0}, min(offset_t{tile_side}, most - key)));
    };
    auto const bring_keys = [&](offset_t key) {
      source.template bring_keys<Depth>(keys, cut.head_dim, key, here(key), aligned);
    };
    auto const bring_values = [&](offset_t key) {
      source.bring_values(values, cut.head_dim, key, here(key), aligned);
    };
    __syncthreads();  // the last task is done
    queries.template bring<tile_side>(static_cast<int>(count), cut.head_dim, aligned, [&](int row) {
      return query_at(call.q, cut, part, first + row);
    });
    bring_keys(0);
    wait_for_groups<1>();
    __syncthreads();
    std::uint32_t q[steps][4];
    load_own(queries, q);
    __syncthreads();
    bring_values(0);
    float out[tiles][4] = {};
    mma_softmax state;
    for (offset_t key = 0; key < most; key += tile_side) {
      wait_for_groups<1>();
      __syncthreads();
      float s[8][4] = {};
      mma_scores<Cached, T>(q, keys, s);
      __syncthreads();
      bring_keys(key + tile_side);  // prefetched while the values are used
      int seen[2];
      find_seen(cut, first + 16 * warp + lane / 4, key, seen);
      if (least >= key + tile_side) {
        state.template soften<true>(s, factor, seen, out);
      } else {
        state.template soften<false>(s, factor, seen, out);
      }
      wait_for_groups<1>();
      __syncthreads();
      add_values<T>(s, values, out);
      __syncthreads();
      bring_values(key + tile_side);
    }
    wait_for_groups<0>();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const total = state.whole_sum(r);
      offset_t const row = 16 * warp + lane / 4 + 8 * r;
      if (row >= count) continue;
      store_shares(out, r, total, query_at(call.out, cut, part, first + row), cut.head_dim,
                   aligned);
      if (call.log_sum && lane % 4 == 0) {
        row_value(call.log_sum, cut, part, first + row) =
            __fmaf_rn(state.peak[r], 0x1.62e430p-1f, math::log(total));
      }
    }
  }
}

/// Whether tensors of 16-bit elements, their heads and rows, can be moved in words of 16 bytes.
template <class... View> bool mma_aligned(int head_dim, View const&... x) noexcept {
  offset_t all = 2 * head_dim;
  auto const see = [&](auto const& v) {
    all |= static_cast<offset_t>(reinterpret_cast<std::uintptr_t>(v.data()));
    for (int d = 0; d + 1 < v.rank(); ++d) all |= v.extent(d) > 1 ? 2 * v.stride(d) : 0;
  };
  (see(x), ...);
  return all % 16 == 0;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
