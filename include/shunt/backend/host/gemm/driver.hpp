#pragma once
#include <cstdint>
#include <type_traits>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/shape.hpp"
#include "shunt/experts/gemm_types.hpp"

namespace shunt::host {

using shunt::detail::gemm_experts;
using shunt::detail::gemm_kind;
using shunt::detail::gemm_pairs;
using shunt::detail::gemm_panel;
using shunt::detail::gemm_product;
using shunt::detail::gemm_rows;
using shunt::detail::gemm_scale;
using shunt::detail::gemm_store;

struct gemm_job;

/// One block of a product, all of its sums done, in float: rows [row, row + rows) of the output and
/// columns [column, column + columns). In a paired job `second` holds the up half of the same columns.
struct gemm_block {
  float* first = nullptr;
  float* second = nullptr;
  std::int64_t stride = 0;
  std::int64_t row = 0, rows = 0, column = 0, columns = 0;
  std::int64_t expert = 0;
  std::int64_t segment_first = 0, segment_rows = 0;  ///< the expert's rows
};
/// Writes a finished block. A region function.
using gemm_epilogue = void (*)(gemm_job const&, gemm_block const&);

/// One product, and what becomes of its sums. Output element = one chain of fma in ascending index of
/// the sum, starting from 0.0f; what happens to it then is `finish`.
struct gemm_job : shunt::detail::gemm_product {
  gemm_job(gemm_product const& product, gemm_epilogue last, void const* context) noexcept
      : gemm_product(product), epilogue(last), epilogue_context(context) {}

