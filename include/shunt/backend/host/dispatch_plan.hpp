#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "shunt/backend/host/pool.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/dispatch/rules.hpp"

// A counting sort of the slots by expert, in three steps over fixed blocks of tokens: count each
// block's slots per expert, turn the counts into starts, place. Nothing depends on the threads.
namespace shunt::host {
inline namespace SHUNT_ABI {

/// Tokens a block: some thousands of slots, so that a small batch is one block and starts no thread;
/// at most 256 blocks, so that their counts (256·E) stay in cache. Reasoned, and timed on 2 cores.
struct plan_blocks {
  offset_t tokens, top_k, each, count;

  plan_blocks(offset_t tokens_, offset_t top_k_) noexcept : tokens(tokens_), top_k(top_k_) {
    each = std::max({offset_t{1}, 4096 / std::max<offset_t>(top_k, 1), (tokens + 255) / 256});
    count = std::max<offset_t>(1, (tokens + each - 1) / each);
  }
  offset_t first(offset_t block) const noexcept { return std::min(block * each, tokens); }
};

struct plan_scratch {
  index_t* counts;      // [blocks, E], then each block's next position in each expert
  index_t* wanted;      // [E]
  index_t* list;        // [T·K] slots by expert, and
  offset_t* start;      // [E+1] where each expert's begin: only where slots compete by merit
  plan_counts* totals;  // [blocks]
};

inline plan_scratch carve_plan_scratch(arena<space::host>& a, shape const& s,
                                       plan_options<space::host> const& o) noexcept {
  plan_blocks const blocks(s.tokens, s.top_k);
  bool const lists = shunt::detail::by_merit(o);
  plan_scratch w;
  w.counts = a.take<index_t>(blocks.count * s.experts);
  w.wanted = a.take<index_t>(s.experts);
  w.list = a.take<index_t>(lists ? blocks.tokens * blocks.top_k : 0);
  w.start = a.take<offset_t>(lists ? offset_t{s.experts} + 1 : 0);
  w.totals = a.take<plan_counts>(blocks.count);
  return w;
}

/// Ranks of the slots that compete for an expert's capacity. A strict total order: the one that comes
/// first has the better claim.
struct better_claim {
  plan_options<space::host> const* options;
  index_t top_k;

  bool operator()(index_t a, index_t b) const noexcept {
    index_t const ka = a % top_k, kb = b % top_k;
    if (options->drop == drop_policy::by_choice) return ka != kb ? ka < kb : a < b;
    std::uint32_t const ga = shunt::detail::order_of(options->gate(a / top_k, ka)),
                        gb = shunt::detail::order_of(options->gate(b / top_k, kb));
    return ga != gb ? ga > gb : a < b;
  }
};

/// Rows of padding in the segments of experts [first, last), and the share of the rows behind the
/// last segment that belongs to one of `parts` workers.
template <class Kept>
void mark_rowless(dispatch_plan<space::host> const& plan, Kept kept, offset_t part,
                  offset_t parts) noexcept {
  offset_t const experts = plan.experts();
  for (offset_t e = experts * part / parts; e < experts * (part + 1) / parts; ++e) {
    for (index_t r = plan.offset[e] + kept(e); r < plan.offset[e + 1]; ++r) plan.row_slot[r] = -1;
  }
  offset_t const used = plan.offset[experts], tail = plan.row_slot.extent(0) - used;
  for (offset_t r = used + tail * part / parts; r < used + tail * (part + 1) / parts; ++r) {
    plan.row_slot[r] = -1;
  }
}

/// Turns the slots that each expert wants into offsets, and reports them. Returns the rows filled.
inline plan_counts lay_segments(index_t const* wanted, index_t capacity, index_t multiple,
                                dispatch_plan<space::host> const& plan,
                                plan_report<space::host> const& report) noexcept {
  plan_counts sum;
  offset_t end = 0;
  plan.offset[0] = 0;
  for (offset_t e = 0; e < plan.experts(); ++e) {
    index_t const kept = capacity > 0 ? std::min(wanted[e], capacity) : wanted[e];
    offset_t const segment = shunt::detail::rounded_up(kept, multiple);
    end += segment;
    plan.offset[e + 1] = static_cast<index_t>(end);
    sum.rows += kept;
    sum.padding += static_cast<index_t>(segment - kept);
    sum.dropped += wanted[e] - kept;
    if (report.wanted) report.wanted[e] = wanted[e];
    if (report.kept) report.kept[e] = kept;
  }
  return sum;
}

/// The first `capacity` of an expert's slots by claim, in their old order, from list to the plan.
inline void place_by_claim(index_t* slots, offset_t wanted, offset_t kept, index_t first_row,
                           better_claim const& better,
                           dispatch_plan<space::host> const& plan) noexcept {
  if (kept < wanted) {
    std::nth_element(slots, slots + kept, slots + wanted, better);
    std::sort(slots, slots + kept);
  }
  for (offset_t i = 0; i < kept; ++i) {
    auto const row = static_cast<index_t>(first_row + i);
    plan.row_slot[row] = slots[i];
    plan.slot_row[slots[i]] = row;
  }
  for (offset_t i = kept; i < wanted; ++i) plan.slot_row[slots[i]] = -1;
}

/// A plan in the making, as its steps take it.
struct plan_job {
  view<index_t const, 2, space::host> expert;
  dispatch_plan<space::host> const& plan;
  plan_options<space::host> const& options;
  plan_scratch scratch;
  plan_blocks blocks;
  shunt::detail::shard_map ids;
  bool lists;  // slots compete by merit: they are listed by expert before they are placed

  [[nodiscard]] bool counts(offset_t token) const noexcept {
    return !options.valid || options.valid[token] != 0;
  }
  [[nodiscard]] index_t capacity() const noexcept {
    return options.capacity > 0 ? options.capacity : std::numeric_limits<index_t>::max();
  }
};

/// Step 1, block by block: how many slots want each expert, and why the others get no row.
inline void count_block(plan_job const& job, offset_t block) noexcept {
  offset_t const last = job.blocks.first(block + 1), top_k = job.blocks.top_k;
  auto const ids = job.ids;
  auto const experts = static_cast<std::uint32_t>(job.plan.experts());
  index_t* const count = job.scratch.counts + block * experts;
  std::fill(count, count + experts, 0);
  plan_counts sum;
  for (offset_t t = job.blocks.first(block); t < last; ++t) {
    if (!job.counts(t)) {
      sum.invalid += job.plan.top_k;
      continue;
    }
    index_t const* const chosen = job.expert.data() + t * job.expert.stride(0);
    for (offset_t k = 0; k < top_k; ++k) {
      std::uint32_t const e = ids.local(chosen[k]);
      if (e < experts) {
        ++count[e];
      } else {
        ids.count_rowless(chosen[k], sum);
      }
    }
  }
  job.scratch.totals[block] = sum;
}

/// Step 2: the blocks' counts become each block's next position in each expert; the offsets follow.
inline void make_offsets(plan_job const& job) noexcept {
  plan_scratch const& w = job.scratch;
  plan_options<space::host> const& o = job.options;
  offset_t const experts = job.plan.experts();
  std::fill(w.wanted, w.wanted + experts, 0);
  for (offset_t block = 0; block < job.blocks.count; ++block) {
    index_t* const count = w.counts + block * experts;
    for (offset_t e = 0; e < experts; ++e) {
      index_t const here = count[e];
      count[e] = w.wanted[e];
      w.wanted[e] += here;
    }
  }
  plan_counts totals = lay_segments(w.wanted, o.capacity, o.segment_multiple, job.plan, o.report);
  if (o.report.totals) {
    for (offset_t block = 0; block < job.blocks.count; ++block) {
      shunt::detail::add_counts(totals, w.totals[block]);
    }
    o.report.totals[0] = totals;
  }
  if (!job.lists) return;
  w.start[0] = 0;
  for (offset_t e = 0; e < experts; ++e) w.start[e + 1] = w.start[e] + w.wanted[e];
}

/// Step 3, block by block: each slot gets the next row of its expert, or is listed there.
inline void place_block(plan_job const& job, offset_t block) noexcept {
  plan_scratch const w = job.scratch;
  dispatch_plan<space::host> const& plan = job.plan;
  offset_t const last = job.blocks.first(block + 1), top_k = job.blocks.top_k;
  auto const ids = job.ids;
  auto const experts = static_cast<std::uint32_t>(plan.experts());
  bool const lists = job.lists;
  index_t const capacity = job.capacity();
  index_t* const next = w.counts + block * experts;
  index_t* const row_slot = plan.row_slot.data();
  index_t* const slot_row = plan.slot_row.data();
  index_t const* const offset = plan.offset.data();
  for (offset_t t = job.blocks.first(block); t < last; ++t) {
    bool const counts = job.counts(t);
    index_t const* const chosen = job.expert.data() + t * job.expert.stride(0);
    for (offset_t k = 0; k < top_k; ++k) {
      auto const slot = static_cast<index_t>(t * top_k + k);
      std::uint32_t const e = counts ? ids.local(chosen[k]) : experts;
      index_t row = -1;
      if (e < experts) {
        index_t const position = next[e]++;
        if (lists) {
          w.list[w.start[e] + position] = slot;
        } else if (position < capacity) {
          row = offset[e] + position;
          row_slot[row] = slot;
        }
      }
      slot_row[slot] = row;
    }
  }
  mark_rowless(
      plan, [&](offset_t e) { return std::min(w.wanted[e], capacity); }, block, job.blocks.count);
}

inline status make_plan(on_host const& on, view<index_t const, 2, space::host> expert,
                        dispatch_plan<space::host> const& plan, arena<space::host> work,
                        plan_options<space::host> const& o) noexcept {
  index_t const experts = plan.experts();
  plan_scratch const w =
      carve_plan_scratch(work, {.tokens = plan.tokens, .experts = experts, .top_k = plan.top_k}, o);
  if (status bad = work.check("plan_dispatch.arena"); !bad.ok()) return bad;
  plan_job const job{.expert = expert,
                     .plan = plan,
                     .options = o,
                     .scratch = w,
                     .blocks = plan_blocks(plan.tokens, plan.top_k),
                     .ids = shunt::detail::shard_map(experts, o),
                     .lists = shunt::detail::by_merit(o)};
  parallel(on, job.blocks.count, [&](offset_t block, int) { count_block(job, block); });
  make_offsets(job);
  parallel(on, job.blocks.count, [&](offset_t block, int) { place_block(job, block); });
  if (job.lists) {
    better_claim const better{&o, plan.top_k};
    parallel(on, experts, [&](offset_t e, int) {
      place_by_claim(w.list + w.start[e], w.wanted[e], std::min(w.wanted[e], job.capacity()),
                     plan.offset[e], better, plan);
    });
  }
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
