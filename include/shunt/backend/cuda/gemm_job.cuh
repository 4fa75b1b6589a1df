#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/experts/gemm_types.hpp"

/// What the GEMM kernels are told, and where their operands lie.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

using shunt::detail::gemm_experts;
using shunt::detail::gemm_kind;
using shunt::detail::gemm_pairs;
using shunt::detail::gemm_panel;
using shunt::detail::gemm_rows;
using shunt::detail::gemm_scale;
using shunt::detail::gemm_store;

#define SHUNT_PLACE __device__ inline
#include "shunt/experts/gemm_places.inl"
#undef SHUNT_PLACE

/// Everything about one grouped product but what becomes of its sums.
struct gemm_job {
  gemm_kind kind = gemm_kind::forward;
  index_t experts = 1;
  index_t const* offset = nullptr;  ///< [E+1]; null: one segment of `rows` rows
  offset_t rows = 0;                ///< at most, of all experts together
  offset_t outs = 0, ins = 0;       ///< N and K of w[e][n][k]
  gemm_rows a{};
  gemm_rows b{};                       ///< wgrad only
  gemm_experts<void const> w{};        ///< forward and dgrad
  bool paired = false;                 ///< forward: gate and up columns come together
  bool skip_empty = false;             ///< wgrad: an empty segment leaves its output alone
  std::uint8_t const* skip = nullptr;  ///< wgrad: experts that want no gradient
};

/// How a job is cut into tiles: blocks of `rows` rows of the output, strips of `columns` columns, of
/// each half where there are two.
struct gemm_tiling {
  offset_t rows, columns, strips;

  gemm_tiling(gemm_job const& job, offset_t tile_rows, offset_t tile_columns) noexcept
      : rows(tile_rows), columns(job.paired ? tile_columns / 2 : tile_columns) {
    strips = (columns_of(job) + columns - 1) / columns;
  }
  /// Columns of the output, or of one half of it.
  SHUNT_HD static offset_t columns_of(gemm_job const& job) noexcept {
    if (job.kind != gemm_kind::forward) return job.ins;
    return job.paired ? job.outs / 2 : job.outs;
  }
  /// Tiles at most: the host does not know how the rows are shared out.
  [[nodiscard]] offset_t most(gemm_job const& job) const noexcept {
    if (job.kind == gemm_kind::wgrad) {
      return offset_t{job.experts} * ((job.outs + rows - 1) / rows) * strips;
    }
    return (job.rows / rows + std::min<offset_t>(job.experts, job.rows)) * strips;
  }
};

/// One tile: rows [row, row + rows) and columns [column, column + columns) of an expert's output. The
/// rows count from the expert's first; of a weight gradient they are the matrix's.
struct gemm_tile {
  offset_t expert, first, segment_rows;  ///< the expert's rows are [first, first + segment_rows)
  offset_t row, rows, column, columns;
  offset_t depth;  ///< terms of each sum
};

/// Goes through the tiles in ascending number: expert by expert, strip by strip, so that neighbours
/// read the same weights. All lanes of a warp walk together.
class gemm_walk {
 public:
  __device__ gemm_walk(gemm_job const& job, gemm_tiling const& cut) noexcept
      : job_(job), cut_(cut) {}

  /// The tile of a number not below the last one asked for; false: there are no more.
  __device__ bool seek(offset_t number, gemm_tile& tile) noexcept {
    while (number >= group_end_) {
      if (group_ >= job_.experts) return false;
      next_group();
    }
    unsigned const behind = __ballot_sync(all_lanes, number < end_);
    int const lane = __ffs(static_cast<int>(behind)) - 1;
    offset_t const blocks = __shfl_sync(all_lanes, blocks_, lane);
    offset_t const within = number - (__shfl_sync(all_lanes, end_, lane) - blocks * cut_.strips);
    tile.expert = group_ - warp_lanes + lane;
    tile.first = __shfl_sync(all_lanes, first_, lane);
    tile.segment_rows = __shfl_sync(all_lanes, rows_, lane);
    bool const wgrad = job_.kind == gemm_kind::wgrad;
    offset_t const all = wgrad ? job_.outs : tile.segment_rows;
    tile.row = within % blocks * cut_.rows;
    tile.rows = min(cut_.rows, all - tile.row);
    tile.column = within / blocks * cut_.columns;
    tile.columns = min(cut_.columns, gemm_tiling::columns_of(job_) - tile.column);
    tile.depth = wgrad ? tile.segment_rows : job_.kind == gemm_kind::forward ? job_.ins : job_.outs;
    return true;
  }