  gemm_epilogue epilogue;
  void const* epilogue_context;  ///< what `epilogue` needs in addition
  /// Where `epilogue` writes in the end: prefetched after the last piece of weights.
  gemm_store const* output = nullptr;
  /// wgrad: where its rows go, if they lie contiguous: brought near while they are computed.
  gemm_experts<void> const* written = nullptr;
  /// k that lie in the place of one float, in a forward product: 2 of bf16 (see uses_bf16_dot), 2 or 4
  /// integers (see gemm/int8.inl).
  int k_per_word = 1;
  bool tiles = false;        ///< by the tiles of AMX: see uses_tiles and gemm/int8_amx.inl
  bool nontemporal = false;  ///< `epilogue` writes whole lines by non-temporal stores
  int strip = 16;            ///< panels a task computes at most,
  bool wide = false;         ///< whether its sums may take more room (gemm_wide_sums), and
  bool tall = true;          ///< whether blocks may be as high as they can: chosen by gemm()
};

/// A product with quantized weights. A type of its own: its loops are compiled only where there are some.
struct gemm_format_job : gemm_job {
  using gemm_job::gemm_job;
  bool int8_rows =
      false;          ///< a is rounded to int8; with int8_channel weights `k_per_word` says so too
  bool vnni = false;  ///< then, on isa::avx512_vnni, by dot products of four bytes
};
template <class Job> inline constexpr bool has_formats = std::is_base_of_v<gemm_format_job, Job>;
/// The same with weights of a format that is known: a header-only unit compiles the loops of no other.
template <class Format> struct gemm_format_job_of : gemm_format_job {
  using gemm_format_job::gemm_format_job;
};

/// A product of one kind with operands of known types: Left's rows times weights of Right, or (wgrad) rows of
/// Right. A header-only unit then compiles its loops for no other.
template <gemm_kind Kind, class Left, class Right> struct gemm_job_of : gemm_job {
  using gemm_job::gemm_job;
};
/// What kernels know of a Job while they are compiled: void, and any kind, is for run time to say.
template <class Job> struct gemm_known {
  using left = void;
  using right = void;
  static constexpr bool kind = false;
};
template <gemm_kind Kind, class Left, class Right>
struct gemm_known<gemm_job_of<Kind, Left, Right>> {
  using left = Left;
  using right = Right;
  static constexpr bool kind = true;
};
template <class Format> struct gemm_known<gemm_format_job_of<Format>> {
  using left = void;
  using right = Format;
  static constexpr bool kind = false;
};
/// Whether the rows of a job may be rounded to int8: see check::int8_rows.
template <class Job> inline constexpr bool may_round_rows = has_formats<Job>;
template <class Format>
inline constexpr bool may_round_rows<gemm_format_job_of<Format>> =
    std::is_same_v<Format, int8_channel> || std::is_same_v<Format, mxfp4>;
template <class Job, gemm_kind Kind> inline constexpr bool may_be = true;
template <gemm_kind Own, class Left, class Right, gemm_kind Kind>
inline constexpr bool may_be<gemm_job_of<Own, Left, Right>, Kind> = Own == Kind;
template <gemm_kind Kind, class Job> SHUNT_INLINE bool is(Job const& job) noexcept {
  if constexpr (gemm_known<Job>::kind) {
    return may_be<Job, Kind>;
  } else {
    return job.kind == Kind;
  }
}

/// Whether both operands may be bf16 in a forward product: see uses_bf16_dot.
template <class Job> inline constexpr bool may_hold_pairs = true;
template <gemm_kind Kind, class Left, class Right>
inline constexpr bool may_hold_pairs<gemm_job_of<Kind, Left, Right>> =
    Kind == gemm_kind::forward && std::is_same_v<Left, bf16> && std::is_same_v<Right, bf16>;

/// Whether both operands may be bf16: see uses_tiles.
template <class Job> inline constexpr bool may_use_tiles = !has_formats<Job>;
template <gemm_kind Kind, class Left, class Right>
inline constexpr bool may_use_tiles<gemm_job_of<Kind, Left, Right>> =
    std::is_same_v<Left, bf16> && std::is_same_v<Right, bf16>;

/// The job that a call makes, and what its epilogue knows of the output. Kernels that are compiled once in a
/// program know nothing: they serve all calls.
#if defined(SHUNT_ONCE)
template <gemm_kind, class, class> using gemm_job_for = gemm_job;
template <class> using gemm_format_job_for = gemm_format_job;
template <class> using gemm_output_for = void;
#else
template <gemm_kind Kind, class Left, class Right>
using gemm_job_for = gemm_job_of<Kind, Left, Right>;
template <class Format> using gemm_format_job_for = gemm_format_job_of<Format>;
template <class Output> using gemm_output_for = Output;
#endif

/// Numbers of the blocking. The result does not depend on them.
inline constexpr std::int64_t gemm_depth = 512;       ///< k of a piece of packed weights: few ends,
inline constexpr std::int64_t gemm_made_depth = 256;  ///< and of panels made here: half an L1
inline constexpr std::int64_t gemm_group_panels = 4;  ///< made together where rows run along them
inline constexpr std::int64_t gemm_block_rows = 72;   ///< a multiple of every region's tile
inline constexpr std::int64_t gemm_tiles_rows = 64;   ///< of a block by tiles: four of 16 at most
inline constexpr std::int64_t gemm_tall_rows = 576;   ///< where no block of sums is kept, at most
inline constexpr std::int64_t gemm_strip_panels = 16;  ///< of a task, at most,
inline constexpr std::int64_t gemm_sums = gemm_block_rows * 8 * gemm_panel;  ///< as these allow
/// Of a task whose sums may take more room, as each task rounds its rows anew. A power of two, see gemm().
inline constexpr std::int64_t gemm_wide_panels = 64;
inline constexpr std::int64_t gemm_wide_sums = gemm_block_rows * gemm_depth;

/// A weight gradient with few terms a sum: finished by a few rows, see gemm/wgrad.inl.
SHUNT_INLINE bool gemm_by_rows(gemm_job const& job, std::int64_t segment_rows) noexcept {
  return job.kind == gemm_kind::wgrad && !job.tiles && segment_rows > 0 &&
         segment_rows <= gemm_made_depth;
}

/// A gradient to a few rows, of weights whose rows lie contiguous: see gemm/small_m_dgrad.inl.
inline constexpr std::int64_t gemm_few_rows = 12;
SHUNT_INLINE bool gemm_few_along(gemm_job const& job, std::int64_t rows) noexcept {
  return job.kind == gemm_kind::dgrad && !job.tiles && rows <= gemm_few_rows && !job.w.packed &&
         job.w.column_stride == 1;
}

/// The largest block height whose packed left operand fits. The higher, the less often
/// the right one is read from its rows, which costs a tile three times its time.
SHUNT_INLINE std::int64_t gemm_tallest(std::int64_t depth) noexcept {
  std::int64_t const fit = gemm_block_rows * gemm_depth / depth / 16 * 16;
  return fit < gemm_tall_rows ? fit : gemm_tall_rows;
}

/// How the `rows` output rows of a segment are cut into tasks: `blocks` times so many columns of each
/// half, pairs of panels.
struct gemm_cut {
  std::int64_t blocks, columns;
};
SHUNT_INLINE gemm_cut gemm_cut_of(gemm_job const& job, std::int64_t segment_rows,
                                  std::int64_t rows) noexcept {
  bool const by_rows = gemm_by_rows(job, segment_rows);
  std::int64_t const highest = job.tiles             ? gemm_tiles_rows
                               : by_rows && job.tall ? gemm_tallest(segment_rows)
                                                     : gemm_block_rows;
  std::int64_t const blocks = (rows + highest - 1) / highest;
  if (by_rows) return {blocks, 2 * job.strip * gemm_panel};
  std::int64_t height = blocks == 0 ? 1 : (rows + blocks - 1) / blocks;
  if (job.tiles) {  // tiles of equal heights
    std::int64_t const tiles = (height + 15) / 16;
    height = (height + tiles - 1) / tiles * tiles;
  }
  if (gemm_few_along(job, height)) {  // long runs of memory, as long as there are tasks for all
    constexpr std::int64_t unit = 2 * gemm_panel;
    std::int64_t const fit = gemm_sums / (height + height % 2) / unit * unit;
    std::int64_t const wide =
        job.k * job.strip * job.strip / (gemm_strip_panels * gemm_strip_panels);
    std::int64_t const whole = wide / unit * unit + unit;
    return {blocks, whole < fit ? whole : fit};
  }
  std::int64_t const most = (job.wide ? gemm_wide_sums : gemm_sums) / gemm_panel / height;
  std::int64_t const panels = (most < job.strip ? most : job.strip) / (job.paired ? 2 : 1);
  return {blocks, panels / 2 * 2 * gemm_panel};
}

}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/gemm/macro_kernel.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// Tasks of a job.
inline std::int64_t gemm_tasks(gemm_job const& job) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  std::int64_t const columns = job.kind != gemm_kind::forward ? job.k
                               : job.paired                   ? job.n / 2
                                                              : job.n;
  std::int64_t tasks = 0;
  for (index_t e = 0; e < job.experts; ++e) {
    std::int64_t const rows = job.offset == nullptr ? job.rows : job.offset[e + 1] - job.offset[e];
    gemm_cut const cut = gemm_cut_of(job, rows, wgrad ? job.n : rows);
    tasks += cut.blocks * ((columns + cut.columns - 1) / cut.columns);
  }
  return tasks;
}

