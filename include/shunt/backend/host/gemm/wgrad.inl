// No include guard: a block of a weight gradient whose rows of tokens are packed at once. Its sums are finished
// a tile's height at a time, many columns wide: they never leave the first cache, and what is written is
// written in long runs, which memory takes twice as fast as single lines.

/// Panels computed with side by side: as many as the first cache holds beside a tile's other operands.
SHUNT_INLINE std::int64_t panels_beside(std::int64_t depth) noexcept {
  constexpr std::int64_t room = 8192, most = 8;  // floats; panels
  std::int64_t const fit = room / (depth * panel_columns) / tile_panels * tile_panels;
  return fit < gemm_group_panels ? gemm_group_panels : fit < most ? fit : most;
}

/// One tile's height of rows times some panels.
template <int Least, left_lies Lies, class Right>
SHUNT_INLINE void tile_row(std::int64_t height, tile_at at, std::int64_t panels,
                           prefetch_cursor& next, std::int64_t lines, Right right) noexcept {
  constexpr int parts = one_panel ? panel_columns / tile_columns : 1;
  for (std::int64_t p = 0; p < panels; p += tile_panels) {
    for (int v = 0; v < parts * tile_columns; v += tile_columns) {
      tile_of<Least, tile_rows, Lies>(height, at, right(p, v, panels - p < tile_panels), next,
                                      lines);
      at.c += tile_columns;
    }
  }
}

/// Rows [row, row + rows) and columns [column, column + columns) of an expert's gradient.
template <class Job>
void wgrad_by_rows(Job const& job, gemm_scratch& scratch, gemm_segment const& segment,
                   std::int64_t row, std::int64_t rows, std::int64_t column,
                   std::int64_t columns) noexcept {
  tile_at at{};
  pack_a(job, segment, row, rows, 0, segment.rows, scratch.a, at);
  std::int64_t const beside = panels_beside(segment.rows) * panel_columns;
  at.depth = segment.rows;
  at.c = scratch.sums;
  at.c_row = beside;
  gemm_block block{};
  block.first = scratch.sums;
  block.stride = at.c_row;
  block.expert = segment.expert;
  block.segment_first = segment.first;
  block.segment_rows = segment.rows;
  std::int64_t const tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t const stretches = (at.depth + tile_stretch - 1) / tile_stretch;
  for (std::int64_t done = 0; done < columns; done += beside) {
    std::int64_t const left = columns - done;
    gemm_piece const piece{0, column + done, left < beside ? left : beside, 0, at.depth};
    rows_table(job, segment, piece, scratch.row);
    // While one height of rows is computed, the lines of the next are brought near.
    prefetch_cursor ahead =
        gradient_prefetch(job, segment, row + (rows > tile_rows ? tile_rows : 0), rows - tile_rows,
                          piece.column, piece.columns);
    block.column = piece.column;
    block.columns = piece.columns;
    with_right(job, [&](auto* tag) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      packed_b const right =
          pack_b<T>(job, segment, piece, scratch.row, piece.column, rows, scratch.b);
      std::int64_t const calls = (right.panels + tile_panels - 1) / tile_panels * tiles * stretches;
      std::int64_t const lines = (line_count(ahead) + calls - 1) / calls;
      tile_at now = at;
      std::int64_t height = tile_rows;
      for (std::int64_t r = 0, tile = tiles; tile > 0; r += height, --tile) {
        if (r == 0 && right.from == packed_b::rows) {
          tile_row<tile_rows, lies_in<Job>>(
              tile_rows, now, right.panels, ahead,
              lines, [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
                return right_rows<T>{right.row, right.column + p * panel_columns + v,
                                     last ? 0 : panel_columns, right.data + p * right.stride + v,
                                     right.stride};
              });
        } else {
          height = (rows - r + tile - 1) / tile;
          tile_row<1, lies_in<Job>>(
              height, now, right.panels, ahead,
              lines, [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
                return right_panel{right.data + p * right.stride + v, last ? 0 : right.stride};
              });
        }
        now.a += height;
        block.row = row + r;
        block.rows = height;
        job.epilogue(job, block);
      }
    });
  }
}
