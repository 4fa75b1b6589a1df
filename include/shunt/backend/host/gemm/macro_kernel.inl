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
//
#include "shunt/backend/host/gemm/amx_instructions.inl"
//
#include "shunt/backend/host/gemm/amx_pack.inl"
//
#include "shunt/backend/host/gemm/amx_sums.inl"
#endif
//
#include "shunt/backend/host/gemm/small_m_packed.inl"
//
#include "shunt/backend/host/gemm/small_m_strips.inl"
//
#include "shunt/backend/host/gemm/small_m_plain.inl"
//
#if SHUNT_REGION == 512
#include "shunt/backend/host/gemm/small_m_dots.inl"
#endif
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
#if SHUNT_REGION == 512
#include "shunt/backend/host/gemm/int8_amx.inl"
#endif
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

#include "shunt/backend/host/gemm/task.inl"
//
#if SHUNT_REGION == 512
#include "shunt/backend/host/gemm/amx.inl"
#endif

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
#if SHUNT_REGION == 512
    if constexpr (may_use_tiles<Job>) {
      if (job.tiles) {
        amx_task<Job>{{job, scratch, segment, row, rows, column, columns}}.run();
        continue;
      }
    }
#endif
    if constexpr (!has_formats<Job> && may_be<Job, gemm_kind::wgrad>) {
      if (gemm_by_rows(job, segment.rows)) {
        wgrad_by_rows(job, scratch, segment, row, rows, column, columns);
        continue;
      }
    }
    gemm_task<Job>{job, scratch, segment, row, rows, column, columns}.run();
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
