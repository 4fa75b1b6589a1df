// No include guard: all rows of a block times one piece of the right operand, by tiles.

/// How the left operand lies in a job's tiles, see tile_at: a weight gradient's across.
enum class left_lies { along, across, either };
template <class Job>
inline constexpr left_lies lies_in = !gemm_known<Job>::kind          ? left_lies::either
                                     : may_be<Job, gemm_kind::wgrad> ? left_lies::across
                                                                     : left_lies::along;

/// One tile of `rows` rows, of Least to Most.
template <int Least, int Most, left_lies Lies, class Right>
SHUNT_INLINE void tile_of(std::int64_t rows, tile_at const& at, Right const& right,
                          prefetch_cursor& next, std::int64_t lines) noexcept {
  if constexpr (Most >= Least) {
    if (Most > Least && rows != Most) {
      tile_of<Least, Most - 1, Lies>(rows, at, right, next, lines);
    } else if constexpr (Right::runs_across && Lies == left_lies::across) {
      tile<Most, true>(at, right, next, lines);
    } else if (Right::runs_across && Lies == left_lies::either && at.across) {
      tile<Most, Right::runs_across && Lies == left_lies::either>(at, right, next, lines);
    } else {
      tile<Most, false>(at, right, next, lines);
    }
  }
}

/// All rows times the columns of one tile, in tiles of nearly equal height. The first reads `first`,
/// with Least to Most rows, the others `panel`.
template <int Least, int Most, left_lies Lies, class First, class Panel>
void tile_column(std::int64_t rows, tile_at at, First const& first, Panel const& panel,
                 prefetch_cursor& next, std::int64_t lines) noexcept {
  std::int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t height = Least == tile_rows ? tile_rows : (rows + tiles - 1) / tiles;
  tile_of<Least, Most, Lies>(height, at, first, next, lines);
  while (--tiles > 0) {
    rows -= height;
    at.a += at.across ? height : height * at.a_stride;
    at.c += height * at.c_row;
    height = (rows + tiles - 1) / tiles;
    tile_of<1, tile_rows, Lies>(height, at, panel, next, lines);
  }
}

/// All rows times some panels; first(p, v, last) and panel(p, v, last): what the first tile of panel p reads
/// from column v on, and the others. Where a tile spans two panels and one is left, `last`, it computes
/// with that one twice.
template <int Least, int Most, left_lies Lies = left_lies::either, class First, class Panel>
SHUNT_INLINE void tile_panels_of(std::int64_t rows, packed_b const& right, tile_at at,
                                 prefetch_cursor& next, First first, Panel panel) noexcept {
  constexpr int parts = one_panel ? panel_columns / tile_columns : 1;
  std::int64_t const tiles = (rows + tile_rows - 1) / tile_rows;
  std::int64_t const stretches = (at.depth + tile_stretch - 1) / tile_stretch;
  std::int64_t const spans = (right.panels + tile_panels - 1) / tile_panels;
  std::int64_t const calls = spans * parts * tiles * stretches;
  std::int64_t const lines = (line_count(next) + calls - 1) / calls;
  for (std::int64_t p = 0; p < right.panels; p += tile_panels) {
    bool const last = right.panels - p < tile_panels;
    for (int v = 0; v < parts * tile_columns; v += tile_columns) {
      tile_column<Least, Most, Lies>(rows, at, first(p, v, last), panel(p, v, last), next, lines);
      at.c += tile_columns;
    }
  }
}
/// The same of panels that are ready.
template <left_lies Lies>
void tile_ready(std::int64_t rows, packed_b const& right, tile_at const& at,
                prefetch_cursor& next) noexcept {
  auto const ready = [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
    return right_panel{right.data + p * right.stride + v, last ? 0 : right.stride};
  };
  tile_panels_of<1, tile_rows, Lies>(rows, right, at, next, ready, ready);
}

/// The same of quantized weights: decoded once for all rows.
template <class Job>
void multiply_decoded(Job const& job, gemm_segment const& segment, std::int64_t rows,
                      gemm_piece const& piece, float* keep, tile_at const& at,
                      prefetch_cursor& next) noexcept {
  std::int64_t const n = piece.half * (job.n / 2) + piece.column;
  packed_b right{};
  right.from = packed_b::ready;
  right.panels = (piece.columns + panel_columns - 1) / panel_columns;
  right.data = keep;
  right.stride = piece.depth * panel_columns;
  with_known_format<typename gemm_known<Job>::right>(job.w.type, [&](auto* tag) {
    using F = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t p = 0; p < right.panels; ++p) {
      decode_panel<F>(expert_of<unsigned char const>(job.w, segment.expert) +
                          (packed_panel(job.w.pairs, n) + p) * decoder<F>::panel_bytes(job.k),
                      piece.k, piece.depth, keep + p * right.stride);
    }
  });
  tile_ready<left_lies::either>(rows, right, at, next);
}

/// All rows of a block times a piece of the right operand; see pack_b.
template <class Job>
void multiply(Job const& job, gemm_segment const& segment, std::int64_t rows,
              gemm_piece const& piece, void const* const* table, std::int64_t strip, float* keep,
              tile_at const& at, prefetch_cursor& next) noexcept {
  if constexpr (has_formats<Job>) {
    multiply_decoded(job, segment, rows, piece, keep, at, next);
  } else {
    constexpr left_lies lies = lies_in<Job>;
    with_right(job, [&](auto* tag) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      packed_b const right = pack_b<T>(job, segment, piece, table, strip, rows, keep);
      auto const kept = [&](std::int64_t, int v, bool) __attribute__((always_inline)) {
        return right_panel{right.data + v, right.stride};
      };
      if (right.from == packed_b::ready) {
        tile_ready<lies>(rows, right, at, next);
      } else if (right.from == packed_b::rows) {
        auto const first = [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
          return right_rows<T>{right.row, right.column + p * panel_columns + v,
                               last ? 0 : panel_columns, right.data + v, right.stride};
        };
        tile_panels_of<tile_rows, tile_rows, lies>(rows, right, at, next, first, kept);
      } else if constexpr (sizeof(T) < sizeof(float) && may_be<Job, gemm_kind::forward>) {
        auto const packed = [&](std::int64_t p, int v) __attribute__((always_inline)) {
          return static_cast<T const*>(right.narrow) + p * right.narrow_stride + v;
        };
        if constexpr (widened_in_pairs<T>) {
          if (rows <= 2 * tile_rows) {  // for more, widening once is less work
            auto const pairs = [&](std::int64_t p, int v, bool) __attribute__((always_inline)) {
              return right_even_odd{packed(p, v)};
            };
            tile_panels_of<1, tile_rows>(rows, right, at, next, pairs, pairs);
            return;
          }
        }
        std::int64_t const keep_row = rows > tile_rows ? panel_columns : 0;
        auto const first = [&](std::int64_t p, int v, bool last) __attribute__((always_inline)) {
          return right_packed<T>{packed(p, v), last ? 0 : right.narrow_stride, right.data + v,
                                 right.stride, keep_row};
        };
        tile_panels_of<tile_rows, tile_rows>(rows, right, at, next, first, kept);
      }
    });
  }
}
