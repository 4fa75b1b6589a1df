#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/experts/gemm_types.hpp"

/// What the GEMM kernels are told, and where their operands lie.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using shunt::detail::gemm_experts;
using shunt::detail::gemm_kind;
using shunt::detail::gemm_pairs;
using shunt::detail::gemm_panel;
using shunt::detail::gemm_rows;
using shunt::detail::gemm_scale;
using shunt::detail::gemm_store;

#define SHUNT_ADDRESSING __device__ inline
#include "shunt/experts/operand_addressing.inl"
#undef SHUNT_ADDRESSING

using gemm_job = shunt::detail::gemm_product;

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
    if (job.kind != gemm_kind::forward) return job.k;
    return job.paired ? job.n / 2 : job.n;
  }
  /// Tiles at most: the host does not know how the rows are shared out.
  [[nodiscard]] offset_t most(gemm_job const& job) const noexcept {
    if (job.kind == gemm_kind::wgrad) {
      return offset_t{job.experts} * ((job.n + rows - 1) / rows) * strips;
    }
    return (job.rows / rows + std::min<offset_t>(job.experts, job.rows)) * strips;
  }
};

/// One tile: rows [row, row + rows) and columns [column, column + columns) of an expert's output. The
/// rows count from the expert's first; of a weight gradient they are the matrix's.
struct gemm_tile {
  index_t expert, first;  ///< the expert, and its first row
  index_t row, rows, column, columns;
  index_t depth;  ///< terms of each sum
};

/// The tile of a number; false: there are not so many. Tiles are numbered expert by expert, strip by
/// strip, so that neighbors read the same weights. All threads of a block ask together; the first one
/// writes the tile, to shared memory. Nothing is kept from tile to tile: that would be registers in
/// the kernels' main loops.
__device__ inline bool find_tile(gemm_job const& job, gemm_tiling const& cut, offset_t number,
                                 gemm_tile& tile) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  for (index_t group = 0; group < job.experts; group += warp_lanes) {
    index_t const e = group + lane_of_thread();
    index_t first = 0, rows = 0;
    offset_t tiles = 0;
    if (e < job.experts) {
      first = job.offset != nullptr ? job.offset[e] : 0;
      rows = job.offset != nullptr ? job.offset[e + 1] - first : static_cast<index_t>(job.rows);
      bool const left_out =
          wgrad && ((job.skip != nullptr && job.skip[e] != 0) || (job.skip_empty && rows == 0));
      offset_t const all = wgrad ? job.n : rows;
      tiles = left_out ? 0 : (all + cut.rows - 1) / cut.rows * cut.strips;
    }
    offset_t const end = warp_prefix(tiles);
    unsigned const behind = __ballot_sync(all_lanes, number < end);
    if (behind == 0) {
      number -= __shfl_sync(all_lanes, end, warp_lanes - 1);
      continue;
    }
    int const lane = __ffs(static_cast<int>(behind)) - 1;
    offset_t const within = number - __shfl_sync(all_lanes, end - tiles, lane);
    offset_t const blocks = __shfl_sync(all_lanes, tiles, lane) / cut.strips;
    rows = __shfl_sync(all_lanes, rows, lane);
    first = __shfl_sync(all_lanes, first, lane);
    if (threadIdx.x != 0) return true;
    offset_t const row = within % blocks * cut.rows, column = within / blocks * cut.columns;
    tile.expert = group + lane;
    tile.first = first;
    tile.row = static_cast<index_t>(row);
    tile.rows = static_cast<index_t>(min(cut.rows, (wgrad ? job.n : rows) - row));
    tile.column = static_cast<index_t>(column);
    tile.columns = static_cast<index_t>(min(cut.columns, gemm_tiling::columns_of(job) - column));
    tile.depth = wgrad                            ? rows
                 : job.kind == gemm_kind::forward ? static_cast<index_t>(job.k)
                                                  : static_cast<index_t>(job.n);
    return true;
  }
  return false;
}

