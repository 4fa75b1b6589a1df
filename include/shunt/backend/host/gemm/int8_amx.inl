// No include guard: products of rows in int8 with int8_channel weights by the tiles of AMX, for processors of isa::amx.
// Rows and weights are those of gemm/int8_vnni.inl, so the sums are the same integers.

/// All rows of a block times a piece of the right operand, see multiply_int8. A panel is filled up with zeros to whole
/// steps; what a step reads behind a row's numbers is multiplied by them.
inline void multiply_int8_by_tiles(gemm_format_job const& job, gemm_segment const& segment,
                                   std::int64_t rows, gemm_piece const& piece, float* keep,
                                   tile_at const& part, prefetch_cursor& next) noexcept {
  using place = format_place<int8_channel>;
  constexpr std::int64_t word = int8_vnni::k_per_word, one = word * panel_columns;
  std::int64_t const n = piece.half * (job.n / 2) + piece.column;
  std::int64_t const stride = place::panel_bytes(job.k);
  unsigned char const* const from = expert_of<unsigned char const>(job.w, segment.expert) +
                                    packed_panel(job.w.pairs, n) * stride +
                                    place::place(word * piece.k);
  std::int64_t const panels = (piece.columns + panel_columns - 1) / panel_columns;
  std::int64_t const steps = (piece.depth + amx_pairs - 1) / amx_pairs, deep = steps * amx_pairs;
  std::int64_t const there = (job.k - word * piece.k) / word;
  std::int64_t const whole = there < piece.depth ? there : piece.depth;
  for (std::int64_t p = 0; p < panels; ++p) {
    float* const to = keep + p * deep * panel_columns;
    for (std::int64_t i = 0; i < whole; ++i) {
      store(to + i * panel_columns, int8_vnni::weights<0>(from + p * stride + i * one, 0));
    }
    if (whole < piece.depth) {
      unsigned char bytes[one] = {};
      __builtin_memcpy(bytes, from + p * stride + whole * one,
                       static_cast<std::size_t>(job.k % word * panel_columns));
      store(to + whole * panel_columns, int8_vnni::weights<0>(bytes, 0));
    }
    zero_row(to + piece.depth * panel_columns, (deep - piece.depth) * panel_columns);
  }
  constexpr auto size = static_cast<std::int64_t>(sizeof(float));
  std::int64_t const tiles = (rows + amx_rows - 1) / amx_rows, height = (rows + tiles - 1) / tiles;
  std::int64_t const calls = (panels + 1) / 2 * ((tiles + 1) / 2) * steps;
  std::int64_t const lines = (line_count(next) + calls - 1) / calls;
  amx_block at{};
  at.left = reinterpret_cast<char const*>(part.a);
  at.left_row = part.a_stride * size;
  at.left_step = amx_row;
  at.left_apart = height * at.left_row;
  at.right_apart = steps * amx_tile;
  at.steps = steps;
  at.row = part.c_row;
  at.second_row = height * part.c_row;
  at.resume = part.resume;
  for (std::int64_t p = 0; p < panels; p += 2) {
    at.right = reinterpret_cast<char const*>(keep) + p * at.right_apart;
    at.sums = part.c + p * panel_columns;
    amx_multiply<amx_terms::int8>(tiles, panels - p, at, next, lines);
  }
}
