// No include guard: the macro-kernel of every product, once in each region: GotoBLAS' nest. A task is an
// MC x NC block of one expert's output; KC (gemm_depth, gemm_made_depth) k are packed at a time.
#define SHUNT_ADDRESSING SHUNT_INLINE
#include "shunt/experts/operand_addressing.inl"
#undef SHUNT_ADDRESSING
//
#include "shunt/backend/host/gemm/known.inl"
//
#include "shunt/backend/host/gemm/prefetch.inl"
//
#include "shunt/backend/host/gemm/micro_kernel.inl"
//
#include "shunt/backend/host/gemm/transpose.inl"
//
#include "shunt/backend/host/gemm/pack_a.inl"
//
#include "shunt/backend/host/gemm/formats.inl"
//
#include "shunt/backend/host/gemm/formats_four_bits.inl"
//
#include "shunt/backend/host/gemm/pack_b.inl"
//
#include "shunt/backend/host/gemm/multiply.inl"
//
#if SHUNT_REGION == 512
#include "shunt/backend/host/gemm/bf16_dot.inl"
#endif
//
#include "shunt/backend/host/gemm/small_m_packed.inl"
//
#include "shunt/backend/host/gemm/small_m_plain.inl"
//
#include "shunt/backend/host/gemm/small_m_dgrad.inl"
//
#include "shunt/backend/host/gemm/int8_rows.inl"
//
#include "shunt/backend/host/gemm/int8_sums.inl"
//
#if SHUNT_REGION == 512
#include "shunt/backend/host/gemm/int8_vnni.inl"
#endif
//
#include "shunt/backend/host/gemm/int8.inl"
//
#include "shunt/backend/host/gemm/int8_groups.inl"

/// Where a job may say `k_per_word`.
template <class Job>
inline constexpr bool has_dot =
    may_round_rows<Job> || (SHUNT_REGION == 512 && !has_formats<Job> && may_hold_pairs<Job>);

/// What a worker computes in: 246 KB of its stack.
struct gemm_scratch {
  alignas(64) float sums[gemm_sums];
  alignas(64) float a[gemm_block_rows * gemm_depth];
  alignas(64) float b[gemm_group_panels * gemm_made_depth * gemm_panel];
  void const* row[gemm_made_depth];
  int8_scale scale[gemm_block_rows];
};
static_assert(gemm_group_panels * gemm_made_depth >= tile_panels * gemm_depth);
//
#include "shunt/backend/host/gemm/wgrad.inl"

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

