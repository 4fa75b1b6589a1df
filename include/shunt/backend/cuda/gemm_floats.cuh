#pragma once
#include "shunt/backend/cuda/gemm_job.cuh"
#include "shunt/backend/cuda/tuning.cuh"

/// The grouped product on CUDA cores: the host's bits. Each sum is one chain of fma over its terms in
/// ascending order, from 0.0f, held in one thread's register; nothing is split.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

inline constexpr int float_columns = 128;  ///< of a tile: 16 threads of 2 times 4
inline constexpr int float_terms = 16;     ///< of the sums, in shared memory at a time
inline constexpr int float_threads = 256;

/// A tile's share of one operand in shared memory: term by term, `Outer` rows or columns each. Four
/// neighbours stay together; the fours are exchanged by the term, so that no two lanes of a warp meet
/// in a bank, whichever way they go through memory.
template <int Outer> struct float_panel {
  float at[float_terms * Outer];

  __device__ static int place(int term, int outer) noexcept {
    int const turn = Outer >= 32 ? term & 7 : (term >> 1) & 3;
    return term * Outer + (outer ^ (turn << 2));
  }
};

/// What each thread brings from memory for the next step.
template <int Outer> struct float_piece {
  static constexpr int each = float_terms * Outer / float_threads;
  float value[each];

  /// Term and row or column of this thread's i-th element.
  __device__ static void whose(int i, bool along_terms, int& term, int& outer) noexcept {
    int const n = static_cast<int>(threadIdx.x) + i * float_threads;
    term = along_terms ? n % 8 + n / 8 / Outer * 8 : n / Outer;
    outer = along_terms ? n / 8 % Outer : n % Outer;
  }

  /// `line(i)`: the address of line i, `factor(i)`: what its elements are multiplied by, or null.
  template <class Line, class Factor>
  __device__ void fetch(gemm_operand const& from, offset_t term, offset_t terms, offset_t outer,
                        offset_t outers, Line const& line, Factor const& factor) noexcept {
    with_stored(from.type, [&](auto* tag) {
      using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
#pragma unroll
      for (int i = 0; i < each; ++i) {
        int t, o;
        whose(i, from.along_terms, t, o);
        float x = 0.0f;
        if (t < terms && o < outers) {
          auto const* const p = static_cast<element const*>(from.lines_outer ? line(o) : line(t));
          offset_t const at = (from.lines_outer ? term + t : outer + o) * from.step;
          if (p != nullptr) x = factor(to_float(p[at]), t);
        }
        value[i] = x;
      }
    });
  }
  __device__ void put(gemm_operand const& from, float_panel<Outer>& to) const noexcept {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int t, o;
      whose(i, from.along_terms, t, o);
      to.at[float_panel<Outer>::place(t, o)] = value[i];
    }
  }
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
  void const* left_line[Rows];
  void const* right_line[float_columns];
};

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
SHUNT_KERNEL __launch_bounds__(float_threads, Each == 8 ? 2 : 3) void gemm_floats(gemm_job job,
                                                                                  gemm_tiling cut,
                                                                                  Finish finish) {
  constexpr int rows = 16 * Each;
  __shared__ float_shared<rows> shared;
  int const thread = static_cast<int>(threadIdx.x), row = thread / 16, column = thread % 16;
  gemm_operand const left = left_operand(job), right = right_operand(job);
  bool const wgrad = job.kind == gemm_kind::wgrad;
  gemm_walk walk(job, cut);
  gemm_tile tile;
  for (offset_t number = blockIdx.x; walk.seek(number, tile); number += gridDim.x) {
    // Columns of the tile: those of the gate half are followed by those of the up half.
    auto const weight_row = [&](int o) {
      bool const up = job.paired && o >= float_columns / 2;
      return (up ? job.outs / 2 - float_columns / 2 : 0) + tile.column + o;
    };
    auto const used = [&](int o) {
      return (job.paired ? o % (float_columns / 2) : o) < tile.columns;
    };
    if (left.lines_outer && thread < rows) {
      shared.left_line[thread] =
          thread < tile.rows ? line_of(job.a, tile.first + tile.row + thread) : nullptr;
    }
    if (right.lines_outer && thread < float_columns) {
      shared.right_line[thread] =
          used(thread) ? line_of(job, tile.expert, weight_row(thread)) : nullptr;
    }
    __syncthreads();

    float_piece<rows> next_left;
    float_piece<float_columns> next_right;
    auto const fetch = [&](offset_t term) {
      offset_t const terms = tile.depth - term;
      next_left.fetch(
          left, term, terms, tile.row, tile.rows,
          [&](int i) {
            return wgrad ? line_of(job.a, tile.first + term + i) : shared.left_line[i];
          },
          [&](float x, int t) {
            if (job.a.scale.factor == nullptr) return x;
            return __fmul_rn(x, scale_of(job.a.scale, tile.first + term + t));
          });
      next_right.fetch(
          right, term, terms, tile.column, right.lines_outer ? float_columns : tile.columns,
          [&](int i) {
            if (wgrad) return line_of(job.b, tile.first + term + i);
            return right.lines_outer ? shared.right_line[i] : line_of(job, tile.expert, term + i);
          },
          [](float x, int) { return x; });
    };
    auto const put = [&](int step) {
      next_left.put(left, shared.step[step].left);
      next_right.put(right, shared.step[step].right);
    };

    float sum[Each][8] = {};
    if (tile.depth > 0) {
      fetch(0);
      put(0);
    }
    __syncthreads();
    int step = 0;
    for (offset_t term = 0; term < tile.depth; term += float_terms, step ^= 1) {
      bool const more = term + float_terms < tile.depth;
      if (more) fetch(term + float_terms);
      auto const& from = shared.step[step];
      if (tile.depth - term >= float_terms) {
#pragma unroll
        for (int t = 0; t < float_terms; ++t) add_term<Each, rows>(from, t, row, column, sum);
      } else {  // no term is added that is not there: even 0 · 0 changes a sum of -0
#pragma unroll 1
        for (int t = 0; t < tile.depth - term; ++t) {
          add_term<Each, rows>(from, t, row, column, sum);
        }
      }
      if (more) put(step ^ 1);
      __syncthreads();
    }

    // 16 rows of sums at a time, so that neighbours in memory are written by neighbours, and what
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
      int const width = job.paired ? float_columns / 2 : float_columns;
#pragma unroll 1
      for (int n = thread; n < 16 * width; n += float_threads) {
        int const r = n / width, c = n % width;
        int const at = Each >= 4 ? r * 4 + i % 4 + i / 4 * 64 : r;
        if (at >= tile.rows || c >= tile.columns) continue;
        finish(job, tile, tile.row + at, tile.column + c, shared.row[r][c],
               job.paired ? shared.row[r][float_columns / 2 + c] : 0.0f);
      }
      __syncthreads();
    }
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda
