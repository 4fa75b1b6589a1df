// No include guard: pack B, the right operand, a few panels at a time. B[k][j] is w[n][k] with j = n in the
// forward product, w[n][j] with k = n in dgrad, and a row of tokens in wgrad.

/// Panels for the tiles: floats that are ready, or what the first tile makes them of.
struct packed_b {
  enum source { ready, packed, rows } from;
  std::int64_t panels;  ///< of 16 columns
  float* data;          ///< the floats, or where the first tile keeps them
  std::int64_t stride;  ///< from panel to panel of them
  void const* narrow;   ///< packed: elements as they lie, `narrow_stride` from panel to panel
  std::int64_t narrow_stride;
  void const* const* row;  ///< rows: columns from `column` on of row[k]
  std::int64_t column;
};

/// Whether logical rows [n, n + count) of weights follow each other in memory.
inline bool in_one_run(gemm_pairs const& pairs, std::int64_t n, std::int64_t count) noexcept {
  std::int64_t const half = pairs.half_rows;
  return half == 0 || (pairs.block == 0 && (n >= half || n + count <= half));
}

/// One panel whose columns run along k in memory: transposed in registers. `column(j)`: its start.
template <class Column>
SHUNT_INLINE void panel_across(Column column, std::int64_t columns, std::int64_t depth,
                               float* to) noexcept {
  decltype(column(0)) start[panel_columns];
  for (int j = 0; j < panel_columns; ++j) {
    start[j] = column(j < columns ? j : columns - 1);  // behind the last: computed, unused
  }
  pack_across(start, depth, to);
}

/// One panel of any strides, element by element.
template <class At>
SHUNT_INLINE void panel_of_elements(At at, std::int64_t columns, std::int64_t depth,
                                    float* to) noexcept {
  for (std::int64_t j = 0; j < panel_columns; ++j) {
    for (std::int64_t i = 0; i < depth; ++i) {
      to[i * panel_columns + j] = load_first(at(i, j < columns ? j : columns - 1), 1)[0];
    }
  }
}

/// One panel of dgrad's from packed weights, which interleave 16 of its rows.
template <class T>
SHUNT_INLINE void panel_from_packed(gemm_job const& job, T const* w, gemm_piece const& piece,
                                    std::int64_t column, std::int64_t columns, float* to) noexcept {
  for (std::int64_t i = 0, run = 0; i < piece.depth; i += run) {
    std::int64_t const n = piece.k + i, lane = packed_lane(job.w.pairs, n);
    std::int64_t const half = job.w.pairs.half_rows;
    std::int64_t const left = n < half && half - n < piece.depth - i ? half - n : piece.depth - i;
    run = panel_columns - lane < left ? panel_columns - lane : left;
    T const* const from =
        w + (packed_panel(job.w.pairs, n) * job.k + column) * panel_columns + lane;
    panel_across([&](std::int64_t j) { return from + j * panel_columns; }, columns, run,
                 to + i * panel_columns);
  }
}

/// What a gathered row that is not there reads as: as wide as a strip of columns.
alignas(64) inline constexpr float no_row[gemm_strip_panels * gemm_panel] = {};

/// Where B's rows [k, k + depth) lie, from `column` on.
template <class T, class Job>
void rows_table_of(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                   void const** table) noexcept {
  bool const forward = is<gemm_kind::forward>(job);
  if (is<gemm_kind::wgrad>(job)) {
    for (std::int64_t i = 0; i < piece.depth; ++i) {
      T const* const row = row_of<T>(job.b, segment.first + piece.k + i);
      table[i] = row == nullptr ? static_cast<void const*>(no_row) : row + piece.column;
    }
    return;
  }
  auto const row = [&](std::int64_t n) { return row_of<T const>(job.w, segment.expert, n); };
  std::int64_t const n = piece.half * (job.n / 2) + piece.column;
  for (std::int64_t i = 0; i < piece.depth; ++i) {
    table[i] =
        forward ? row(n) + (piece.k + i) * job.w.column_stride : row(piece.k + i) + piece.column;
  }
}

template <class Job>
void rows_table(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                void const** table) noexcept {
  with_right(job, [&](auto* tag) {
    rows_table_of<std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>>(job, segment, piece,
                                                                          table);
  });
}

/// Calls make(column, columns, panel) for each panel of a piece; panels follow one another from `to` on.
template <class Make>
SHUNT_INLINE void each_panel(gemm_piece const& piece, float* to, Make make) noexcept {
  for (std::int64_t j = 0; j < piece.columns; j += panel_columns) {
    std::int64_t const left = piece.columns - j;
    make(piece.column + j, left < panel_columns ? left : panel_columns, to + j * piece.depth);
  }
}

