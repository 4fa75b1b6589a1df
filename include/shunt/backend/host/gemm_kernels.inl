// No include guard: the driver of every product, once in each region.
#include "shunt/backend/host/gemm_tile.inl"
//
#include "shunt/backend/host/gemm_pack.inl"
//
#include "shunt/backend/host/gemm_panels.inl"

/// What a worker computes in: 208 KB of its stack.
struct gemm_scratch {
  alignas(64) float sums[gemm_block_rows * gemm_block_panels * gemm_panel];
  alignas(64) float left[gemm_block_rows * gemm_depth];
  alignas(64) float right[gemm_group_panels * gemm_depth * gemm_panel];
};

/// One tile of `rows` rows.
template <int Vectors, int Rows> SHUNT_LANES void tile_of(int rows, tile_at const& at) noexcept {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      tile_of<Vectors, Rows - 1>(rows, at);
    } else if (at.across) {
      tile<Rows, Vectors, true>(at);
    } else {
      tile<Rows, Vectors, false>(at);
    }
  }
}

/// All rows times the panels of one tile, in tiles of nearly equal height; between them, cache lines
/// of what comes next are fetched.
template <int Vectors>
SHUNT_LANES void tile_rows_of(std::int64_t rows, tile_at at, gemm_ahead& next,
                              std::int64_t lines) noexcept {
  std::int64_t const tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t const low = rows / tiles, more = rows % tiles;
  for (std::int64_t i = 0; i < tiles; ++i) {
    fetch(next, lines / tiles + 1);
    std::int64_t const height = low + (i < more ? 1 : 0);
    tile_of<Vectors, tile_rows>(static_cast<int>(height), at);
    at.a += at.across ? height : height * at.a_stride;
    at.c += height * at.c_row;
  }
}

// Templates from here on, though one type serves: who only includes this does not pay for the tiles.

/// `panels` neighbouring panels, `panel_stride` floats apart.
template <class At>
void multiply(std::int64_t rows, std::int64_t panels, std::int64_t panel_stride, At at,
              gemm_ahead& next) noexcept {
  std::int64_t const lines = next.rows * next.lines / panels + 1;
  if constexpr (tile_columns > panel_columns) {  // a tile spans two panels
    at.b_vector = panel_stride;
    for (; panels >= 2; panels -= 2) {
      tile_rows_of<2>(rows, at, next, 2 * lines);
      at.b += 2 * panel_stride;
      at.c += 2 * panel_columns;
    }
    if (panels == 1) tile_rows_of<1>(rows, at, next, lines);
  } else {
    for (std::int64_t p = 0; p < panels; ++p) {
      tile_at part = at;
      part.b += p * panel_stride;
      part.c += p * panel_columns;
      for (int t = 0; t < panel_columns; t += tile_columns) {
        tile_rows_of<tile_vectors>(rows, part, next, lines * tile_columns / panel_columns);
        part.b += tile_columns;
        part.c += tile_columns;
      }
    }
  }
}

/// Rows [row, row + rows) of the left operand for the k of [k, k + depth): in place where they are
/// floats as they are needed, else as a block of floats.
template <class Job>
void left_operand(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                  std::int64_t k, float* block, tile_at& at) noexcept {
  if (job.kind == gemm_kind::wgrad) {  // copied always: the columns of a wide matrix share few sets
    copy_rows(job.a, segment.first + k, at.depth, row, rows, block, gemm_block_rows);
    at.across = true;
    at.a = block;
    at.a_stride = gemm_block_rows;
  } else if (in_place(job.a)) {
    at.a = row_of<float>(job.a, segment.first + row) + k;
    at.a_stride = job.a.stride;
  } else {
    copy_rows(job.a, segment.first + row, rows, k, at.depth, block, gemm_depth);
    at.a = block;
    at.a_stride = gemm_depth;
  }
}

