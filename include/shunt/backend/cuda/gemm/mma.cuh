#pragma once
#include "shunt/backend/cuda/gemm/panels.cuh"
#include "shunt/backend/cuda/tensor_cores.cuh"
#include "shunt/backend/cuda/tuning.cuh"

/// The grouped product on tensor cores. Each sum is one accumulator to which the steps of 16 terms (8
/// of tf32) are added in ascending order; terms that are not there are zeros. So its bits depend on
/// its own operands only: not on the tile, its neighbors, or where the weights lie.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int tensor_columns = 128;

/// How the eight warps of a block share a tile, and how many steps of the pipeline are there.
template <int Rows> struct tensor_shape {
  static constexpr int down = Rows == 16 ? 1 : 2, along = 8 / down;
  static constexpr int rows = Rows / down, columns = tensor_columns / along;  // of a warp
  static constexpr int left_bytes = Rows * panel_line, right_bytes = tensor_columns * panel_line;
  static constexpr int stages = tuning::tensor_steps(Rows);
  // A row of sums on its way out: 8 places more, so that four rows' pairs meet all banks.
  static constexpr int sum_stride = tensor_columns + 8;
};

/// Shared memory of a block. The finished sums pass where the panels were.
template <class T, int Rows> struct tensor_shared {
  using shape = tensor_shape<Rows>;
  static constexpr int terms = panel_line / static_cast<int>(sizeof(T));
  struct panels {
    char left[shape::left_bytes], right[shape::right_bytes];
  };
  union {
    panels stage[shape::stages];
    float sum[16 * shape::down][shape::sum_stride];
  };
  gemm_frame<Rows, tensor_columns, terms> frame;
};

/// Asks for the panels of step `next` of a tile.
template <class T, int Rows, class Frame, class Panels>
__device__ void bring_stage(Frame const& frame, int half, int next, Panels& panels) noexcept {
  gemm_tile const& tile = frame.tile;
  constexpr int terms = panel_line / static_cast<int>(sizeof(T));
  int const term = next * terms, count = min(tile.depth - term, terms);
  bring_panel<T, Rows>(frame.left, frame.left_whole,
                       {frame.left.lines_outer ? frame.left_outer : frame.left_term[next & 1], term,
                        count, tile.row, tile.rows, Rows},
                       panels.left);
  bring_panel<T, tensor_columns>(
      frame.right, frame.right_whole,
      {frame.right.lines_outer ? frame.right_outer : frame.right_term[next & 1], term, count,
       tile.column, tile.columns, half},
      panels.right);
}

/// The two steps of terms that a stage holds, added to a warp's sums. `left` and `right`: this lane's
/// address in the first fragment of each.
template <class T, bool LeftAcross, bool RightAcross, class Shape>
__device__ void add_stage(Shape, unsigned left, unsigned right,
                          float (&sum)[Shape::rows / 16][Shape::columns / 8][4]) noexcept {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    std::uint32_t b[Shape::columns / 16][4];
#pragma unroll
    for (int j = 0; j < Shape::columns / 16; ++j) {
      load_fragments<RightAcross>(right + static_cast<unsigned>(j * 1024 + step * 256), b[j]);
      round_fragments<T>(b[j]);
    }
#pragma unroll
    for (int i = 0; i < Shape::rows / 16; ++i) {
      std::uint32_t a[4];
      load_fragments<LeftAcross>(left + static_cast<unsigned>(i * 1024 + step * 256), a);
      round_fragments<T>(a);
#pragma unroll
      for (int j = 0; j < Shape::columns / 8; ++j) {
        add_step<T>(a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], sum[i][j]);
      }
    }
  }
}

/// 16 rows of a warp's sums, those of fragment i, to shared memory: `at` is this lane's first.
template <class Shape>
__device__ void stage_sums(Shape, float const (&sum)[Shape::rows / 16][Shape::columns / 8][4],
                           int i, float* at) noexcept {
#pragma unroll
  for (int which = 0; which < Shape::rows / 16; ++which) {
    if (which != i) continue;
#pragma unroll
    for (int j = 0; j < Shape::columns / 8; ++j) {
      auto const& s = sum[which][j];
      *reinterpret_cast<float2*>(at + j * 8) = make_float2(s[0], s[1]);
      *reinterpret_cast<float2*>(at + j * 8 + 8 * Shape::sum_stride) = make_float2(s[2], s[3]);
    }
  }
}
/// The epilogue of the sums that every warp staged of its fragment i.
template <class Shape, class Finish>
__device__ void finish_sums(Shape, Finish const& finish, gemm_job const& job, gemm_tile const& tile,
                            int i,
                            float const (&sum)[16 * Shape::down][Shape::sum_stride]) noexcept {
  unsigned const shift = job.paired ? 6 : 7, width = 1u << shift;
#pragma unroll 1
  for (unsigned n = threadIdx.x; n < 16 * Shape::down << shift; n += tensor_threads) {
    unsigned const r = n >> shift, c = n & (width - 1);
    int const row = static_cast<int>(r / 16 * Shape::rows + r % 16) + i * 16;
    int const column = static_cast<int>(c);
    give(finish, job, tile, tile.row + row, tile.column + column, sum[r][c],
         job.paired ? sum[r][width + c] : 0.0f, row < tile.rows && column < tile.columns);
  }
}

