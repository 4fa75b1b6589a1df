// No include guard: all rows of a block times one piece of the right operand, by tiles.

/// One tile of `rows` rows, at least `Least`.
template <int Vectors, int Rows, int Least, class Right>
SHUNT_LANES void tile_of(std::int64_t rows, tile_at const& at, Right const& right, gemm_ahead& next,
                         std::int64_t lines) noexcept {
  if constexpr (Rows >= Least) {
    if (rows != Rows) {
      tile_of<Vectors, Rows - 1, Least>(rows, at, right, next, lines);
    } else if (at.across) {
      tile<Rows, Vectors, true>(at, right, next, lines);
    } else {
      tile<Rows, Vectors, false>(at, right, next, lines);
    }
  }
}

/// All rows times the columns of one tile, in tiles of nearly equal height. The first reads `first`
/// and has at least `Least` rows, the others read what it left in `panel`.
template <int Vectors, int Least, class First>
void tile_column(std::int64_t rows, tile_at at, First const& first, right_panel const& panel,
                 gemm_ahead& next, std::int64_t lines) noexcept {
  std::int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t height = Least == tile_rows ? tile_rows : (rows + tiles - 1) / tiles;
  tile_of<Vectors, tile_rows, Least>(height, at, first, next, lines);
  while (--tiles > 0) {
    rows -= height;
    at.a += at.across ? height : height * at.a_stride;
    at.c += height * at.c_row;
    height = (rows + tiles - 1) / tiles;
    tile_of<Vectors, tile_rows, 1>(height, at, panel, next, lines);
  }
}

/// All rows times some panels; first(p, v): what their first tile reads of panel p, from column v on.
template <int Least, class First>
SHUNT_LANES void tile_panels_of(std::int64_t rows, gemm_right const& right, tile_at at,
                                gemm_ahead& next, First first) noexcept {
  constexpr int parts = one_panel ? panel_columns / tile_columns : 1;
  std::int64_t const tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t const stretches = (at.depth + tile_stretch - 1) / tile_stretch;
  std::int64_t const calls =
      (right.panels + tile_panels - 1) / tile_panels * parts * tiles * stretches;
  std::int64_t const lines = (next.rows * next.lines + calls - 1) / calls;
  for (std::int64_t p = 0; p < right.panels; p += tile_panels) {
    for (int v = 0; v < parts * tile_columns; v += tile_columns) {
      std::int64_t const kept = right.from == gemm_right::ready ? p * right.stride : 0;
      right_panel const panel{right.data + kept + v, right.stride};
      if (tile_panels > 1 && right.panels - p == 1) {
        tile_column<panel_columns / lanes, Least>(rows, at, first(p, v), panel, next, lines);
      } else {
        tile_column<tile_vectors, Least>(rows, at, first(p, v), panel, next, lines);
      }
      at.c += tile_columns;
    }
  }
}

/// All rows of a block times a piece of the right operand; see panels_from.
template <class Job>
void multiply(Job const& job, gemm_segment const& segment, std::int64_t rows,
              gemm_piece const& piece, void const* const* table, std::int64_t strip, float* keep,
              tile_at const& at, gemm_ahead& next) noexcept {
  with_stored(job.kind == gemm_kind::wgrad ? job.b.type : job.w.type, [&](auto* tag) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    gemm_right const right =
        panels_from<T>(job, segment, piece, table, strip, rows < tile_rows, keep);
    if (right.from == gemm_right::ready) {
      tile_panels_of<1>(rows, right, at, next, [&](std::int64_t p, int v) {
        return right_panel{right.data + p * right.stride + v, right.stride};
      });
    } else if (right.from == gemm_right::rows) {
      tile_panels_of<tile_rows>(rows, right, at, next, [&](std::int64_t p, int v) {
        return right_rows<T>{right.row, right.column + p * panel_columns + v, right.data + v,
                             right.stride};
      });
    } else if constexpr (sizeof(T) < sizeof(float)) {
      std::int64_t const keep_row = rows > tile_rows ? panel_columns : 0;
      tile_panels_of<1>(rows, right, at, next, [&](std::int64_t p, int v) {
        return right_packed<T>{static_cast<T const*>(right.narrow) + p * right.narrow_stride + v,
                               right.narrow_stride, right.data + v, right.stride, keep_row};
      });
    }
  });
}
