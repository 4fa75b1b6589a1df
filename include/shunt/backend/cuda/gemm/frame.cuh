#pragma once
#include "shunt/backend/cuda/gemm/job.cuh"

/// What a block of any rung keeps in shared memory about its tile, so that the registers of its main
/// loop are for sums.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Where the elements of a tile lie: one address a line, null: zeros. Lines that are the tile's rows
/// and columns are found once a tile, those that are terms once a step of `Terms`, for two steps.
template <int Rows, int Columns, int Terms> struct gemm_frame {
  static constexpr int rows = Rows, columns = Columns, terms = Terms;

  gemm_tile tile;
  gemm_operand left, right;
  bool left_whole, right_whole;  ///< operands in whole words, where a rung asks
  void const* left_outer[Rows];
  void const* right_outer[Columns];
  void const* left_term[2][Terms];
  void const* right_term[2][Terms];
  float factor[2][Terms];  ///< what the left ones are multiplied by

  /// Columns of a tile whose numbers follow one another: those of the gate half come before those of
  /// the up half.
  [[nodiscard]] __device__ static int half(gemm_job const& job) noexcept {
    return job.paired ? Columns / 2 : Columns;
  }

  /// The addresses of the tile's rows and columns, where those are lines.
  __device__ void find_lines(gemm_job const& job) noexcept {
    int const i = static_cast<int>(threadIdx.x);
    if (job.kind == gemm_kind::wgrad) return;
    if (i < Rows) {
      left_outer[i] = i < tile.rows ? line_of(job.a, tile.first + tile.row + i) : nullptr;
    }
    if (job.kind == gemm_kind::dgrad || i >= Columns) return;
    bool const up = i >= half(job);
    int const c = up ? i - half(job) : i;
    offset_t const n = (up ? job.n / 2 : 0) + tile.column + c;
    right_outer[i] = c < tile.columns ? line_of(job, tile.expert, n) : nullptr;
  }

  /// The addresses of a step's terms, where those are lines: two warps have them.
  __device__ void find_terms(gemm_job const& job, int term, int step) noexcept {
    static_assert(Terms <= warp_lanes);
    int const t = static_cast<int>(threadIdx.x) % warp_lanes;
    bool const first_warp = threadIdx.x < warp_lanes;
    if (job.kind == gemm_kind::forward || t >= Terms || threadIdx.x >= 2 * warp_lanes) return;
    bool const there = term + t < tile.depth;
    offset_t const row = tile.first + term + t;
    if (job.kind == gemm_kind::dgrad) {
      if (!first_warp) right_term[step][t] = there ? line_of(job, tile.expert, term + t) : nullptr;
    } else if (first_warp) {
      left_term[step][t] = there ? line_of(job.a, row) : nullptr;
      factor[step][t] = there ? scale_of(job.a.scale, row) : 0.0f;
    } else {
      right_term[step][t] = there ? line_of(job.b, row) : nullptr;
    }
  }
};

/// Hands a sum over. All threads of a block call this together, a warp with 32 columns of one row;
/// `inside`: there is such an output.
template <class Finish>
__device__ void give(Finish const& finish, gemm_job const& job, gemm_tile const& tile, offset_t row,
                     offset_t column, float first, float second, bool inside) noexcept {
  if constexpr (requires { Finish::whole_warps; }) {
    finish(job, tile, row, column, first, second, inside);
  } else if (inside) {
    finish(job, tile, row, column, first, second);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