/// Tiles of Rows rows and 128 columns, one after the other. `finish` as in gemm_floats.
template <class T, int Rows, class Finish>
SHUNT_KERNEL __launch_bounds__(tensor_threads, 2) void gemm_tensor(gemm_job job, gemm_tiling cut,
                                                                   Finish finish) {
  using shape = tensor_shape<Rows>;
  using shared_memory = tensor_shared<T, Rows>;
  constexpr int terms = shared_memory::terms, stages = shape::stages;
  extern __shared__ uint4 block_memory[];
  auto& shared = *reinterpret_cast<shared_memory*>(block_memory);
  auto& frame = shared.frame;
  gemm_tile const& tile = frame.tile;
  int const thread = static_cast<int>(threadIdx.x), lane = lane_of_thread();
  int const warp_row = thread / warp_lanes / shape::along * shape::rows;
  int const warp_column = thread / warp_lanes % shape::along * shape::columns;
  // This lane's row of the first fragment of either operand.
  auto const place = [&](int first, int eight, int half) {
    return static_cast<unsigned>((first / 8 + eight) * 512 + half * 128 + lane % 8 * 16);
  };
  unsigned const left_place = place(warp_row, lane / 8 % 2, lane / 16);
  unsigned const right_place = place(warp_column, lane / 16, lane / 8 % 2) + shape::left_bytes;
  if (thread == 0) {
    frame.left = pack_a(job);
    frame.right = right_operand(job);
  }
  for (offset_t number = blockIdx.x; find_tile(job, cut, number, frame.tile); number += gridDim.x) {
    __syncthreads();
    if (thread == 0) {
      frame.left_whole = left_in_words<T>(job);
      frame.right_whole = right_in_words<T>(job, tile.expert);
    }
    frame.find_lines(job);
    frame.find_terms(job, 0, 0);
    float sum[shape::rows / 16][shape::columns / 8][4] = {};
    // The first rounds only bring; round `step` adds step `step` and brings the last one of those in
    // flight behind it.
    int to = 0, from = 0;
#pragma unroll 1
    for (int step = 1 - stages; step * terms < tile.depth; ++step) {
      wait_for_groups<stages - 2>();
      __syncthreads();
      int const next = step + stages - 1, term = next * terms;
      if (term < tile.depth) {
        bring_stage<T, Rows>(frame, frame.half(job), next, shared.stage[to]);
        frame.find_terms(job, term + terms, (next + 1) & 1);
      }
      end_copy_group();
      to = to + 1 == stages ? 0 : to + 1;
      if (step < 0) continue;
      unsigned const panels = shared_address(&shared.stage[from]);
      unsigned const left = panels + left_place, right = panels + right_place;
      // The left operand lies across only where the right one does: in weight gradients.
      if (sizeof(T) == 4 || frame.right.along_terms) {
        add_stage<T, false, false>(shape{}, left, right, sum);
      } else if (frame.left.along_terms) {
        add_stage<T, false, true>(shape{}, left, right, sum);
      } else {
        add_stage<T, true, true>(shape{}, left, right, sum);
      }
      from = from + 1 == stages ? 0 : from + 1;
    }
    wait_for_copies();
    __syncthreads();

    // 16 rows of each warp's sums at a time, as in gemm_floats.
#pragma unroll 1
    for (int i = 0; i < shape::rows / 16; ++i) {
      float* const at =
          &shared.sum[warp_row / shape::rows * 16 + lane / 4][warp_column + lane % 4 * 2];
      stage_sums(shape{}, sum, i, at);
      __syncthreads();
      finish_sums(shape{}, finish, job, tile, i, shared.sum);
      __syncthreads();
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
