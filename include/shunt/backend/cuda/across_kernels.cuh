#pragma once
#include "shunt/across/agree.hpp"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/backend/cuda/rows.cuh"
#include "shunt/dispatch/rules.hpp"

// What a rank's device does between the exchanges: counts its slots, says so, and turns the counts of all into ids.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using index_list = view<index_t, 1, space::device>;
using slot_ids = view<index_t const, 2, space::device>;

/// How ids are counted: choice by choice where `levels` is above 1.
struct id_counts {
  offset_t ids, levels;
  index_t *counts, *tokens;  // [levels * ids] [1], both zero before
};
SHUNT_KERNEL void count_ids(slot_ids expert, token_mask valid, id_counts to) {
  offset_t const top_k = expert.extent(1);
  for (offset_t t = grid_thread(); t < expert.extent(0); t += grid_threads()) {
    if (!is_valid(valid, t)) continue;
    atomicAdd(to.tokens, 1);
    for (offset_t k = 0; k < top_k; ++k) {
      index_t const id = expert(t, k);
      if (id >= 0 && id < to.ids) atomicAdd(to.counts + (to.levels > 1 ? k * to.ids : 0) + id, 1);
    }
  }
}

/// The header, with the tokens that were counted, and the counts behind it. Null: nothing was counted.
SHUNT_KERNEL void write_message(shunt::detail::rank_header header, index_t const* tokens,
                                index_t const* counts, offset_t in_head, std::byte* message) {
  using shunt::detail::rank_header;
  if (counts != nullptr) header.tokens = *tokens;
  auto const* const words = reinterpret_cast<std::uint32_t const*>(&header);
  auto* const to = reinterpret_cast<std::uint32_t*>(message);
  constexpr offset_t head = sizeof(rank_header) / 4, all = shunt::detail::rank_messages::bytes / 4;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    offset_t const at = i - head;
    to[i] = i < head                            ? words[i]
            : counts != nullptr && at < in_head ? static_cast<std::uint32_t>(counts[at])
                                                : 0u;
  }
}

/// id[i]: which of this rank's experts the i-th row that came is for. `end`: of the rows of each (source, expert), in
/// the order in which they come.
SHUNT_KERNEL void ids_of_received(index_t const* end, offset_t local, offset_t lists,
                                  index_list id) {
  for (offset_t i = grid_thread(); i < id.extent(0); i += grid_threads()) {
    id[i] = -1;  // behind the last row that came
    if (lists == 0 || i >= end[lists - 1]) continue;
    offset_t low = 0, high = lists - 1;
    while (low < high) {
      offset_t const middle = (low + high) / 2;
      if (end[middle] <= i) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    id[i] = static_cast<index_t>(low % local);
  }
}

/// What competes for a capacity, in the order in which it is served: [T,K], or [K,T] by choice; -1 what does not.
SHUNT_KERNEL void lay_competitors(slot_ids expert, token_mask valid, offset_t experts,
                                  bool by_choice, index_list id) {
  offset_t const tokens = expert.extent(0), top_k = expert.extent(1);
  for (offset_t i = grid_thread(); i < tokens * top_k; i += grid_threads()) {
    offset_t const t = i / top_k, k = i % top_k;
    index_t const e = expert(t, k);
    id[by_choice ? k * tokens + t : i] = is_valid(valid, t) && e >= 0 && e < experts ? e : -1;
  }
}

/// Ids to places, for the plan of what is sent.
struct slot_places {
  offset_t experts, zero, places;
  index_t const *place, *quota;  // [E]: of this rank's tokens; quota null: no capacity
  device_plan order;             // of lay_competitors
  bool by_choice;
  index_t* dropped;  // [1]
};
SHUNT_KERNEL void place_of_slots(slot_ids expert, token_mask valid, slot_places by,
                                 view<index_t, 2, space::device> place) {
  offset_t const tokens = expert.extent(0), top_k = expert.extent(1);
  for (offset_t i = grid_thread(); i < tokens * top_k; i += grid_threads()) {
    offset_t const t = i / top_k, k = i % top_k;
    index_t const id = expert(t, k);
    index_t to = id;  // -1, and what is out of range: plan_dispatch counts it
    if (id >= 0 && is_valid(valid, t)) {
      if (id >= by.experts) {
        to = static_cast<index_t>(id < by.experts + by.zero ? id - by.experts + by.places
                                                            : by.places + by.zero);
      } else {
        to = by.place[id];
        if (by.quota != nullptr) {
          index_t const row = by.order.slot_row[by.by_choice ? k * tokens + t : i];
          if (row - by.order.offset[id] >= by.quota[id]) {
            to = -1;
            atomicAdd(by.dropped, 1);
          }
        }
      }
    }
    place(t, k) = to;
  }
}
/// Slots that a capacity left out had no place in the plan: they are dropped, not unrouted.
SHUNT_KERNEL void count_dropped(index_t const* dropped,
                                view<plan_counts, 1, space::device> totals) {
  if (grid_thread() != 0) return;
  totals[0].dropped += *dropped;
  totals[0].unrouted -= *dropped;
}

/// to = from (+ before, where it is given).
SHUNT_KERNEL void add_before(index_t const* from, index_list before, index_list to) {
  for (offset_t i = grid_thread(); i < to.extent(0); i += grid_threads()) {
    to[i] = from[i] + (before ? before[i] : 0);
  }
}
SHUNT_KERNEL void add_in_order(view<float, 1, space::device> parts,
                               view<float, 1, space::device> sum) {
  if (grid_thread() != 0) return;
  float all = 0.0f;
  for (offset_t i = 0; i < parts.extent(0); ++i) all = __fadd_rn(all, parts[i]);
  sum[0] = all;
}
SHUNT_KERNEL void write_report(index_t const* wanted, index_list offset,
                               view<plan_counts, 1, space::device> totals,
                               plan_report<space::device> to) {
  offset_t const experts = offset.extent(0) - 1;
  for (offset_t i = grid_thread(); i < (experts > 0 ? experts : 1); i += grid_threads()) {
    if (i == 0 && to.totals) to.totals[0] = totals[0];
    if (i >= experts) return;
    if (to.wanted) to.wanted[i] = wanted[i];
    if (to.kept) to.kept[i] = offset[i + 1] - offset[i];
  }
}

/// Rows of experts in the order in which they came. A warp has one row; `slot_row` -1: none.
template <class Word>
SHUNT_KERNEL void rows_by_arrival(matrix<Word const> rows, index_list slot_row,
                                  matrix<Word> arrived) {
  for (offset_t i = grid_warp(); i < arrived.extent(0); i += grid_warps()) {
    index_t const row = slot_row[i];
    for (offset_t c = lane_of_thread(); row >= 0 && c < rows.extent(1); c += warp_lanes) {
      row_at(arrived, i)[c] = row_at(rows, row)[c];
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
