// No include guard: software prefetch of the next panel; loads overlap with FMAs.

/// The rows [first, first + rows) of one expert.
struct gemm_segment {
  std::int64_t expert, first, rows;
};

/// A piece of a product's right operand: the k of [k, k + depth), columns [column, column + columns)
/// of a half.
struct gemm_piece {
  int half;
  std::int64_t column, columns, k, depth;
};

/// Requests of one step of a tile, `apart` from each other: as many as its step's time allows.
inline constexpr int prefetch_width = SHUNT_REGION == 512 ? 4 : 2;

/// Cache lines that the next piece will be made of: `rows` times `lines` of them, asked for in order, and
/// beside them or (of width 2) in turn with them, `apart`, those of the piece's other three parts: a core reads
/// four streams of memory faster than one. In one part, lines side by side.
struct prefetch_cursor {
  char const* start;
  std::int64_t stride, rows, lines, at, parts, apart;
  bool second;  ///< pair of parts is next
};
SHUNT_INLINE prefetch_cursor split_streams(prefetch_cursor whole) noexcept {
  bool const divides = whole.rows % 4 == 0;
  whole.parts = divides ? 4 : 1;
  whole.rows /= whole.parts;
  whole.apart = divides ? whole.rows * whole.stride : 64;
  return whole;
}
/// How many lines there are in all.
SHUNT_INLINE std::int64_t line_count(prefetch_cursor const& next) noexcept {
  return next.parts * next.rows * next.lines;
}

/// Where the first of `prefetch_width` requests is, how far apart they are, and how far on the next ones are.
struct prefetch_batch {
  char const* at;
  std::int64_t apart, step;
};
/// Requests for the next `lines`, in `steps`; for `idle`, a cached line, where none is left.
SHUNT_INLINE prefetch_batch next_prefetch_batch(prefetch_cursor& next, std::int64_t lines,
                                                std::int64_t steps, void const* idle) noexcept {
  if (next.rows <= 0) return {static_cast<char const*>(idle), 0, 0};
  char const* from = next.start + 64 * next.at;
  if (next.parts > 1) {
    lines = (lines + prefetch_width - 1) / prefetch_width;
    if constexpr (prefetch_width < 4) {
      from += next.second ? 2 * next.apart : 0;
      next.second = !next.second;
    }
  }
  if (!next.second) next.at += lines;
  if (next.at >= next.lines) {
    next.at = 0;
    next.start += next.stride;
    --next.rows;
  }
  return {from, next.apart, 64 * lines / steps};
}

/// What pack_b(...) will read of a piece of weights: a guess, where rows lie in blocks or are
/// those of both halves.
template <class Job>
prefetch_cursor weights_prefetch(Job const& job, gemm_segment const& segment,
                                 gemm_piece const& piece) noexcept {
  prefetch_cursor next{};
  std::int64_t const column = piece.column, columns = piece.columns, k = piece.k;
  if (!gemm_known<Job>::kind && is_format(job.w.type)) {
    with_known_format<typename gemm_known<Job>::right>(job.w.type, [&](auto* tag) {
      using at = format_place<std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>>;
      next.stride = at::panel_bytes(job.k);
      next.start = expert_of<char const>(job.w, segment.expert) + at::place(k) +
                   packed_panel(job.w.pairs, piece.half * (job.n / 2) + column) * next.stride;
      next.rows = (columns + gemm_panel - 1) / gemm_panel;
      next.lines = (at::place(k + piece.depth) - at::place(k) + 63) / 64;
    });
    return split_streams(next);
  }
  std::int64_t const size = job.w.type == element_type::f32 ? 4 : 2;
  std::int64_t length = 0;  // in elements
  bool const forward = is<gemm_kind::forward>(job);
  std::int64_t const n = piece.half * (job.n / 2) + column;
  if (job.w.packed) {
    std::int64_t const first = forward
                                   ? (packed_panel(job.w.pairs, n) * job.k + k) * gemm_panel
                                   : (packed_panel(job.w.pairs, k) * job.k + column) * gemm_panel;
    next.start = expert_of<char const>(job.w, segment.expert, size) + first * size;
    next.stride = job.k * gemm_panel;
    std::int64_t const across = forward ? columns : piece.depth;
    next.rows = (across + gemm_panel - 1) / gemm_panel;
    length = (forward ? piece.depth : columns) * gemm_panel;
  } else {
    std::int64_t const rs = job.w.row_stride, cs = job.w.column_stride;
    std::int64_t const N = forward ? columns : piece.depth;
    std::int64_t const K = forward ? piece.depth : columns;
    if (rs != 1 && cs != 1) return next;
    next.start = row_of<char const>(job.w, segment.expert, forward ? n : k, size) +
                 (forward ? k : column) * cs * size;
    next.stride = cs == 1 ? (job.w.pairs.block == 1 ? 2 : 1) * rs : cs;
    next.rows = cs == 1 ? N : K;
    length = cs == 1 ? K : N;
  }
  next.stride *= size;
  next.lines = (length * size + 63) / 64;
  return split_streams(next);
}

/// The lines that rows [row, row + rows) of a weight gradient will be written to, from `column` on.
inline prefetch_cursor gradient_prefetch(gemm_job const& job, gemm_segment const& segment,
                                         std::int64_t row, std::int64_t rows, std::int64_t column,
                                         std::int64_t columns) noexcept {
  if (job.written == nullptr) return {};
  gemm_experts<void> const& to = *job.written;
  auto const* const first = row_of<float>(to, segment.expert, row) + column;
  return {reinterpret_cast<char const*>(first),
          (to.pairs.block == 1 ? 2 : 1) * to.row_stride * static_cast<std::int64_t>(sizeof(float)),
          rows,
          (columns * static_cast<std::int64_t>(sizeof(float)) + 63) / 64,
          0,
          1,
          64,
          false};
}

/// The lines that a block of sums will be written to: rows [row, row + rows), from `column` on.
inline prefetch_cursor output_prefetch(gemm_job const& job, std::int64_t row, std::int64_t rows,
                                       std::int64_t column, std::int64_t columns) noexcept {
  if (job.output == nullptr) return {};
  gemm_store const& to = *job.output;
  std::int64_t const size = to.type == element_type::f32 ? 4 : 2;
  auto const* const first = static_cast<char const*>(to.data) + (row * to.stride + column) * size;
  return {first, to.stride * size, rows, (columns * size + 63) / 64, 0, 1, 64, false};
}