/// Whether a forward product of experts is computed by dot products of pairs of bf16. A question of types
/// and of the instruction set alone: an output's bits depend on nothing else.
inline bool uses_bf16_dot(on_host const& on, gemm_product const& product) noexcept {
  return product.a.type == element_type::bf16 && product.w.type == element_type::bf16 &&
         product.a.scale.factor == nullptr && resolve(on.instructions) == isa::avx512_bf16;
}

/// Whether a product, of any kind, is computed by the tiles of AMX: again a question of types and of the instruction set.
/// Rows that are multiplied by a factor first are floats.
inline bool uses_tiles(on_host const& on, gemm_product const& product) noexcept {
  bool const wgrad = product.kind == gemm_kind::wgrad;
  gemm_scale const &left = product.a.scale, &right = product.b.scale;
  return product.a.type == element_type::bf16 &&
         (wgrad ? product.b.type : product.w.type) == element_type::bf16 &&
         left.factor == nullptr && right.factor == nullptr && resolve(on.instructions) == isa::amx;
}

/// Runs a job. Each worker uses at most 250 KB of its stack, and nothing is allocated.
template <class Job> void gemm(on_host const& on, Job job) noexcept {
  int const workers = workers_of(on);
  if constexpr (may_use_tiles<Job>) job.tiles = uses_tiles(on, job);
  if constexpr (may_round_rows<Job>) job.wide = job.int8_rows && job.k_per_word == 1;
  job.strip = static_cast<int>(job.wide ? gemm_wide_panels : gemm_strip_panels);
  std::int64_t const enough = workers > 1 ? 4 * workers : 0;
  std::int64_t tasks = gemm_tasks(job);
  if (tasks < enough) {
    job.tall = false;
    tasks = gemm_tasks(job);
  }
  for (; job.strip > 4 && tasks < enough; tasks = gemm_tasks(job)) job.strip /= 2;
  if (tasks == 0) return;
  std::int64_t next = 0;  // the next task: taken by the workers, atomically
  auto* const work = SHUNT_ISA_PICK(on, gemm_work<Job>);
  parallel(on, tasks < workers ? tasks : workers, [&](std::int64_t, int) { work(job, next); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
