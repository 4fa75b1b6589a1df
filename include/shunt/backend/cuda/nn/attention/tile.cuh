#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"

// Attention's products of 64 vectors with 64 vectors, by the 256 threads of a block. `a` is the side
// whose results a block makes (query rows, or keys), `b` the side that it goes through (keys, or query
// rows). Thread (y, x) of 16 × 16 has the a-vectors y, y + 16, y + 32, y + 48 and the b-vectors x,
// x + 16, …: so the strided partial sums of a row's 64 keys are in 16 lanes that shuffle, 16 apart in
// one thread. Every sum is one chain of fma in ascending index, as on the host.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int tile_side = 64, tile_depth = 32, tile_threads = 256;
static_assert(tile_side == nn::detail::attention_keys, "a tile of keys is a block of the softmax");

/// Where vector n stands in row `row` of a side: a thread's four make one word of 16 bytes, and the
/// words are permuted so that neither writing a column nor reading a row meets a bank twice.
__device__ inline int tile_place(int n, int row) { return ((n % 16) ^ (row & 7)) * 4 + n / 16; }
__device__ inline float4 tile_word(float const* row_of_side, int group, int row) {
  return reinterpret_cast<float4 const*>(row_of_side)[group ^ (row & 7)];
}

/// What a block keeps in shared memory: 32 columns of both sides, or 32 vectors that are gathered; and
/// the weights of the pairs, [b][a].
struct alignas(16) tile_memory {
  float staged[2][tile_depth][tile_side];
  float weight[tile_side][tile_side];
};

/// Where the 64 vectors of a side begin; null where there is none (it reads as zeros).
template <class T> struct tile_vectors {
  T const* at[tile_side];
};

/// A side whose vectors are contiguous, each times a factor.
template <class T> class tile_rows {
 public:
  __device__ tile_rows(tile_vectors<T> const& vectors, float factor = 1.0f)
      : factor_(factor), column_(lane_of_thread() % 8), sub_(lane_of_thread() / 8) {
    int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
    for (int v = 0; v < 2; ++v) from_[v] = vectors.at[2 * warp + v + 16 * sub_];
  }
  __device__ void fetch(int first, int depth, float (&x)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      T const* const from = from_[i / 4];
      int const d = first + column_ + i % 4 * 8;
      x[i] = from != nullptr && d < depth ? __fmul_rn(to_float(from[d]), factor_) : 0.0f;
    }
  }
  __device__ void put(float const (&x)[8], float (*side)[tile_side]) const {
    int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      side[column_ + i % 4 * 8][((2 * warp + i / 4) ^ column_) * 4 + sub_] = x[i];
    }
  }

 private:
  T const* from_[2];
  float factor_;
  int column_, sub_;
};

/// A panel of a cache: column d of the vectors is 64 elements in a row, of which `count` are there.
template <class T> class tile_panel {
 public:
  __device__ tile_panel(T const* panel, int count) : panel_(panel), count_(count) {}
  __device__ void fetch(int first, int depth, float (&x)[8]) const {
    int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int const n = lane_of_thread() + i % 2 * warp_lanes, d = first + warp + i / 2 * 8;
      x[i] = n < count_ && d < depth ? to_float(panel_[offset_t{d} * tile_side + n]) : 0.0f;
    }
  }
  __device__ void put(float const (&x)[8], float (*side)[tile_side]) const {
    int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int const n = lane_of_thread() + i % 2 * warp_lanes, d = warp + i / 2 * 8;
      side[d][tile_place(n, d)] = x[i];
    }
  }

 private:
  T const* panel_;
  int count_;
};

/// sum[i][j] = a_i · b_j: a chain over the columns.
template <class A, class B>
__device__ void tile_products(A const& a, B const& b, int depth, tile_memory& m,
                              float (&sum)[4][4]) {
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  float left[8], right[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = 0.0f;
  }
  a.fetch(0, depth, left);
  b.fetch(0, depth, right);
  for (int first = 0; first < depth; first += tile_depth) {
    __syncthreads();  // what was staged has been used
    a.put(left, m.staged[0]);
    b.put(right, m.staged[1]);
    __syncthreads();
    if (first + tile_depth < depth) {  // prefetched while these are multiplied
      a.fetch(first + tile_depth, depth, left);
      b.fetch(first + tile_depth, depth, right);
    }
    int const columns = min(tile_depth, depth - first);
#pragma unroll 8
    for (int d = 0; d < columns; ++d) {
      float4 const p = tile_word(m.staged[0][d], y, d), q = tile_word(m.staged[1][d], x, d);
      float const u[4] = {p.x, p.y, p.z, p.w}, v[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = __fmaf_rn(u[i], v[j], sum[i][j]);
      }
    }
  }
}

/// Puts the weights of this thread's pairs where tile_gather reads them.
__device__ inline void put_weights(float const (&w)[4][4], tile_memory& m) {
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float* const row = m.weight[x + 16 * j];
    reinterpret_cast<float4*>(row)[y ^ (x % 8)] = {w[0][j], w[1][j], w[2][j], w[3][j]};
  }
}

/// Of the b-vectors of a tile, those that an a-vector has to do with: [first, last).
struct tile_range {
  int first, last;
};

/// sum[i][c] += Σ_b weight[b][a_i] · b[column c], b ascending over the first `count`, of which
/// `which[i]` matter to a_i (the weights of the others are 0; `whole`: all matter). Columns are 64 a
/// quad: 4 x … of each, from `column` on, of `columns`.
template <int Quads, class T>
__device__ void tile_gather(tile_vectors<T> const& b, float factor, int count,
                            tile_range const (&which)[4], bool whole, int column, int columns,
                            tile_memory& m, float (&sum)[4][4 * Quads]) {
  constexpr int width = 64 * Quads, apart = tile_threads / width, flight = 8;
  int const thread = static_cast<int>(threadIdx.x), y = thread / 16, x = thread % 16;
  float* const staged = &m.staged[0][0][0];  // [32][width]
  int const mine = column + thread % width;
  for (int first = 0; first < count; first += tile_depth) {
    __syncthreads();
    bool strange = false;
#pragma unroll
    for (int n = thread / width; n < tile_depth; n += flight * apart) {
      float value[flight];
#pragma unroll
      for (int i = 0; i < flight; ++i) {
        T const* const from = b.at[first + n + i * apart];
        value[i] =
            from != nullptr && mine < columns ? __fmul_rn(to_float(from[mine]), factor) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < flight; ++i) {
        staged[(n + i * apart) * width + thread % width] = value[i];
        strange = strange || !(__fadd_rn(value[i], -value[i]) == 0.0f);
      }
    }
    // 0 times an infinity is no 0: where there is one, the pairs that do not matter are left out.
    bool const careful = __syncthreads_or(!whole && strange) != 0;
    auto const add = [&](int n, auto all) {
      float4 const p = tile_word(m.weight[first + n], y, n);
      float const w[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        float4 const r = reinterpret_cast<float4 const*>(staged + n * width + 64 * q)[x];
        float const v[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (!all.value && (first + n < which[i].first || first + n >= which[i].last)) continue;
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            sum[i][4 * q + c] = __fmaf_rn(w[i], v[c], sum[i][4 * q + c]);
          }
        }
      }
    };
    int const here = min(tile_depth, count - first);
    if (!careful) {
#pragma unroll 8
      for (int n = 0; n < here; ++n) add(n, std::true_type{});
    } else {
      for (int n = 0; n < here; ++n) add(n, std::false_type{});
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