/// One operand of a tile. Its elements lie on lines (rows of tokens or of weights), `step` apart; a
/// line is either the tile's row or column (`outer`), or a term of the sums.
struct gemm_operand {
  void const* data;  ///< an address that may be given where nothing is read
  element_type type;
  offset_t step;
  bool lines_outer;  ///< lines are the tile's rows or columns; else the terms
  bool along_terms;  ///< neighbors in memory are terms of one sum
  bool in_words;     ///< eight neighbors, from a multiple of eight on, follow one another
};

/// The tokens' side of a tile.
__device__ inline gemm_operand pack_a(gemm_job const& job) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  return {job.a.data, job.a.type, 1, !wgrad, !wgrad, true};
}
/// The weights' side, or the second rows of a weight gradient.
__device__ inline gemm_operand right_operand(gemm_job const& job) noexcept {
  if (job.kind == gemm_kind::wgrad) return {job.b.data, job.b.type, 1, false, false, true};
  bool const forward = job.kind == gemm_kind::forward;
  offset_t const step = job.w.packed ? gemm_panel : job.w.column_stride;
  // Neighbors on a line are in words; those across lines, where the lines of eight rows are.
  gemm_pairs const& pairs = job.w.pairs;
  bool const rows_in_words = (job.w.packed || (job.w.row_stride == 1 && pairs.block % 8 == 0)) &&
                             (forward || pairs.half_rows % 8 == 0);
  return {
      job.a.data, job.w.type, step, forward, forward == (step == 1), step == 1 || rows_in_words};
}

/// The 16 bits of a number and back, by the device's own instructions: the bits of from_float and
/// to_float, but for which NaN it is.
__device__ inline std::uint16_t bits_of(element_type type, float x) noexcept {
  std::uint16_t bits;
  if (type == element_type::bf16) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  } else {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  }
  return bits;
}
__device__ inline float number_of(element_type type, std::uint16_t bits) noexcept {
  if (type == element_type::bf16) return to_float(bf16{bits});
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

/// Element `at` of a line, as a float.
__device__ inline float element_at(element_type type, void const* line, offset_t at) noexcept {
  if (type == element_type::f32) return static_cast<float const*>(line)[at];
  return number_of(type, static_cast<std::uint16_t const*>(line)[at]);
}
__device__ inline void put_element(element_type type, void* line, offset_t at, float x) noexcept {
  if (type == element_type::f32) {
    static_cast<float*>(line)[at] = x;
  } else {
    static_cast<std::uint16_t*>(line)[at] = bits_of(type, x);
  }
}
/// What a reader of the stored number would see.
__device__ inline float rounded(element_type type, float x) noexcept {
  return type == element_type::f32 ? x : number_of(type, bits_of(type, x));
}

__device__ inline offset_t size_of(element_type type) noexcept {
  return type == element_type::f32 ? 4 : 2;
}

/// The line of a row of tokens, as an address; null: zeros.
__device__ inline void const* line_of(gemm_rows const& rows, offset_t r) noexcept {
  offset_t at = r;
  if (rows.slot != nullptr) {
    index_t const slot = rows.slot[r];
    if (slot < 0) return nullptr;
    at = slot / rows.top_k;
  }
  return static_cast<char const*>(rows.data) + at * rows.stride * size_of(rows.type);
}
/// The first element of an expert's vector.
__device__ inline void const* vector_of(gemm_experts<void const> const& b, offset_t e) noexcept {
  return expert_of<char const>(b, e, size_of(b.type));
}
/// The line of row n of an expert's weights.
__device__ inline void const* line_of(gemm_job const& job, offset_t expert, offset_t n) noexcept {
  offset_t const size = size_of(job.w.type);
  if (!job.w.packed) return row_of<char const>(job.w, expert, n, size);
  return expert_of<char const>(job.w, expert, size) +
         (packed_panel(job.w.pairs, n) * gemm_panel * job.k + packed_lane(job.w.pairs, n)) * size;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
