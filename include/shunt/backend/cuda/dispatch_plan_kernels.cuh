#pragma once
// Part of dispatch_plan.cuh: its kernels. Warps and blocks take their chunks, experts and rows in
// turn, so that any grid does the whole work.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// The local expert that a slot wants, or one that is none: not below job.experts. Counts why.
__device__ inline std::uint32_t expert_of_slot(plan_job const& job, offset_t slot,
                                               plan_counts& rowless) {
  index_t const token = static_cast<index_t>(slot) / job.plan.top_k;
  if (job.options.valid && job.options.valid[token] == 0) {
    ++rowless.invalid;
    return static_cast<std::uint32_t>(job.experts);
  }
  index_t const id = job.expert(token, static_cast<index_t>(slot) % job.plan.top_k);
  std::uint32_t const e = job.ids.local(id);
  if (e >= static_cast<std::uint32_t>(job.experts)) {
    job.ids.count_rowless(id, rowless);
    return static_cast<std::uint32_t>(job.experts);
  }
  return e;
}

/// Walks a chunk in slot order, 32 slots a step, and gives each slot its position among its expert's:
/// take(slot, expert or job.experts, position). next: the chunk's row of counters, moved on.
template <class Take>
__device__ void walk_chunk(plan_job const& job, offset_t chunk, plan_counts& rowless,
                           Take const& take) {
  offset_t const first = chunk * job.chunks.each;
  offset_t const last = min(first + job.chunks.each, job.chunks.slots);
  auto const none = static_cast<std::uint32_t>(job.experts);
  for (offset_t at = first; at < last; at += warp_lanes) {
    offset_t const slot = at + lane_of_thread();
    bool const here = slot < last;
    std::uint32_t const e = here ? expert_of_slot(job, slot, rowless) : none;
    unsigned const alike = __match_any_sync(all_lanes, e);
    index_t* const next = job.scratch.counts + e * job.chunks.count + chunk;
    index_t position = 0;
    if (e != none) position = *next + __popc(alike & lanes_below());
    __syncwarp();
    if (e != none && (alike & lanes_below()) == 0) *next += __popc(alike);
    __syncwarp();
    if (here) take(slot, e, position);
  }
}

/// Counts a chunk's slots, and clears the chunk's share of row_slot.
__device__ inline void count_chunk(plan_job const& job, offset_t chunk) {
  for (offset_t e = lane_of_thread(); e < job.experts; e += warp_lanes) {
    job.scratch.counts[e * job.chunks.count + chunk] = 0;
  }
  offset_t const rows = job.plan.row_slot.extent(0);
  offset_t const last = rows * (chunk + 1) / job.chunks.count;
  for (offset_t r = rows * chunk / job.chunks.count + lane_of_thread(); r < last; r += warp_lanes) {
    job.plan.row_slot[r] = -1;
  }
  __syncwarp();
  plan_counts mine;
  walk_chunk(job, chunk, mine, [](offset_t, std::uint32_t, index_t) {});
  warp_totals(mine.unrouted, mine.foreign, mine.zero, mine.out_of_range, mine.invalid);
  if (lane_of_thread() == 0) job.scratch.totals[chunk] = mine;
}

/// One expert's counts become the chunks' first positions, by one warp.
__device__ inline void scan_expert(plan_job const& job, offset_t e) {
  index_t* const counts = job.scratch.counts + e * job.chunks.count;
  index_t before = 0;
  for (offset_t at = 0; at < job.chunks.count; at += warp_lanes) {
    offset_t const chunk = at + lane_of_thread();
    index_t const here = chunk < job.chunks.count ? counts[chunk] : 0;
    index_t const upto = warp_prefix(here);
    if (chunk < job.chunks.count) counts[chunk] = before + upto - here;
    before += __shfl_sync(all_lanes, upto, warp_lanes - 1);
  }
  if (lane_of_thread() == 0) job.scratch.wanted[e] = before;
}

