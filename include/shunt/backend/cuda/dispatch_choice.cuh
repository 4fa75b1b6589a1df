#pragma once
#include "shunt/backend/cuda/dispatch_plan.cuh"

// Expert choice: slot token·E + e. Each step is a kernel; a token that an expert names twice belongs
// to the first naming, which leaves the least c in slot_row.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

struct choice_scratch {
  index_t* wanted;      // [E]
  plan_counts* totals;  // [E]
};
inline choice_scratch carve_choice_scratch(arena<space::device>& a, offset_t experts) noexcept {
  return {a.take<index_t>(experts), a.take<plan_counts>(experts)};
}

struct choice_job {
  view<index_t const, 2, space::device> token;
  dispatch_plan<space::device> plan;
  expert_choice_options<space::device> options;
  choice_scratch scratch;
  index_t experts;
};

__device__ inline bool counts_here(choice_job const& job, index_t t) {
  return t >= 0 && t < job.plan.tokens && (!job.options.valid || job.options.valid[t] != 0);
}

SHUNT_KERNEL void clear_choice(choice_job job) {
  offset_t const slots = job.plan.slot_row.extent(0), rows = job.plan.row_slot.extent(0);
  for (offset_t i = grid_thread(); i < slots; i += grid_threads()) {
    job.plan.slot_row[i] = -1;
    if (job.options.dense_gate) job.options.dense_gate(i / job.experts, i % job.experts) = 0.0f;
  }
  for (offset_t i = grid_thread(); i < rows; i += grid_threads()) job.plan.row_slot[i] = -1;
}

SHUNT_KERNEL void mark_choice(choice_job job) {
  offset_t const chosen = job.token.extent(1), all = chosen * job.experts;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    offset_t const e = i / chosen, c = i % chosen;
    index_t const t = job.token(e, c);
    if (!counts_here(job, t)) continue;
    auto* const mark = job.plan.slot_row.data() + (offset_t{t} * job.experts + e);
    atomicMin(reinterpret_cast<unsigned*>(mark), static_cast<unsigned>(c));
  }
}

/// Counts an expert's tokens, by one warp, and hands the gates of first namings on.
SHUNT_KERNEL void count_choice(choice_job job) {
  offset_t const chosen = job.token.extent(1);
  for (offset_t e = grid_warp(); e < job.experts; e += grid_warps()) {
    plan_counts sum;
    for (offset_t c = lane_of_thread(); c < chosen; c += warp_lanes) {
      index_t const t = job.token(e, c);
      if (t < 0 || t >= job.plan.tokens) {
        ++(t == -1 ? sum.unrouted : sum.out_of_range);
      } else if (!counts_here(job, t)) {
        ++sum.invalid;
      } else if (job.plan.slot_row[offset_t{t} * job.experts + e] != c) {
        ++sum.repeated;
      } else {
        ++sum.rows;
        if (job.options.dense_gate) job.options.dense_gate(t, e) = job.options.gate(e, c);
      }
    }
    warp_totals(sum.rows, sum.unrouted, sum.out_of_range, sum.invalid, sum.repeated);
    if (lane_of_thread() == 0) {
      job.scratch.wanted[e] = sum.rows;
      sum.rows = 0;  // lay_choice counts them
      job.scratch.totals[e] = sum;
    }
  }
}

/// Offsets and the report, by the first lane of one warp: E numbers.
SHUNT_KERNEL void lay_choice(choice_job job) {
  if (grid_thread() != 0) return;
  plan_report<space::device> const& report = job.options.report;
  plan_counts sum;
  offset_t end = 0;
  job.plan.offset[0] = 0;
  for (offset_t e = 0; e < job.experts; ++e) {
    index_t const rows = job.scratch.wanted[e];
    offset_t const segment = shunt::detail::rounded_up(rows, job.options.segment_multiple);
    end += segment;
    job.plan.offset[e + 1] = static_cast<index_t>(end);
    sum.rows += rows;
    sum.padding += static_cast<index_t>(segment - rows);
    shunt::detail::add_counts(sum, job.scratch.totals[e]);
    if (report.wanted) report.wanted[e] = rows;
    if (report.kept) report.kept[e] = rows;
  }
  if (report.totals) report.totals[0] = sum;
}

/// An expert's marked tokens get rows in token order, by one block.
SHUNT_KERNEL void place_choice(choice_job job) {
  __shared__ int counts[tuning::threads / warp_lanes];
  for (offset_t e = blockIdx.x; e < job.experts; e += gridDim.x) {
    index_t row = job.plan.offset[e];
    for (offset_t at = 0; at < job.plan.tokens; at += tuning::threads) {
      offset_t const t = at + threadIdx.x, slot = t * job.experts + e;
      bool const chosen = t < job.plan.tokens && job.plan.slot_row[slot] != -1;
      int taken = 0;
      int const rank = block_rank(chosen, counts, taken);
      if (chosen) {
        job.plan.slot_row[slot] = row + rank;
        job.plan.row_slot[row + rank] = static_cast<index_t>(slot);
      }
      row += taken;
    }
  }
}

inline status make_choice_plan(on_cuda const& on, view<index_t const, 2, space::device> token,
                               dispatch_plan<space::device> const& plan, arena<space::device> work,
                               expert_choice_options<space::device> const& o) noexcept {
  constexpr char const* who = "plan_from_expert_choice";
  index_t const experts = plan.experts();
  choice_job const job{token, plan, o, carve_choice_scratch(work, experts), experts};
  if (status bad = work.check("plan_from_expert_choice.arena"); !bad.ok()) return bad;
  offset_t const cleared = std::max(plan.slot_row.extent(0), plan.row_slot.extent(0));
  status done = launch_threads(on, who, cleared, clear_choice, job);
  if (done.ok()) done = launch_threads(on, who, token.extent(1) * experts, mark_choice, job);
  if (done.ok()) done = launch_warps(on, who, experts, count_choice, job);
  if (done.ok()) done = launch(on, who, 1, warp_lanes, lay_choice, job);
  if (done.ok()) done = launch(on, who, experts, tuning::threads, place_choice, job);
  return done;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
