#pragma once
#include <cstdint>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/regions.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/shape.hpp"
#include "shunt/experts/gemm_types.hpp"

namespace shunt::host {

using shunt::detail::gemm_experts;
using shunt::detail::gemm_kind;
using shunt::detail::gemm_pairs;
using shunt::detail::gemm_panel;
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
using gemm_finish = void (*)(gemm_job const&, gemm_block const&);

/// One product, and what becomes of its sums. Output element = one chain of fma in ascending index of
/// the sum, starting from 0.0f; what happens to it then is `finish`.
struct gemm_job : shunt::detail::gemm_product {
  gemm_job(gemm_product const& product, gemm_finish last, void const* context) noexcept
      : gemm_product(product), finish(last), finish_context(context) {}

  gemm_finish finish;
  void const* finish_context;  ///< what `finish` needs beside
  int strip = 8;               ///< panels a task computes; chosen by gemm()
};

/// Numbers of the blocking. The result does not depend on them.
inline constexpr std::int64_t gemm_depth = 256;  ///< k of a block: a panel takes 16 KB, half an L1
inline constexpr std::int64_t gemm_block_rows = 96;   ///< a multiple of every region's tile
inline constexpr std::int64_t gemm_block_panels = 8;  ///< so that 96 x 128 sums take 48 KB of L2

inline constexpr std::int64_t gemm_group_panels = 4;  ///< packed together where rows run along them

}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/gemm_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// Tasks of a job for strips of `strip` panels.
inline std::int64_t gemm_tasks(gemm_job const& job, int strip) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  std::int64_t const columns = job.kind == gemm_kind::forward ? job.outs : job.ins;
  std::int64_t const width = strip * gemm_panel;  // of both halves together where there are two
  std::int64_t const strips = (columns + width - 1) / width;
  std::int64_t blocks = 0;
  for (index_t e = 0; e < job.experts; ++e) {
    std::int64_t const rows = job.offset == nullptr ? job.rows : job.offset[e + 1] - job.offset[e];
    blocks += ((wgrad ? job.outs : rows) + gemm_block_rows - 1) / gemm_block_rows;
  }
  return blocks * strips;
}

/// Runs a job. Each worker uses at most 240 KB of its stack, and nothing is allocated.
template <class Job> void gemm(on_host const& on, Job job) noexcept {
  int const workers = workers_of(on);
  job.strip = static_cast<int>(gemm_block_panels);
  while (workers > 1 && job.strip > 4 && gemm_tasks(job, job.strip) < 4 * workers) job.strip /= 2;
  std::int64_t const tasks = gemm_tasks(job, job.strip);
  if (tasks == 0) return;
  std::int64_t next = 0;  // the next task: taken by the workers, atomically
  auto* const work = SHUNT_ISA_PICK(on, gemm_work<Job>);
  parallel(on, tasks < workers ? tasks : workers, [&](std::int64_t, int) { work(job, next); });
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
