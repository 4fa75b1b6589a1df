// No include guard: one block of a product's output, once in each region.

/// The pieces of a block in the order in which they are computed with: by columns for each piece of
/// the packed left operand, and those by k.
struct gemm_walk {
  std::int64_t column, columns, depth, a_depth, group;
  std::int64_t most;  ///< k of a piece
  int halves;

  gemm_piece piece(int half, std::int64_t at, std::int64_t k) const noexcept {
    std::int64_t const wide = column + columns - at, deep = depth - k;
    return {half, at, wide < group ? wide : group, k, deep < most ? deep : most};
  }
  /// The next one; of no depth behind the last.
  gemm_piece after(gemm_piece const& now) const noexcept {
    std::int64_t const k = now.k + now.depth, start = now.k / a_depth * a_depth;
    std::int64_t const at = now.column + now.columns;
    if (k < depth && k < start + a_depth) return piece(now.half, now.column, k);
    if (at < column + columns) return piece(now.half, at, start);
    if (now.half + 1 < halves) return piece(now.half + 1, column, start);
    return piece(0, column, start + a_depth < depth ? start + a_depth : depth);
  }
};

/// One block of the output: where it lies, in which pieces it is computed, and the steps of that.
template <class Job> struct gemm_task {
  Job const& job;
  gemm_scratch& scratch;
  gemm_segment const& segment;
  std::int64_t const row, rows, column, columns;

  bool const wgrad = is<gemm_kind::wgrad>(job), forward = is<gemm_kind::forward>(job);
  int const k_per_word = has_dot<Job> ? job.k_per_word : 1;
  bool const dot = k_per_word > 1;
  std::int64_t const depth = wgrad      ? segment.rows
                             : !forward ? job.n
                             : dot      ? (job.k + k_per_word - 1) / k_per_word
                                        : job.k;
  static constexpr std::int64_t wide = 2 * gemm_panel;  // what a tile writes at most
  std::int64_t const half_stride = (columns + wide - 1) / wide * wide;
  std::int64_t const stride = job.paired ? 2 * half_stride : half_stride;
  bool const lie = !dot && b_in_place(job, column, columns);
  bool const packed = job.w.packed && forward;
  // One tile needs its weights soon: several panels are asked for at once.
  bool const soon = packed && rows <= tile_rows;
  float* const sums = job.wide ? scratch.a : scratch.sums;

  tile_at left = {};              ///< the packed left operand
  std::int64_t pieces_left = 0;   ///< wgrad: of the block
  std::int64_t written_rows = 0;  ///< wgrad: rows of the output that were asked for

  gemm_walk walk() noexcept {
    std::int64_t const most = job.w.packed && !wgrad && !soon && (!dot || !has_formats<Job>)
                                  ? gemm_depth
                                  : gemm_made_depth;
    std::int64_t const pieces = (depth + most - 1) / most;
    std::int64_t const even = pieces == 0 ? most : (depth + pieces - 1) / pieces;
    constexpr std::int64_t unit = has_formats<Job> ? format_pieces : tile_stretch;
    gemm_walk w{};
    w.column = column;
    w.columns = columns;
    w.depth = depth;
    w.group = (lie || soon ? gemm_group_panels : tile_panels) * panel_columns;
    w.most = (even + unit - 1) / unit * unit;
    w.halves = job.paired ? 2 : 1;
    // All k of a panel one after another where the left operand is short: one stream of weights.
    bool const whole = !wgrad && !lie && rows * depth <= gemm_block_rows * gemm_depth;
    w.a_depth = whole ? depth + 1 : w.most;
    pieces_left = (columns + w.group - 1) / w.group * pieces;
    return w;
  }

  /// The sums by a kernel of their own, where the job or the number of rows has one.
  bool sums_at_once() noexcept {
    if constexpr (may_round_rows<Job>) {
      if (job.wide) {
        with_groups(job, [&](auto arithmetic) {
          sums_of_groups<decltype(arithmetic)>(job, segment, row, rows, column, columns, scratch.b,
                                               sums, half_stride);
        });
        return true;
      }
    }
    if constexpr (may_be<Job, gemm_kind::forward>) {
      if (packed && !dot &&
          sums_of_few(job, segment, row, rows, column, columns, scratch.a, scratch.sums,
                      half_stride)) {
        return true;
      }
      if constexpr (has_dot<Job> && !may_round_rows<Job>) {
        if (dot && sums_of_few_dots(job, segment, row, rows, column, columns, scratch.a,
                                    scratch.sums, half_stride)) {
          return true;
        }
      }
      if constexpr (!has_formats<Job>) {
        if (!dot && sums_across(job, segment, row, rows, column, columns, scratch.a, scratch.sums,
                                half_stride)) {
          return true;
        }
      }
    }
    if constexpr (!has_formats<Job> && may_be<Job, gemm_kind::dgrad>) {
      return sums_along(job, segment, row, rows, column, columns, scratch.a, sums, stride);
    }
    return false;
  }

  /// Rows [row, row + rows) of the left operand, `deep` k from `start` on.
  void pack_left(std::int64_t start, std::int64_t deep) noexcept {
    if constexpr (may_round_rows<Job>) {
      if (dot) {
        with_numbers(job, [&](auto numbers) {
          pack_a_int8<decltype(numbers)>(job, segment, row, rows, start, deep, scratch.scale,
                                         scratch.a, left);
        });
        return;
      }
    } else if constexpr (has_dot<Job>) {
      if (dot) {
        pack_a_bf16_dot(job, segment, row, rows, start, deep, scratch.a, left);
        return;
      }
    }
    pack_a(job, segment, row, rows, start, deep, scratch.a, left);
  }

  /// What is prefetched while a piece is multiplied: a few rows of the output with each (wgrad), the next
  /// piece's weights, or the output behind the last.
  prefetch_cursor ahead_of(gemm_piece next) noexcept {
    if (wgrad) {
      std::int64_t const done = written_rows;
      written_rows += (rows - done + pieces_left - 1) / pieces_left;
      --pieces_left;
      return gradient_prefetch(job, segment, row + done, written_rows - done, column, columns);
    }
    if (next.depth == 0) {
      return output_prefetch(job, segment.first + row, rows, column, columns);
    }
    next.k *= k_per_word;
    next.depth *= k_per_word;
    return weights_prefetch(job, segment, next);
  }

  /// Adds the product of one piece; `start` is the first k of the packed left operand.
  void multiply_piece(gemm_piece const& now, std::int64_t start, prefetch_cursor ahead) noexcept {
    tile_at part = left;
    part.a += (now.k - start) * (left.across ? left.a_stride : 1);
    part.depth = now.depth;
    part.resume = now.k > 0;
    part.c_row = stride;
    part.c = scratch.sums + now.half * half_stride + (now.column - column);
    if constexpr (may_round_rows<Job>) {
#if SHUNT_REGION == 512
      if (job.tiles) {
        multiply_int8_by_tiles(job, segment, rows, now, scratch.b, part, ahead);
        return;
      }
#endif
      if (dot) {
        with_numbers(job, [&](auto numbers) {
          multiply_int8<decltype(numbers)>(job, segment, rows, now, scratch.b, part, ahead);
        });
        return;
      }
    } else if constexpr (has_dot<Job>) {
      if (dot) {
        multiply_bf16_dot(job, segment, rows, now, scratch.b, part, ahead);
        return;
      }
    }
    multiply(job, segment, rows, now, lie ? scratch.row : nullptr, column, scratch.b, part, ahead);
  }

  /// The sums, piece by piece.
  void sums_by_pieces() noexcept {
    gemm_walk const w = walk();
#if SHUNT_REGION == 512
    if constexpr (may_round_rows<Job>) {
      std::int64_t const tiles = (rows + amx_rows - 1) / amx_rows;
      if (job.tiles) amx_configure((rows + tiles - 1) / tiles);
    }
#endif
    gemm_piece next{};
    for (gemm_piece now = w.piece(0, column, 0); now.depth > 0; now = next) {
      next = w.after(now);
      std::int64_t const start = now.k / w.a_depth * w.a_depth;
      if (now.k == start && now.column == column) {
        std::int64_t const rest = depth - start;
        if (now.half == 0) pack_left(start, rest < w.a_depth ? rest : w.a_depth);
        if (lie) rows_table(job, segment, now, scratch.row);
      }
      multiply_piece(now, start, ahead_of(next));
    }
#if SHUNT_REGION == 512
    if constexpr (may_round_rows<Job>) {
      if (job.tiles) amx_release();
    }
#endif
  }

  void run_epilogue() noexcept {
    gemm_block block{};
    block.first = sums;
    block.second = job.paired ? sums + half_stride : nullptr;
    block.stride = stride;
    block.row = wgrad ? row : segment.first + row;
    block.rows = rows;
    block.column = column;
    block.columns = columns;
    block.expert = segment.expert;
    block.segment_first = segment.first;
    block.segment_rows = segment.rows;
    job.epilogue(job, block);
  }

  void run() noexcept {
    if constexpr (may_round_rows<Job>) {
      if (dot) scales_of_rows(job, segment, row, rows, scratch.scale);
    }
    if (!sums_at_once()) sums_by_pieces();
    if (depth == 0) {
      for (std::int64_t r = 0; r < rows; ++r) zero_row(sums + r * stride, stride);
    }
    if constexpr (may_round_rows<Job>) {
      if (dot) {
        sums_from_integers(job, segment, rows, column, columns, scratch.scale, scratch.sums,
                           half_stride);
      }
    }
    run_epilogue();
  }
};