/// One block of the output.
template <class Job>
void gemm_task(Job const& job, gemm_scratch& scratch, gemm_segment const& segment, std::int64_t row,
               std::int64_t rows, std::int64_t column, std::int64_t columns) noexcept {
  bool const wgrad = is<gemm_kind::wgrad>(job), forward = is<gemm_kind::forward>(job);
  int const k_per_word = has_dot<Job> ? job.k_per_word : 1;
  bool const dot = k_per_word > 1;
  std::int64_t const depth = wgrad      ? segment.rows
                             : !forward ? job.n
                             : dot      ? (job.k + k_per_word - 1) / k_per_word
                                        : job.k;
  constexpr std::int64_t wide = 2 * gemm_panel;  // what a tile writes at most
  std::int64_t const half_stride = (columns + wide - 1) / wide * wide;
  std::int64_t const stride = job.paired ? 2 * half_stride : half_stride;
  bool const lie = !dot && b_in_place(job, column, columns);
  bool const packed = job.w.packed && forward;
  // One tile needs its weights soon: several panels are asked for at once.
  bool const soon = packed && rows <= tile_rows;
  std::int64_t const most =
      job.w.packed && !wgrad && !soon && (!dot || !has_formats<Job>) ? gemm_depth : gemm_made_depth;
  std::int64_t const pieces = (depth + most - 1) / most;
  std::int64_t const even = pieces == 0 ? most : (depth + pieces - 1) / pieces;
  gemm_walk walk{};
  walk.column = column;
  walk.columns = columns;
  walk.depth = depth;
  walk.group = (lie || soon ? gemm_group_panels : tile_panels) * panel_columns;
  constexpr std::int64_t unit = has_formats<Job> ? format_pieces : tile_stretch;
  walk.most = (even + unit - 1) / unit * unit;
  walk.halves = job.paired ? 2 : 1;
  // All k of a panel one after another where the left operand is short: one stream of weights.
  bool const whole = !wgrad && !lie && rows * depth <= gemm_block_rows * gemm_depth;
  walk.a_depth = whole ? depth + 1 : walk.most;
  std::int64_t a_pieces = (columns + walk.group - 1) / walk.group * pieces, written_rows = 0;
  tile_at at{};
  at.c_row = stride;
  bool summed = false;
  float* const sums = job.wide ? scratch.a : scratch.sums;
  if constexpr (may_round_rows<Job>) {
    if (dot) scales_of_rows(job, segment, row, rows, scratch.scale);
    if (job.wide) {
      with_groups(job, [&](auto arithmetic) {
        sums_of_groups<decltype(arithmetic)>(job, segment, row, rows, column, columns, scratch.b,
                                             sums, half_stride);
      });
      summed = true;
    }
  }
  if constexpr (may_be<Job, gemm_kind::forward>) {
    if (!summed && packed && !dot && few_of(job.w.type, rows)) {
      sums_of_few(job, segment, row, rows, column, columns, scratch.a, scratch.sums, half_stride);
      summed = true;
    } else if constexpr (!has_formats<Job>) {
      summed = !dot && sums_across(job, segment, row, rows, column, columns, scratch.a,
                                   scratch.sums, half_stride);
    }
  }
  if constexpr (!has_formats<Job> && may_be<Job, gemm_kind::dgrad>) {
    if (!summed) {
      summed = sums_along(job, segment, row, rows, column, columns, scratch.a, sums, stride);
    }
  }
  gemm_piece next{};
  for (gemm_piece now = summed ? next : walk.piece(0, column, 0); now.depth > 0; now = next) {
    next = walk.after(now);
    std::int64_t const start = now.k / walk.a_depth * walk.a_depth;
    if (now.k == start && now.column == column) {
      if (now.half == 0) {
        std::int64_t const rest = depth - start;
        std::int64_t const deep = rest < walk.a_depth ? rest : walk.a_depth;
        if constexpr (may_round_rows<Job>) {
          if (dot) {
            with_numbers(job, [&](auto numbers) {
              pack_a_int8<decltype(numbers)>(job, segment, row, rows, start, deep, scratch.scale,
                                             scratch.a, at);
            });
          }
        } else if constexpr (has_dot<Job>) {
          if (dot) pack_a_bf16_dot(job, segment, row, rows, start, deep, scratch.a, at);
        }
        if (!dot) pack_a(job, segment, row, rows, start, deep, scratch.a, at);
      }
      if (lie) rows_table(job, segment, now, scratch.row);
    }
    prefetch_cursor ahead{};
    if (wgrad) {  // a few rows of the output with each piece
      std::int64_t const done = written_rows;
      written_rows += (rows - done + a_pieces - 1) / a_pieces;
      --a_pieces;
      ahead = gradient_prefetch(job, segment, row + done, written_rows - done, column, columns);
    } else if (next.depth > 0) {
      gemm_piece in_elements = next;
      in_elements.k *= k_per_word;
      in_elements.depth *= k_per_word;
      ahead = weights_prefetch(job, segment, in_elements);
    } else {
      ahead = output_prefetch(job, segment.first + row, rows, column, columns);
    }
    tile_at part = at;
    part.a += (now.k - start) * (at.across ? at.a_stride : 1);
    part.depth = now.depth;
    part.resume = now.k > 0;
    part.c = scratch.sums + now.half * half_stride + (now.column - column);
    if constexpr (may_round_rows<Job>) {
      if (dot) {
        with_numbers(job, [&](auto numbers) {
          multiply_int8<decltype(numbers)>(job, segment, rows, now, scratch.b, part, ahead);
        });
        continue;
      }
    } else if constexpr (has_dot<Job>) {
      if (dot) {
        multiply_bf16_dot(job, segment, rows, now, scratch.b, part, ahead);
        continue;
      }
    }
    multiply(job, segment, rows, now, lie ? scratch.row : nullptr, column, scratch.b, part, ahead);
  }
  if (depth == 0) {
    for (std::int64_t r = 0; r < rows; ++r) zero_row(sums + r * stride, stride);
  }
  if constexpr (may_round_rows<Job>) {
    if (dot) {
      sums_from_integers(job, segment, rows, column, columns, scratch.scale, scratch.sums,
                         half_stride);
    }
  }
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

/// A worker: takes tasks until none is left. A task is one expert's block of rows and strip of
/// columns; neighbors in number share a strip, so its weights come from a cache the second time.
template <class Job> void gemm_work(Job const& job, std::int64_t& next) noexcept {
  gemm_scratch scratch;
  bool const wgrad = is<gemm_kind::wgrad>(job);
  std::int64_t const all_columns = !is<gemm_kind::forward>(job) ? job.k
                                   : job.paired                 ? job.n / 2
                                                                : job.n;
  gemm_segment segment{};
  std::int64_t begin = 0, end = 0, all_rows = 0;  // tasks of the segment
  gemm_cut cut{};
  segment.expert = -1;
  for (;;) {
    std::int64_t const task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    while (task >= end) {
      if (++segment.expert >= job.experts) {
        if (job.nontemporal) store_fence();
        return;
      }
      std::int64_t const e = segment.expert;
      segment.first = job.offset != nullptr ? job.offset[e] : 0;
      segment.rows = job.offset != nullptr ? job.offset[e + 1] - segment.first : job.rows;
      bool const left_out = wgrad && ((job.skip != nullptr && job.skip[e] != 0) ||
                                      (job.skip_empty && segment.rows == 0));
      all_rows = left_out ? 0 : wgrad ? job.n : segment.rows;
      cut = gemm_cut_of(job, segment.rows, all_rows);
      begin = end;
      end += cut.blocks * ((all_columns + cut.columns - 1) / cut.columns);
    }
    std::int64_t const blocks = cut.blocks, block = (task - begin) % blocks;
    std::int64_t const low = all_rows / blocks, more = all_rows % blocks;
    std::int64_t const row = block * low + (block < more ? block : more);
    std::int64_t const column = (task - begin) / blocks * cut.columns;
    std::int64_t const rows = low + (block < more ? 1 : 0);
    std::int64_t const columns =
        all_columns - column < cut.columns ? all_columns - column : cut.columns;
    if constexpr (!has_formats<Job> && may_be<Job, gemm_kind::wgrad>) {
      if (gemm_by_rows(job, segment.rows)) {
        wgrad_by_rows(job, scratch, segment, row, rows, column, columns);
        continue;
      }
    }
    gemm_task(job, scratch, segment, row, rows, column, columns);
  }
}

/// A row of sums to its place.
template <class T>
SHUNT_INLINE void put_sums(gemm_store const& to, std::int64_t row, std::int64_t column,
                           float const* sums, std::int64_t count) noexcept {
  T* const out = static_cast<T*>(to.data) + row * to.stride + column;
  if (to.scale.factor == nullptr) {
    put_row(sums, count, to.accumulate, out);
  } else {
    put_row_scaled(sums, count, scale_of(to.scale, row), to.accumulate, out);
  }
}

/// See gemm_store.
template <class Output> void epilogue_store(gemm_job const& job, gemm_block const& block) noexcept {
  gemm_store const& to = *static_cast<gemm_store const*>(job.epilogue_context);
  with_known<Output>(to.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < block.rows; ++r) {
      put_sums<element>(to, block.row + r, block.column, block.first + r * block.stride,
                        block.columns);
      if (block.second == nullptr) continue;
      put_sums<element>(to, block.row + r, job.n / 2 + block.column,
                        block.second + r * block.stride, block.columns);
    }
  });
}
