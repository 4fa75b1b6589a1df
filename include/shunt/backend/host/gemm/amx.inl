// No include guard: products of two bf16 operands by the tiles of AMX, for processors of isa::amx. Each output is
// the chain of docs/numerics.md, whatever the block: steps of 32 terms begin at multiples of 32, for any
// number of rows, one too.

/// One block of the output, as gemm_task has it. Its depth is in terms, a piece's in pairs of them.
template <class Job> struct amx_task : gemm_task<Job> {
  using task = gemm_task<Job>;
  using task::column;
  using task::columns;
  using task::depth;
  using task::job;
  using task::row;
  using task::rows;
  using task::scratch;
  using task::segment;

  std::int64_t const tiles = (rows + amx_rows - 1) / amx_rows;  ///< of equal heights
  std::int64_t const height = (rows + tiles - 1) / tiles;
  std::int64_t deep = 0;  ///< pairs of the left operand that are packed

  gemm_walk walk() noexcept {
    constexpr std::int64_t most = 16 * amx_pairs;
    constexpr auto room = static_cast<std::int64_t>(sizeof scratch.a) / amx_tile * amx_pairs;
    gemm_walk w{};
    w.column = column;
    w.columns = columns;
    w.depth = (depth + 2 * amx_pairs - 1) / (2 * amx_pairs) * amx_pairs;
    w.group = task::wide;
    w.most = most;
    w.halves = job.paired ? 2 : 1;
    w.a_depth = room / tiles / most * most;
    this->pieces_left = (columns + w.group - 1) / w.group * ((w.depth + most - 1) / most);
    return w;
  }

  gemm_piece in_terms(gemm_piece piece) const noexcept {
    piece.k *= 2;
    std::int64_t const behind = depth - piece.k;
    piece.depth = behind < 2 * piece.depth ? behind : 2 * piece.depth;
    return piece;
  }

  /// Adds the product of one piece; `start` is the first pair of the packed left operand.
  void multiply_piece(gemm_piece const& now, std::int64_t start, prefetch_cursor ahead) noexcept {
    std::int64_t const panels = (now.columns + panel_columns - 1) / panel_columns;
    for (std::int64_t p = 0; p < panels; ++p) {
      std::int64_t const j = p * panel_columns, beside = now.columns - j;
      amx_pack_right(job, segment, now, now.column + j,
                     beside < panel_columns ? beside : panel_columns, scratch.b + j * now.depth);
    }
    amx_block at{};
    at.left = reinterpret_cast<char const*>(scratch.a) + (now.k - start) / amx_pairs * amx_tile;
    at.right = reinterpret_cast<char const*>(scratch.b);
    at.left_row = amx_row;
    at.left_step = amx_tile;
    at.left_apart = deep / amx_pairs * amx_tile;
    at.right_apart = now.depth / amx_pairs * amx_tile;
    at.steps = now.depth / amx_pairs;
    at.sums = scratch.sums + now.half * task::half_stride + (now.column - column);
    at.row = task::stride;
    at.second_row = height * task::stride;
    at.resume = now.k > 0;
    std::int64_t const calls = (tiles + 1) / 2 * at.steps;
    std::int64_t const lines = (line_count(ahead) + calls - 1) / calls;
    amx_multiply<amx_terms::bf16>(tiles, panels, at, ahead, lines);
  }

  /// Tiles are in use in here alone: the epilogue, which may be a user's, finds none.
  void sums_by_tiles() noexcept {
    gemm_walk const w = walk();
    amx_configure(height);
    gemm_piece next{};
    for (gemm_piece now = w.piece(0, column, 0); now.depth > 0; now = next) {
      next = w.after(now);
      std::int64_t const start = now.k / w.a_depth * w.a_depth;
      if (now.k == start && now.column == column && now.half == 0) {
        std::int64_t const rest = w.depth - start;
        deep = rest < w.a_depth ? rest : w.a_depth;
        amx_pack_left(job, segment, row, rows, height, start / amx_pairs, deep / amx_pairs, depth,
                      reinterpret_cast<char*>(scratch.a));
      }
      multiply_piece(now, start, task::ahead_of(next.depth > 0 ? in_terms(next) : next));
    }
    amx_release();
  }

  void run() noexcept {
    if (depth > 0) {
      sums_by_tiles();
    } else {
      for (std::int64_t r = 0; r < rows; ++r) {
        zero_row(scratch.sums + r * task::stride, task::stride);
      }
    }
    task::run_epilogue();
  }
};
