#pragma once
#include <algorithm>
#include <cstdint>

#include "shunt/backend/host/dispatch_plan.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

struct choice_scratch {
  index_t* wanted;      // [E]
  plan_counts* totals;  // [E]
};
inline choice_scratch carve_choice_scratch(arena<space::host>& a, offset_t experts) noexcept {
  return {a.take<index_t>(experts), a.take<plan_counts>(experts)};
}

/// Expert choice: slot token·E + e, so that a token may be chosen by any number of experts.
inline status make_choice_plan(on_host const& on, view<index_t const, 2, space::host> token,
                               dispatch_plan<space::host> const& plan, arena<space::host> work,
                               expert_choice_options<space::host> const& o) noexcept {
  offset_t const experts = plan.experts(), chosen = token.extent(1), tokens = plan.tokens;
  choice_scratch const w = carve_choice_scratch(work, experts);
  if (status bad = work.check("plan_from_expert_choice.arena"); !bad.ok()) return bad;

  parallel_ranges(on, tokens, 1 + 16384 / std::max<offset_t>(experts, 1),
                  [&](offset_t first, offset_t last, int) {
                    for (offset_t i = first * experts; i < last * experts; ++i)
                      plan.slot_row[i] = -1;
                    if (!o.dense_gate) return;
                    for (offset_t t = first; t < last; ++t) {
                      for (offset_t e = 0; e < experts; ++e) o.dense_gate(t, e) = 0.0f;
                    }
                  });
  // Each expert marks its own column first: a token named twice is met marked.
  parallel(on, experts, [&](offset_t e, int) {
    plan_counts sum;
    index_t rows = 0;
    for (offset_t c = 0; c < chosen; ++c) {
      index_t const t = token(e, c);
      if (t < 0 || t >= tokens) {
        ++(t == -1 ? sum.unrouted : sum.out_of_range);
      } else if (o.valid && o.valid[t] == 0) {
        ++sum.invalid;
      } else if (index_t& row = plan.slot_row[t * experts + e]; row != -1) {
        ++sum.repeated;
      } else {
        row = rows++;
        if (o.dense_gate) o.dense_gate(t, e) = o.gate(e, c);
      }
    }
    w.wanted[e] = rows;
    w.totals[e] = sum;
  });
  plan_counts sum = lay_segments(w.wanted, 0, o.segment_multiple, plan, o.report);
  if (o.report.totals) {
    for (offset_t e = 0; e < experts; ++e) shunt::detail::add_counts(sum, w.totals[e]);
    o.report.totals[0] = sum;
  }
  offset_t const parts = std::max<offset_t>(experts, 1);
  parallel(on, parts, [&](offset_t part, int) {
    mark_rowless(plan, [&](offset_t e) { return w.wanted[e]; }, part, parts);
    if (part >= experts) return;
    index_t const first = plan.offset[part];
    index_t* const slots = plan.row_slot.data() + first;
    index_t rows = 0;
    for (offset_t c = 0; c < chosen && rows < w.wanted[part]; ++c) {
      index_t const t = token(part, c);
      if (t < 0 || t >= tokens || (o.valid && o.valid[t] == 0)) continue;
      if (auto const slot = static_cast<index_t>(t * experts + part); plan.slot_row[slot] == rows) {
        slots[rows++] = slot;
      }
    }
    std::sort(slots, slots + rows);
    for (index_t r = 0; r < rows; ++r) plan.slot_row[slots[r]] = first + r;
  });
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