/// One block of the output.
template <class Job>
void gemm_task(Job const& job, gemm_scratch& scratch, gemm_segment const& segment, std::int64_t row,
               std::int64_t rows, std::int64_t column, std::int64_t columns) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  std::int64_t const depth = wgrad                            ? segment.rows
                             : job.kind == gemm_kind::forward ? job.ins
                                                              : job.outs;
  constexpr std::int64_t stride = gemm_block_panels * gemm_panel;
  std::int64_t const panels = (columns + panel_columns - 1) / panel_columns;
  int const halves = job.paired ? 2 : 1;
  tile_at at{};
  at.c_row = stride;
  for (std::int64_t k = 0; k < depth; k += gemm_depth) {
    at.depth = depth - k < gemm_depth ? depth - k : gemm_depth;
    at.resume = k > 0;
    left_operand(job, segment, row, rows, k, scratch.left, at);
    for (int half = 0; half < halves; ++half) {
      for (std::int64_t p = 0, group = 0; p < panels; p += group) {
        gemm_panels const right =
            panels_of(job, segment, half, column + p * panel_columns, columns - p * panel_columns,
                      k, at.depth, scratch.right);
        group = right.panels;
        bool const last = p + group >= panels, last_half = last && half + 1 == halves;
        gemm_ahead next = ahead_of(job, segment, last ? (last_half ? 0 : half + 1) : half,
                                   last ? column : column + (p + group) * panel_columns,
                                   last ? columns : columns - (p + group) * panel_columns,
                                   last_half ? k + gemm_depth : k, depth);
        at.b = right.data;
        at.c = scratch.sums + half * (stride / 2) + p * panel_columns;
        multiply(rows, group, right.stride, at, next);
      }
    }
  }
  if (depth == 0) {
    for (std::int64_t r = 0; r < rows; ++r) zero_row(scratch.sums + r * stride, stride);
  }
  gemm_block block{};
  block.first = scratch.sums;
  block.second = job.paired ? scratch.sums + stride / 2 : nullptr;
  block.stride = stride;
  block.row = wgrad ? row : segment.first + row;
  block.rows = rows;
  block.column = column;
  block.columns = columns;
  block.expert = segment.expert;
  block.segment_first = segment.first;
  block.segment_rows = segment.rows;
  job.finish(job, block);
}

/// A worker: takes tasks until none is left. A task is one expert's block of rows and strip of
/// columns; neighbours in number share a strip, so its weights come from a cache the second time.
template <class Job> void gemm_work(Job const& job, std::int64_t& next) noexcept {
  gemm_scratch scratch;
  bool const wgrad = job.kind == gemm_kind::wgrad;
  std::int64_t const all_columns = job.kind != gemm_kind::forward ? job.ins
                                   : job.paired                   ? job.outs / 2
                                                                  : job.outs;
  std::int64_t const width = (job.paired ? job.strip / 2 : job.strip) * panel_columns;
  std::int64_t const strips = (all_columns + width - 1) / width;
  gemm_segment segment{};
  std::int64_t begin = 0, end = 0, blocks = 0, all_rows = 0;  // tasks of the segment
  segment.expert = -1;
  for (;;) {
    std::int64_t const task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    while (task >= end) {
      if (++segment.expert >= job.experts) return;
      std::int64_t const e = segment.expert;
      segment.first = job.offset != nullptr ? job.offset[e] : 0;
      segment.rows = job.offset != nullptr ? job.offset[e + 1] - segment.first : job.rows;
      bool const left_out = wgrad && ((job.skip != nullptr && job.skip[e] != 0) ||
                                      (job.skip_empty && segment.rows == 0));
      all_rows = left_out ? 0 : wgrad ? job.outs : segment.rows;
      blocks = (all_rows + gemm_block_rows - 1) / gemm_block_rows;
      begin = end;
      end += blocks * strips;
    }
    std::int64_t const strip = (task - begin) / blocks, block = (task - begin) % blocks;
    std::int64_t const low = all_rows / blocks, more = all_rows % blocks;
    std::int64_t const row = block * low + (block < more ? block : more);
    std::int64_t const column = strip * width;
    gemm_task(job, scratch, segment, row, low + (block < more ? 1 : 0), column,
              all_columns - column < width ? all_columns - column : width);
  }
}

/// A row of sums to its place.
template <class T>
SHUNT_LANES void put_sums(gemm_store const& to, std::int64_t row, std::int64_t column,
                          float const* sums, std::int64_t count) noexcept {
  T* const out = static_cast<T*>(to.data) + row * to.stride + column;
  if (to.scale.factor == nullptr) {
    put_row(sums, count, to.add, out);
  } else {
    put_row_scaled(sums, count, scale_of(to.scale, row), to.add, out);
  }
}

/// See gemm_store.
template <class Job> void finish_store(Job const& job, gemm_block const& block) noexcept {
  gemm_store const& to = *static_cast<gemm_store const*>(job.finish_context);
  with_stored(to.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < block.rows; ++r) {
      put_sums<element>(to, block.row + r, block.column, block.first + r * block.stride,
                        block.columns);
      if (block.second == nullptr) continue;
      put_sums<element>(to, block.row + r, job.outs / 2 + block.column,
                        block.second + r * block.stride, block.columns);
    }
  });
}
