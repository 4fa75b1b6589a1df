#pragma once
#include "shunt/backend/cuda/async_copy.cuh"
#include "shunt/backend/cuda/gemm/frame.cuh"
#include "shunt/backend/cuda/tuning.cuh"

/// The grouped product on CUDA cores: the host's bits. Each sum is one chain of fma over its terms in
/// ascending order, from 0.0f, held in one thread's register; nothing is split.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int float_columns = 128;  ///< of a tile: 16 threads of 2 times 4
inline constexpr int float_terms = 16;     ///< of the sums, in shared memory at a time
inline constexpr int float_threads = 256;

/// A tile's share of one operand in shared memory: term by term, `Outer` rows or columns each, and
/// four places more, so that no two lanes of a warp meet in a bank, whichever way they go through
/// memory.
template <int Outer> struct alignas(16) float_panel {
  float at[float_terms * (Outer + 4)];

  __device__ static int place(int term, int outer) noexcept { return term * (Outer + 4) + outer; }
};

/// Shared memory of a block. The finished sums pass through `row`, where the panels were.
template <int Rows> struct float_shared {
  struct panels {
    float_panel<Rows> left;
    float_panel<float_columns> right;
  };
  union {
    panels step[2];
    float row[16][float_columns];
  };
  gemm_frame<Rows, float_columns, float_terms> frame;
};

/// Brings the terms [term, term + terms) of an operand to shared memory.
template <int Outer>
__device__ void bring(gemm_operand const& from, void const* const* line, float const* factor,
                      int term, int terms, int outer, int outers, float_panel<Outer>& to) noexcept {
#pragma unroll 2
  for (unsigned n = opaque_thread_id(); n < float_terms * Outer; n += float_threads) {
    int const t = static_cast<int>(from.along_terms ? n % 8 + n / 8 / Outer * 8 : n / Outer);
    int const o = static_cast<int>(from.along_terms ? n / 8 % Outer : n % Outer);
    char const* const p = static_cast<char const*>(line[from.lines_outer ? o : t]);
    bool const there = p != nullptr && (from.lines_outer ? t < terms : o < outers);
    offset_t const at = from.step * (from.lines_outer ? term + t : outer + o);
    float* const place = &to.at[float_panel<Outer>::place(t, o)];
    if (from.type == element_type::f32 && factor == nullptr) {
      copy_float(place, there ? p + at * 4 : static_cast<void const*>(from.data), there);
    } else {
      float const x = there ? element_at(from.type, p, at) : 0.0f;
      *place = factor == nullptr ? x : __fmul_rn(x, factor[t]);
    }
  }
}

/// One term of all of a thread's sums. `Each` rows and 8 columns a thread.
template <int Each, int Rows>
__device__ void add_term(typename float_shared<Rows>::panels const& from, int term, int row,
                         int column, float (&sum)[Each][8]) noexcept {
  float left[Each];
  pack<float, 4> right[2];
  if constexpr (Each >= 4) {
#pragma unroll
    for (int i = 0; i < Each / 4; ++i) {
      int const at = float_panel<Rows>::place(term, row * 4 + 64 * i);
      auto const four = *reinterpret_cast<pack<float, 4> const*>(&from.left.at[at]);
#pragma unroll
      for (int j = 0; j < 4; ++j) left[4 * i + j] = four.at[j];
    }
  } else {
    left[0] = from.left.at[float_panel<Rows>::place(term, row)];
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    int const at = float_panel<float_columns>::place(term, column * 4 + 64 * h);
    right[h] = *reinterpret_cast<pack<float, 4> const*>(&from.right.at[at]);
  }
#pragma unroll
  for (int i = 0; i < Each; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      sum[i][j] = __fmaf_rn(left[i], right[j / 4].at[j % 4], sum[i][j]);
    }
  }
}

/// Tiles of 16 · Each rows and 128 columns, one after the other. `finish(job, tile, row, column, first,
/// second)` is called once for each output, with the up half's sum of the same column where the job
/// is paired.
template <int Each, class Finish>
SHUNT_KERNEL __launch_bounds__(float_threads, 2) void gemm_floats(gemm_job job, gemm_tiling cut,
                                                                  Finish finish) {
  constexpr int rows = 16 * Each;
  __shared__ float_shared<rows> shared;
  auto& frame = shared.frame;
  int const thread = static_cast<int>(threadIdx.x), row = thread / 16, column = thread % 16;
  if (thread == 0) {
    frame.left = pack_a(job);
    frame.right = right_operand(job);
  }
  bool const scaled = job.kind == gemm_kind::wgrad && job.a.scale.factor != nullptr;
  gemm_tile const& tile = frame.tile;
  for (offset_t number = blockIdx.x; find_tile(job, cut, number, frame.tile); number += gridDim.x) {
    __syncthreads();
    auto const bring_step = [&](int term, int step) {
      int const terms = min(tile.depth - term, float_terms);
      bring(frame.left, frame.left.lines_outer ? frame.left_outer : frame.left_term[step],
            scaled ? frame.factor[step] : nullptr, term, terms, tile.row, tile.rows,
            shared.step[step].left);
      bring(frame.right, frame.right.lines_outer ? frame.right_outer : frame.right_term[step],
            nullptr, term, terms, tile.column, tile.columns, shared.step[step].right);
    };
    frame.find_lines(job);
    frame.find_terms(job, 0, 0);
    frame.find_terms(job, float_terms, 1);
    __syncthreads();
    float sum[Each][8] = {};
    int step = 1;
    // The first round brings, the others bring the next terms and add those that are there.
    for (int term = -float_terms; term < tile.depth; term += float_terms) {
      step ^= 1;
      if (term + float_terms < tile.depth) bring_step(term + float_terms, step);
      if (term >= 0) {
        auto const& from = shared.step[step ^ 1];
        if (tile.depth - term >= float_terms) {
#pragma unroll 4
          for (int t = 0; t < float_terms; ++t) add_term<Each, rows>(from, t, row, column, sum);
        } else {  // no term is added that is not there: even 0 · 0 changes a sum of -0
#pragma unroll 1
          for (int t = 0; t < tile.depth - term; ++t) {
            add_term<Each, rows>(from, t, row, column, sum);
          }
        }
        frame.find_terms(job, term + 2 * float_terms, step ^ 1);
      }
      wait_for_copies();
      __syncthreads();
    }

    // 16 rows of sums at a time, so that neighbors in memory are written by neighbors, and what
    // becomes of a sum is said once.
#pragma unroll 1
    for (int i = 0; i < Each; ++i) {
#pragma unroll
      for (int which = 0; which < Each; ++which) {
        if (which != i) continue;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          shared.row[row][column * 4 + j % 4 + j / 4 * 64] = sum[which][j];
        }
      }
      __syncthreads();
      int const shift = job.paired ? 6 : 7;
#pragma unroll 1
      for (unsigned n = opaque_thread_id(); n < 16u << shift; n += float_threads) {
        int const r = static_cast<int>(n >> shift), c = static_cast<int>(n) - (r << shift);
        int const at = Each >= 4 ? r * 4 + i % 4 + i / 4 * 64 : r;
        give(finish, job, tile, tile.row + at, tile.column + c, shared.row[r][c],
             job.paired ? shared.row[r][float_columns / 2 + c] : 0.0f,
             at < tile.rows && c < tile.columns);
      }
      __syncthreads();
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
