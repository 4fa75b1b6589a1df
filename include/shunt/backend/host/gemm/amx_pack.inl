// No include guard: both operands of a product by tiles, as tiles that lie one behind the other: the left one's
// rows hold 32 neighboring terms of a sum, the right one's two terms of each of 16 columns (bf16_dot.inl's pairs). What
// lies behind the last term is zero in both: NaN or Inf in a neighbor would come through a product with zero.

/// Elements [column, column + count) of row r, one in the upper half of each lane; zeros where there is none.
SHUNT_INLINE vu amx_elements(gemm_rows const& rows, gemm_segment const& segment, std::int64_t r,
                             std::int64_t column, std::int64_t count) noexcept {
  if (r >= segment.rows) return vu{};
  bf16 const* const from = row_of<bf16>(rows, segment.first + r);
  if (from == nullptr) return vu{};
  return as_bits(count >= lanes ? load(from + column) : load_first(from + column, count));
}
/// Those of rows r and r + 1, side by side.
SHUNT_INLINE vf amx_pair(gemm_rows const& rows, gemm_segment const& segment, std::int64_t r,
                         std::int64_t column, std::int64_t count) noexcept {
  vu const first = amx_elements(rows, segment, r, column, count);
  return as_float(first >> 16 | amx_elements(rows, segment, r + 1, column, count));
}

/// A row's terms [first, first + 32 steps) of `terms` to the same row of `steps` tiles.
SHUNT_INLINE void amx_pack_row(bf16 const* row, std::int64_t first, std::int64_t steps,
                               std::int64_t terms, char* to) noexcept {
  constexpr std::int64_t step = 2 * amx_pairs;
  for (std::int64_t s = 0; s < steps; ++s, to += amx_tile, first += step) {
    std::int64_t const left = row == nullptr ? 0 : terms - first;
    if (left < step) __builtin_memset(to, 0, amx_row);
    if (left >= step) {
      __builtin_memcpy(to, row + first, amx_row);
    } else if (left > 0) {
      __builtin_memcpy(to, row + first, static_cast<std::size_t>(left) * sizeof(bf16));
    }
  }
}

/// Rows [row, row + rows) of the left operand in tiles of `height` rows; terms from 32 `first` on, in `steps`
/// tiles side by side, of `terms` in all. A weight gradient's rows are columns: transposed, as pairs.
template <class Job>
void amx_pack_left(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                   std::int64_t height, std::int64_t first, std::int64_t steps, std::int64_t terms,
                   char* to) noexcept {
  for (std::int64_t r = 0; r < rows; r += height, to += steps * amx_tile) {
    if (is<gemm_kind::wgrad>(job)) {
      for (std::int64_t s = 0; s < steps; ++s) {
        std::int64_t const k = (first + s) * 2 * amx_pairs;
        vf x[lanes];
        unroll<lanes>([&](auto i) __attribute__((always_inline)) {
          x[i.value] = amx_pair(job.a, segment, k + 2 * i.value, row + r, rows - r);
        });
        transpose(x);
        unroll<lanes>([&](auto i) __attribute__((always_inline)) {
          if (i.value < height) {
            __builtin_memcpy(to + s * amx_tile + i.value * amx_row, &x[i.value], sizeof(vf));
          }
        });
      }
      continue;
    }
    for (std::int64_t i = 0; i < height; ++i) {
      bf16 const* const from =
          r + i < rows ? row_of<bf16>(job.a, segment.first + row + r + i) : nullptr;
      amx_pack_row(from, first * 2 * amx_pairs, steps, terms, to + i * amx_row);
    }
  }
}

/// Pairs of a transposed product's weights, (n, n + 1) from `n` on, of up to 16 columns: what job.w holds of them.
template <class Job>
void amx_pack_along(Job const& job, gemm_segment const& segment, std::int64_t n, std::int64_t pairs,
                    std::int64_t column, std::int64_t columns, float* to) noexcept {
  auto const& w = job.w;
  std::int64_t const there = job.n - n < 2 * pairs ? job.n - n : 2 * pairs, whole = there / 2;
  std::int64_t const half = w.pairs.half_rows, cs = w.column_stride;
  auto const row = [&](std::int64_t i) { return row_of<bf16 const>(w, segment.expert, n + i); };
  auto const bits = [&](std::int64_t i, std::int64_t j) -> unsigned {
    if (i >= there || j >= columns) return 0;
    if (!w.packed) return row(i)[(column + j) * cs].bits;
    return expert_of<bf16 const>(
               w,
               segment.expert)[(packed_panel(w.pairs, n + i) * job.k + column + j) * panel_columns +
                               packed_lane(w.pairs, n + i)]
        .bits;
  };
  std::int64_t done = 0;  // pairs
  if (!w.packed && cs == 1) {
    auto const some = [&](std::int64_t i) {
      bf16 const* const from = row(i) + column;
      return as_bits(columns == panel_columns ? load(from) : load_first(from, columns));
    };
    for (; done < whole; ++done) {
      store(to + done * panel_columns, as_float(some(2 * done) >> 16 | some(2 * done + 1)));
    }
  } else if (w.packed && half % 2 == 0) {  // pairs never lie in two panels
    for (std::int64_t run = 0; done < whole; done += run) {
      std::int64_t const at = n + 2 * done, lane = packed_lane(w.pairs, at);
      std::int64_t const to_half = at < half ? (half - at) / 2 : whole;
      std::int64_t const fit = (panel_columns - lane) / 2;
      run = whole - done < fit ? whole - done : fit;
      run = to_half < run ? to_half : run;
      bf16 const* const from = expert_of<bf16 const>(w, segment.expert) +
                               (packed_panel(w.pairs, at) * job.k + column) * panel_columns + lane;
      panel_across(
          [&](std::int64_t j) {
            return reinterpret_cast<element_pair const*>(from + j * panel_columns);
          },
          columns, run, to + done * panel_columns);
    }
  }
  for (; done < pairs; ++done) {
    for (std::int64_t j = 0; j < panel_columns; ++j) {
      unsigned const pair = bits(2 * done, j) | bits(2 * done + 1, j) << 16;
      __builtin_memcpy(to + done * panel_columns + j, &pair, sizeof pair);
    }
  }
}

/// Columns [column, column + columns), 16 at most, of a piece of the right operand: one panel of pairs.
template <class Job>
void amx_pack_right(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                    std::int64_t column, std::int64_t columns, float* to) noexcept {
  if (is<gemm_kind::wgrad>(job)) {
    for (std::int64_t i = 0; i < piece.depth; ++i) {
      store(to + i * panel_columns, amx_pair(job.b, segment, 2 * (piece.k + i), column, columns));
    }
  } else if (is<gemm_kind::dgrad>(job)) {
    amx_pack_along(job, segment, 2 * piece.k, piece.depth, column, columns, to);
  } else {
    panel_of_pairs(job, segment, piece, piece.half * (job.n / 2) + column, columns, to);
  }
}