/// All experts' wanted slots become offsets and the report, by one warp.
__device__ inline void lay_segments(plan_job const& job) {
  plan_options<space::device> const& o = job.options;
  plan_counts sum;
  offset_t end = 0, listed = 0;
  for (offset_t at = 0; at < job.experts; at += warp_lanes) {
    offset_t const e = at + lane_of_thread();
    index_t const wanted = e < job.experts ? job.scratch.wanted[e] : 0;
    index_t const kept = min(wanted, job.capacity);
    offset_t const segment = shunt::detail::rounded_up(kept, o.segment_multiple);
    offset_t const rows = warp_prefix(segment), slots = warp_prefix(offset_t{wanted});
    if (e < job.experts) {
      job.plan.offset[e + 1] = static_cast<index_t>(end + rows);
      if (job.lists) job.scratch.start[e] = listed + slots - wanted;
      if (o.report.wanted) o.report.wanted[e] = wanted;
      if (o.report.kept) o.report.kept[e] = kept;
      sum.rows += kept;
      sum.padding += static_cast<index_t>(segment - kept);
      sum.dropped += wanted - kept;
    }
    end += __shfl_sync(all_lanes, rows, warp_lanes - 1);
    listed += __shfl_sync(all_lanes, slots, warp_lanes - 1);
  }
  if (lane_of_thread() == 0) {
    job.plan.offset[0] = 0;
    if (job.lists) job.scratch.start[job.experts] = listed;
  }
  if (!o.report.totals) return;
  for (offset_t c = lane_of_thread(); c < job.chunks.count; c += warp_lanes) {
    shunt::detail::add_counts(sum, job.scratch.totals[c]);
  }
  warp_totals(sum.rows, sum.padding, sum.dropped, sum.unrouted, sum.foreign, sum.zero,
              sum.out_of_range, sum.invalid);
  if (lane_of_thread() == 0) o.report.totals[0] = sum;
}

/// Gives a chunk's slots their rows, or lists them by expert where they compete by merit.
__device__ inline void place_chunk(plan_job const& job, offset_t chunk) {
  plan_counts unused;
  walk_chunk(job, chunk, unused, [&](offset_t slot, std::uint32_t e, index_t position) {
    index_t row = -1;
    if (e < static_cast<std::uint32_t>(job.experts)) {
      if (job.lists) {
        job.scratch.list[job.scratch.start[e] + position] = static_cast<index_t>(slot);
      } else if (position < job.capacity) {
        row = job.plan.offset[e] + position;
        job.plan.row_slot[row] = static_cast<index_t>(slot);
      }
    }
    job.plan.slot_row[slot] = row;
  });
}

SHUNT_KERNEL void count_slots(plan_job job) {
  if (grid_thread() == 0) *job.scratch.done = 0;
  for (offset_t c = grid_warp(); c < job.chunks.count; c += grid_warps()) count_chunk(job, c);
}

/// The last block to finish lays the segments.
SHUNT_KERNEL void scan_counts(plan_job job) {
  for (offset_t e = grid_warp(); e < job.experts; e += grid_warps()) scan_expert(job, e);
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    // PTX's memory model orders by the fences of the thread that takes the ticket, which include what
    // the barrier before showed it: what this block wrote, before the ticket; what the other blocks
    // wrote, after it and before the barrier that shows it to the warp that reads.
    __threadfence();
    last = atomicAdd(job.scratch.done, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x < warp_lanes) lay_segments(job);
}

SHUNT_KERNEL void place_slots(plan_job job) {
  for (offset_t c = grid_warp(); c < job.chunks.count; c += grid_warps()) place_chunk(job, c);
}

