#pragma once
#include <cstddef>
#include <limits>

#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/dispatch/rules.hpp"

// The counting sort of the host, with a warp where the host has a block of tokens: count each chunk's
// slots per expert, turn the counts into starts, place. A small batch is one launch of one block.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// A chunk is what one warp counts and places.
struct plan_chunks {
  offset_t slots = 0, each = 0, count = 0;

  explicit plan_chunks(offset_t slots_) noexcept : slots(slots_) {
    offset_t const fair = (slots + tuning::most_chunks - 1) / tuning::most_chunks;
    each = std::max<offset_t>(tuning::slots_per_chunk, (fair + 31) / 32 * 32);
    count = std::max<offset_t>(1, (slots + each - 1) / each);
  }
};

struct plan_scratch {
  index_t* counts;      // [E, chunks], then each chunk's next position in each expert
  index_t* wanted;      // [E]
  index_t* list;        // [T·K] slots by expert, and
  offset_t* start;      // [E+1] where each expert's begin: only where slots compete by merit
  plan_counts* totals;  // [chunks]
  unsigned* done;       // [1] blocks that have finished their part of the scan
};

inline plan_scratch carve_plan_scratch(arena<space::device>& a, shape const& s,
                                       plan_options<space::device> const& o) noexcept {
  plan_chunks const chunks(offset_t{s.tokens} * s.top_k);
  bool const lists = shunt::detail::by_merit(o);
  plan_scratch w;
  w.counts = a.take<index_t>(chunks.count * s.experts);
  w.wanted = a.take<index_t>(s.experts);
  w.list = a.take<index_t>(lists ? chunks.slots : 0);
  w.start = a.take<offset_t>(lists ? offset_t{s.experts} + 1 : 0);
  w.totals = a.take<plan_counts>(chunks.count);
  w.done = a.take<unsigned>(1);
  return w;
}

/// What the kernels of one plan share.
struct plan_job {
  view<index_t const, 2, space::device> expert;
  dispatch_plan<space::device> plan;
  plan_options<space::device> options;
  plan_scratch scratch;
  plan_chunks chunks;
  shunt::detail::shard_map ids;
  index_t experts, capacity;  // capacity: index_t's largest where there is none
  bool lists;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

#include "shunt/backend/cuda/dispatch_plan_kernels.cuh"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline status make_plan(on_cuda const& on, view<index_t const, 2, space::device> expert,
                        dispatch_plan<space::device> const& plan, arena<space::device> work,
                        plan_options<space::device> const& o) noexcept {
  constexpr char const* who = "plan_dispatch";
  index_t const experts = plan.experts();
  plan_chunks const chunks(offset_t{plan.tokens} * plan.top_k);
  plan_job const job{.expert = expert,
                     .plan = plan,
                     .options = o,
                     .scratch = carve_plan_scratch(
                         work, {.tokens = plan.tokens, .experts = experts, .top_k = plan.top_k}, o),
                     .chunks = chunks,
                     .ids = shunt::detail::shard_map(experts, o),
                     .experts = experts,
                     .capacity = o.capacity > 0 ? o.capacity : std::numeric_limits<index_t>::max(),
                     .lists = shunt::detail::by_merit(o)};
  if (status bad = work.check("plan_dispatch.arena"); !bad.ok()) return bad;
  if (chunks.slots <= tuning::slots_of_one_block) {
    if (status bad = launch(on, who, 1, 1024, plan_in_one_block, job); !bad.ok()) return bad;
  } else {
    if (status bad = launch_warps(on, who, chunks.count, count_slots, job); !bad.ok()) return bad;
    if (status bad = launch_warps(on, who, std::max<offset_t>(experts, 1), scan_counts, job);
        !bad.ok()) {
      return bad;
    }
    if (status bad = launch_warps(on, who, chunks.count, place_slots, job); !bad.ok()) return bad;
  }
  if (!job.lists) return {};
  return launch(on, who, experts, tuning::threads, place_by_claim, job);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
