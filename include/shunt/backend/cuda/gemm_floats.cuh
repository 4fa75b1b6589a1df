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

/// A tile's share of one operand in shared memory: term by term, `Outer` rows or columns each, and
/// four places more, so that no two lanes of a warp meet in a bank, whichever way they go through
/// memory.
template <int Outer> struct alignas(16) float_panel {
  float at[float_terms * (Outer + 4)];

  __device__ static int place(int term, int outer) noexcept { return term * (Outer + 4) + outer; }
};

/// Where the elements of the next terms lie: one address a line, null: zeros; and what the left ones
/// are multiplied by.
template <int Outer> struct float_lines {
  void const* outer[Outer];          // of the tile, where lines are rows or columns
  void const* term[2][float_terms];  // of the step, where lines are terms
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
  float_lines<Rows> left;
  float_lines<float_columns> right;
  float factor[2][float_terms];
  gemm_tile tile;  // these here, for registers are for sums
  gemm_operand left_from, right_from;
};

/// Four bytes from memory to shared memory without a register, or four zero bytes.
__device__ inline void copy_float(float* to, void const* from, bool there) noexcept {
  auto const at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from),
               "r"(there ? 4 : 0));
}
__device__ inline void wait_for_copies() noexcept {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/// Brings the terms [term, term + terms) of an operand to shared memory.
template <int Outer>
__device__ void bring(gemm_operand const& from, float_lines<Outer> const& lines, int step,
                      float const* factor, int term, int terms, int outer, int outers,
                      float_panel<Outer>& to) noexcept {
  void const* const* const line = from.lines_outer ? lines.outer : lines.term[step];
#pragma unroll 2
  for (int n = static_cast<int>(threadIdx.x); n < float_terms * Outer; n += float_threads) {
    int const t = from.along_terms ? n % 8 + n / 8 / Outer * 8 : n / Outer;
    int const o = from.along_terms ? n / 8 % Outer : n % Outer;
    char const* const p = static_cast<char const*>(line[from.lines_outer ? o : t]);
    bool const there = p != nullptr && (from.lines_outer ? t < terms : o < outers);
    offset_t const at = from.step * (from.lines_outer ? term + t : outer + o);
    float* const place = &to.at[float_panel<Outer>::place(t, o)];
    if (from.type == stored::f32 && factor == nullptr) {
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

/// The addresses of the tile's rows and columns, where those are lines.
template <int Rows>
__device__ void find_lines(gemm_job const& job, gemm_tile const& tile,
                           float_shared<Rows>& shared) noexcept {
  int const i = static_cast<int>(threadIdx.x);
  if (job.kind == gemm_kind::wgrad) return;
  if (i < Rows) {
    shared.left.outer[i] = i < tile.rows ? line_of(job.a, tile.first + tile.row + i) : nullptr;
  }
  if (job.kind == gemm_kind::dgrad || i >= float_columns) return;
  // The columns of the gate half are followed by those of the up half.
  bool const up = job.paired && i >= float_columns / 2;
  int const c = up ? i - float_columns / 2 : i;
  offset_t const n = (up ? job.outs / 2 : 0) + tile.column + c;
  shared.right.outer[i] = c < tile.columns ? line_of(job, tile.expert, n) : nullptr;
}

/// The addresses of a step's terms, where those are lines.
template <int Rows>
__device__ void find_terms(gemm_job const& job, gemm_tile const& tile, int term, int step,
                           float_shared<Rows>& shared) noexcept {
  int const t = static_cast<int>(threadIdx.x) % warp_lanes;
  bool const left = threadIdx.x < warp_lanes;
  if (job.kind == gemm_kind::forward || t >= float_terms || threadIdx.x >= 2 * warp_lanes) return;
  bool const there = term + t < tile.depth;
  offset_t const row = tile.first + term + t;
  if (job.kind == gemm_kind::dgrad) {
    if (!left) shared.right.term[step][t] = there ? line_of(job, tile.expert, term + t) : nullptr;
  } else if (left) {
    shared.left.term[step][t] = there ? line_of(job.a, row) : nullptr;
    shared.factor[step][t] = there ? scale_of(job.a.scale, row) : 0.0f;
  } else {
    shared.right.term[step][t] = there ? line_of(job.b, row) : nullptr;
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
  int const thread = static_cast<int>(threadIdx.x), row = thread / 16, column = thread % 16;
  if (thread == 0) {
    shared.left_from = left_operand(job);
    shared.right_from = right_operand(job);
  }
  bool const scaled = job.kind == gemm_kind::wgrad && job.a.scale.factor != nullptr;
  gemm_tile const& tile = shared.tile;
  for (offset_t number = blockIdx.x; find_tile(job, cut, number, shared.tile);
       number += gridDim.x) {
    __syncthreads();
    auto const bring_step = [&](int term, int step) {
      int const terms = min(tile.depth - term, float_terms);
      bring(shared.left_from, shared.left, step, scaled ? shared.factor[step] : nullptr, term,
            terms, tile.row, tile.rows, shared.step[step].left);
      bring(shared.right_from, shared.right, step, nullptr, term, terms, tile.column, tile.columns,
            shared.step[step].right);
    };
    find_lines(job, tile, shared);
    find_terms(job, tile, 0, 0, shared);
    find_terms(job, tile, float_terms, 1, shared);
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
        find_terms(job, tile, term + 2 * float_terms, step ^ 1, shared);
      }
      wait_for_copies();
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