SHUNT_KERNEL void __launch_bounds__(1024) plan_in_one_block(plan_job job) {
  for (offset_t c = grid_warp(); c < job.chunks.count; c += grid_warps()) count_chunk(job, c);
  __syncthreads();
  for (offset_t e = grid_warp(); e < job.experts; e += grid_warps()) scan_expert(job, e);
  __syncthreads();
  if (threadIdx.x < warp_lanes) lay_segments(job);
  __syncthreads();
  for (offset_t c = grid_warp(); c < job.chunks.count; c += grid_warps()) place_chunk(job, c);
}

/// Threads of the block before this one for which it holds, and, in `all`, those of the whole block.
/// `counts` is shared memory for one number a warp.
__device__ inline int block_rank(bool holds, int* counts, int& all) {
  unsigned const mask = __ballot_sync(all_lanes, holds);
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  if (lane_of_thread() == 0) counts[warp] = __popc(mask);
  __syncthreads();
  int before = 0;
  all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / warp_lanes; ++w) {
    before += w < warp ? counts[w] : 0;
    all += counts[w];
  }
  __syncthreads();
  return before + __popc(mask & lanes_below());
}

/// The claim of a slot, more is better; equal claims go by slot.
__device__ inline std::uint32_t claim_of_slot(plan_job const& job, index_t slot) {
  index_t const k = slot % job.plan.top_k;
  if (job.options.drop == drop_policy::by_choice) return ~static_cast<std::uint32_t>(k);
  return shunt::detail::order_of(job.options.gate(slot / job.plan.top_k, k));
}

/// Of each expert's list, the slots with the best claims get rows, in slot order: one block an expert
/// finds the claim of the last that is kept, eight bits a pass, and how many of that claim are.
SHUNT_KERNEL void place_by_claim(plan_job job) {
  static_assert(tuning::threads == 256, "one thread a bucket");
  __shared__ int buckets[256], counts[tuning::threads / warp_lanes];
  __shared__ std::uint32_t least;
  __shared__ index_t equal_kept;
  for (offset_t e = blockIdx.x; e < job.experts; e += gridDim.x) {
    index_t const* const slots = job.scratch.list + job.scratch.start[e];
    index_t const wanted = job.scratch.wanted[e], kept = min(wanted, job.capacity);
    if (threadIdx.x == 0) least = 0, equal_kept = kept;
    for (int shift = 24; kept < wanted && shift >= 0; shift -= 8) {
      buckets[threadIdx.x] = 0;
      __syncthreads();
      for (index_t i = static_cast<index_t>(threadIdx.x); i < wanted; i += tuning::threads) {
        std::uint32_t const claim = claim_of_slot(job, slots[i]);
        bool const same = shift == 24 || claim >> (shift + 8) == least >> (shift + 8);
        if (same) atomicAdd(&buckets[claim >> shift & 255], 1);
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        int digit = 255;
        while (digit > 0 && buckets[digit] < equal_kept) equal_kept -= buckets[digit--];
        least |= static_cast<std::uint32_t>(digit) << shift;
      }
      __syncthreads();
    }
    __syncthreads();
    index_t row = job.plan.offset[e];
    index_t equal_left = equal_kept;
    for (index_t at = 0; at < wanted; at += tuning::threads) {
      index_t const i = at + static_cast<index_t>(threadIdx.x);
      index_t const slot = i < wanted ? slots[i] : 0;
      std::uint32_t const claim = i < wanted ? claim_of_slot(job, slot) : 0;
      bool const all_kept = kept == wanted;
      int equal = 0, taken = 0;
      int const rank_of_equal = block_rank(i < wanted && claim == least, counts, equal);
      bool const keep = i < wanted && (all_kept || claim > least ||
                                       (claim == least && rank_of_equal < equal_left));
      int const rank = block_rank(keep, counts, taken);
      if (i < wanted) job.plan.slot_row[slot] = keep ? row + rank : -1;
      if (keep) job.plan.row_slot[row + rank] = slot;
      row += taken;
      equal_left -= equal < equal_left ? equal : equal_left;
    }
    __syncthreads();
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