/// A dgrad piece of weights that lie anyhow.
template <class T, class Job>
void pack_b_dgrad(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                  float* to) noexcept {
  std::int64_t const n = piece.k, cs = job.w.column_stride;
  auto const row = [&](std::int64_t i) { return row_of<T const>(job.w, segment.expert, n + i); };
  if (job.w.packed) {
    T const* const w = expert_of<T const>(job.w, segment.expert);
    each_panel(piece, to, [&](std::int64_t column, std::int64_t columns, float* panel) {
      panel_from_packed(job, w, piece, column, columns, panel);
    });
  } else if (job.w.row_stride == 1 && in_one_run(job.w.pairs, n, piece.depth)) {
    T const* const from = row(0);
    each_panel(piece, to, [&](std::int64_t column, std::int64_t columns, float* panel) {
      panel_across([&](std::int64_t j) { return from + (column + j) * cs; }, columns, piece.depth,
                   panel);
    });
  } else {
    each_panel(piece, to, [&](std::int64_t column, std::int64_t columns, float* panel) {
      auto const at = [&](std::int64_t i, std::int64_t j) { return row(i) + (column + j) * cs; };
      panel_of_elements(at, columns, piece.depth, panel);
    });
  }
}

/// A forward piece of weights that are not packed; their rows begin at `first`.
template <class T, class Job>
void pack_b_forward(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                    std::int64_t first, float* to) noexcept {
  std::int64_t const cs = job.w.column_stride;
  each_panel(piece, to, [&](std::int64_t column, std::int64_t columns, float* panel) {
    auto const from = [&](std::int64_t j) {
      return row_of<T const>(job.w, segment.expert, first + column + j) + piece.k * cs;
    };
    if (cs == 1) {
      panel_across(from, columns, piece.depth, panel);
    } else {
      panel_of_elements([&](std::int64_t i, std::int64_t j) { return from(j) + i * cs; }, columns,
                        piece.depth, panel);
    }
  });
}

/// A forward piece of packed weights, as they are where the tile reads them so.
template <class T, class Job>
void use_packed(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                std::int64_t first, std::int64_t rows, packed_b& right, float* to) noexcept {
  std::int64_t const stride = job.k * panel_columns;
  T const* const from = expert_of<T const>(job.w, segment.expert) +
                        packed_panel(job.w.pairs, first + piece.column) * stride +
                        piece.k * panel_columns;
  if constexpr (sizeof(T) == sizeof(float)) {
    right.data = const_cast<float*>(from);  // read only, as all panels that are ready
    right.stride = stride;
  } else if (widened_in_pairs<T> || rows >= tile_rows) {
    right.from = packed_b::packed;
    right.narrow = from;
    right.narrow_stride = stride;
  } else {
    for (std::int64_t p = 0; p < right.panels; ++p) {
      widen_row(from + p * stride, right.stride, to + p * right.stride);
    }
  }
}

/// The right operand of one piece. `table`: its rows, made by rows_table for the whole strip, which
/// begins at `strip`; null: they do not lie so. Only high first tiles read weights as they lie.
template <class T, class Job>
packed_b pack_b(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                void const* const* table, std::int64_t strip, std::int64_t rows,
                float* to) noexcept {
  std::int64_t const panels = (piece.columns + panel_columns - 1) / panel_columns;
  packed_b right{packed_b::ready, panels, to, piece.depth * panel_columns, nullptr, 0, nullptr, 0};
  if (table != nullptr) {
    if (rows >= tile_rows && piece.columns % panel_columns == 0) {
      right.from = packed_b::rows;
      right.row = table;
      right.column = piece.column - strip;
      return right;
    }
    for (std::int64_t i = 0; i < piece.depth; ++i) {
      pack_along(static_cast<T const*>(table[i]) + (piece.column - strip), piece.columns,
                 to + i * panel_columns, right.stride);
    }
    return right;
  }
  std::int64_t const first = piece.half * (job.n / 2);
  if (is<gemm_kind::dgrad>(job)) {
    pack_b_dgrad<T>(job, segment, piece, to);
  } else if (job.w.packed) {
    use_packed<T>(job, segment, piece, first, rows, right, to);
  } else {
    pack_b_forward<T>(job, segment, piece, first, to);
  }
  return right;
}

/// Whether B's rows lie contiguous over a strip of columns.
template <class Job>
bool b_in_place(Job const& job, std::int64_t n, std::int64_t columns) noexcept {
  if (is<gemm_kind::wgrad>(job)) return true;
  if (job.w.packed) return false;
  if (is<gemm_kind::dgrad>(job)) return job.w.column_stride == 1;
  return job.w.row_stride == 1 && job.w.column_stride != 1 && in_one_run(job.w.pairs, n, columns);
}
