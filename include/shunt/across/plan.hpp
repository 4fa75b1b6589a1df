#pragma once
#include "shunt/core/compiler.hpp"

#include "shunt/across/exchange.hpp"
#include "shunt/across/placement.hpp"
#include "shunt/dispatch/plan.hpp"

/// What one exchange of rows moves, and where: types, and their memory.
namespace shunt {

/// What a rank sent and received in the calls since the report was cleared. Rows that stay on their rank are
/// not on the wire.
struct across_report {
  offset_t rows_sent = 0, rows_received = 0;    ///< to and from other ranks
  offset_t bytes_sent = 0, bytes_received = 0;  ///< of those rows, without counts and headers
  offset_t rounds = 0;                          ///< all_gather and finish() calls
};

/// A rank among the others: how it reaches them, who holds which expert, and what it has memory for.
template <exchange X> struct among_ranks {
  X& transport;                     ///< the others
  expert_placement placement = {};  ///< the same on all ranks
  index_t most_tokens = 0;  ///< T of no rank is above this; 0: all have as many as this rank
  /// Rows that this rank's experts may receive in a call; more is an error on all ranks. 0: whatever the
  /// tokens choose (ranks x most_tokens x top_k, or what a capacity lets through).
  index_t most_rows = 0;
  across_report* report = nullptr;  ///< what is sent and received is added to it
  /// moe_layer_across sends a token once to each rank, however many of its experts are there, and 4 bytes for each
  /// of its slots in a round before. The same on all ranks, and the same bits; host memory. Without effect where
  /// gates act on the input, and in backward.
  bool send_once = false;
};

/// Which rows go where. `to` sends: its rows stand place by place, and so contiguous by rank. `here` takes: the
/// rows that came, in the order of ranks, become those of this rank's experts, in (source rank, slot) order.
///   Shapes  to: T tokens, top_k K, P places · here: as many tokens as there is room for rows, top_k 1,
///           L experts · send_start, recv_start [R+1]
template <space S = space::host> struct basic_across_plan {
  dispatch_plan<S> to;                       ///< slots → rows sent
  dispatch_plan<S> here;                     ///< rows received → rows of experts; see received()
  view<offset_t, 1> send_start, recv_start;  ///< [R+1] as in exchange_rows, in host memory
  view<offset_t, 1, space::device> send_there = {};  ///< of a plan on a device: the same there
  view<offset_t, 1, space::device> recv_there = {};  ///< likewise

  /// Rows that came.
  [[nodiscard]] offset_t rows_received() const noexcept {
    return recv_start[recv_start.extent(0) - 1];
  }
  /// Rows that were sent.
  [[nodiscard]] offset_t rows_sent() const noexcept { return send_start[send_start.extent(0) - 1]; }
  /// `here`, for as many rows as came.
  [[nodiscard]] dispatch_plan<S> received() const noexcept {
    dispatch_plan<S> p = here;
    offset_t const rows = rows_received();
    p.tokens = static_cast<index_t>(rows);
    p.row_slot = here.row_slot.slice(0, rows);
    p.slot_row = here.slot_row.slice(0, rows);
    return p;
  }
};
/// A plan in host memory.
using across_plan = basic_across_plan<>;

/// Options of plan_across.
struct across_plan_options {
  index_t capacity = 0;  ///< rows that an expert takes at most, of all ranks together; 0: dropless
  drop_policy drop =
      drop_policy::by_position;            ///< by_gate is refused: ranks do not see others' gates
  view<std::uint8_t const, 1> valid = {};  ///< [T] 0: the token gets no row
  index_t zero_experts = 0;  ///< ids [experts, experts + zero_experts) are zero experts
  /// wanted and kept [L]: of this rank's places, from all ranks; totals: of this rank's slots.
  plan_report<> report = {};
};

inline namespace SHUNT_ABI {

/// Rows that a rank must have room for.
template <exchange X>
[[nodiscard]] offset_t across_rows_bound(among_ranks<X> const& among, index_t tokens, index_t top_k,
                                         index_t capacity = 0) noexcept {
  if (among.most_rows > 0) return among.most_rows;
  offset_t const each = among.most_tokens > tokens ? among.most_tokens : tokens,
                 all = each * top_k * among.transport.ranks(),
                 kept = offset_t{capacity} * among.placement.on_rank(among.transport.rank());
  return capacity > 0 && kept < all ? kept : all;
}

/// The memory of a plan for `tokens` of this rank.
template <exchange X>
[[nodiscard]] across_plan carve_across_plan(arena<>& from, among_ranks<X> const& among,
                                            index_t tokens, index_t top_k,
                                            index_t capacity = 0) noexcept {
  offset_t const ranks = among.transport.ranks(),
                 rows = across_rows_bound(among, tokens, top_k, capacity);
  across_plan p;
  p.to = carve_plan(from, {.tokens = tokens, .experts = among.placement.places(), .top_k = top_k},
                    offset_t{tokens} * top_k);
  p.here = carve_plan(from,
                      {.tokens = static_cast<index_t>(rows),
                       .experts = among.placement.on_rank(among.transport.rank()),
                       .top_k = 1},
                      rows);
  p.send_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
  p.recv_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
  return p;
}

}  // namespace SHUNT_ABI
}  // namespace shunt