 private:
  __device__ void next_group() noexcept {
    offset_t const e = group_ + lane_of_thread();
    bool const wgrad = job_.kind == gemm_kind::wgrad;
    first_ = rows_ = blocks_ = 0;
    if (e < job_.experts) {
      first_ = job_.offset != nullptr ? job_.offset[e] : 0;
      rows_ = job_.offset != nullptr ? job_.offset[e + 1] - first_ : job_.rows;
      bool const left_out =
          wgrad && ((job_.skip != nullptr && job_.skip[e] != 0) || (job_.skip_empty && rows_ == 0));
      offset_t const all = wgrad ? job_.outs : rows_;
      blocks_ = left_out ? 0 : (all + cut_.rows - 1) / cut_.rows;
    }
    end_ = group_end_ + warp_prefix(blocks_ * cut_.strips);
    group_end_ = __shfl_sync(all_lanes, end_, warp_lanes - 1);
    group_ += warp_lanes;
  }

  gemm_job const& job_;
  gemm_tiling const& cut_;
  offset_t group_ = 0, group_end_ = 0;                    // experts and tiles seen
  offset_t end_ = 0, first_ = 0, rows_ = 0, blocks_ = 0;  // this lane's expert
};

/// One operand of a tile. Its elements lie on lines (rows of tokens or of weights), `step` apart; a
/// line is either the tile's row or column (`outer`), or a term of the sums.
struct gemm_operand {
  stored type;
  offset_t step = 1;
  bool lines_outer;  ///< lines are the tile's rows or columns; else the terms
  bool along_terms;  ///< neighbours in memory are terms of one sum
};

/// The tokens' side of a tile.
__device__ inline gemm_operand left_operand(gemm_job const& job) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  return {job.a.type, 1, !wgrad, !wgrad};
}
/// The weights' side, or the second rows of a weight gradient.
__device__ inline gemm_operand right_operand(gemm_job const& job) noexcept {
  if (job.kind == gemm_kind::wgrad) return {job.b.type, 1, false, false};
  bool const forward = job.kind == gemm_kind::forward;
  offset_t const step = job.w.packed ? gemm_panel : job.w.column_stride;
  return {job.w.type, step, forward, forward == (step == 1)};
}

/// The line of a row of tokens, as an address; null: zeros.
__device__ inline void const* line_of(gemm_rows const& rows, offset_t r) noexcept {
  offset_t const size = rows.type == stored::f32 ? 4 : 2;
  offset_t at = r;
  if (rows.slot != nullptr) {
    index_t const slot = rows.slot[r];
    if (slot < 0) return nullptr;
    at = slot / rows.top_k;
  }
  return static_cast<char const*>(rows.data) + at * rows.stride * size;
}
/// The line of row n of an expert's weights.
__device__ inline void const* line_of(gemm_job const& job, offset_t expert, offset_t n) noexcept {
  offset_t const size = job.w.type == stored::f32 ? 4 : 2;
  offset_t const at = job.w.packed ? packed_panel(job.w.pairs, n) * gemm_panel * job.ins +
                                         packed_lane(job.w.pairs, n)
                                   : physical_row(job.w.pairs, n) * job.w.row_stride;
  char const* const base = job.w.each != nullptr ? static_cast<char const*>(job.w.each[expert])
                                                 : static_cast<char const*>(job.w.data) +
                                                       expert * job.w.expert_stride * size;
  return base + at * size;
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda
