#pragma once
#include "shunt/core/compiler.hpp"

#include <type_traits>

#include "shunt/across/recover.hpp"
#include "shunt/across/rows.hpp"

/// Between two steps: ranks that join, and experts that go to other ranks.
namespace shunt {

/// An exchange that ranks can join: `grow(ranks, came)` by those that are there, `join()` by one that comes.
template <class X>
concept growing_exchange = recoverable_exchange<X> && requires(X& x, view<std::uint8_t, 1> came) {
  { x.grow(1, came) } -> std::same_as<status>;
  { x.join() } -> std::same_as<status>;
};

namespace detail {
inline namespace SHUNT_ABI {

/// Rows of experts that one rank sends to another: each(place before, place after), in ascending experts, of
/// those that `to` holds afterwards and takes from `from`.
template <class Each>
void each_moved(expert_placement const& before, expert_placement const& after, int from, int to,
                view<index_t, 1> of_expert, Each const& each) noexcept {
  places_of_rank(before, to, of_expert);
  for (index_t at = after.start[to]; at < after.start[to + 1]; ++at) {
    index_t const was = of_expert[after.expert[at]];
    if (was >= before.start[from] && was < before.start[from + 1]) each(was, at);
  }
}

struct move_scratch {
  rank_messages messages;
  view<offset_t, 1> send_start, recv_start;  // [R+1]
  view<index_t, 1> of_expert;                // [E]
  std::byte* sent = nullptr;                 // rows by destination
  std::byte* received = nullptr;             // rows by source

  template <exchange X>
  static move_scratch carve(arena<>& from, among_ranks<X> const& among,
                            expert_placement const& before, std::size_t row_bytes) noexcept {
    int const ranks = among.transport.ranks(), rank = among.transport.rank();
    expert_placement const& after = among.placement;
    offset_t const experts = before.experts;
    move_scratch s;
    s.messages = rank_messages::carve(from, ranks, 0);
    s.send_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
    s.recv_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
    s.of_expert = view<index_t, 1>(from.take<index_t>(experts), {{experts}});
    offset_t const bytes = static_cast<offset_t>(row_bytes),
                   most = before.start && before.ranks() == ranks
                              ? offset_t{before.on_rank(rank)} * ranks
                              : 0,
                   mine = after.start && after.ranks() == ranks ? after.on_rank(rank) : 0;
    s.sent = from.take<std::byte>(most * bytes);
    s.received = from.take<std::byte>(mine * bytes);
    return s;
  }
};

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// The placement of before in the numbers of a group that ranks have joined: those hold nothing yet.
/// Shapes  before: the ranks that were there, in their order · came [R], 1: joined · start [R+1], written
/// Errors  another number of ranks that did not come than `before` has
[[nodiscard]] inline status place_with_newcomers(expert_placement const& before,
                                                 view<std::uint8_t const, 1> came,
                                                 view<index_t, 1> start,
                                                 expert_placement& grown) noexcept {
  constexpr char const* who = "place_with_newcomers";
  offset_t const ranks = came.extent(0);
  if (status bad = first_of(
          check::placement(who, before, before.ranks()),
          check::extent("place_with_newcomers.start", 0, start.extent(0), ranks + 1, "ranks + 1"));
      !bad.ok()) {
    return bad;
  }
  int there = 0;
  for (offset_t r = 0; r < ranks; ++r) there += came[r] == 0 ? 1 : 0;
  if (there != before.ranks()) {
    return status::fail(error::bad_argument,
                        "place_with_newcomers.came: %d ranks were there before; it must be %d "
                        "(ranks of before)",
                        there, before.ranks());
  }
  int old = 0;
  start[0] = 0;
  for (offset_t r = 0; r < ranks; ++r) start[r + 1] = before.start[came[r] == 0 ? ++old : old];
  grown = {view<index_t const, 1>(start), before.expert, before.experts};
  return {};
}

/// The ranks that are there take in those that wait in join(); all of them call it between two steps. Ranks are
/// numbered anew, in the order of seats.
/// Shapes  ranks: how many there shall be, those that are there and those that come → came [ranks] or null: written,
///         1 where the rank joined
/// Errors  error::peer where not so many came within the deadline: then those that did come are in, and
///         among.transport.ranks() says how many there are; error::unsupported where the transport cannot
template <growing_exchange X>
[[nodiscard]] status grow(among_ranks<X> const& among, int ranks,
                          std::type_identity_t<view<std::uint8_t, 1>> came = {}) noexcept {
  return among.transport.grow(ranks, came);
}
/// A rank that comes waits until the others call grow().
/// Errors  error::peer where they do not within the deadline
template <growing_exchange X> [[nodiscard]] status join(X& transport) noexcept {
  return transport.join();
}

/// Scratch of move_experts in bytes, for rows of so many bytes.
template <exchange X>
[[nodiscard]] std::size_t move_experts_scratch_bytes(among_ranks<X> const& among,
                                                     expert_placement const& before,
                                                     std::size_t row_bytes) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(detail::move_scratch::carve(from, among, before, row_bytes));
  return from.needed();
}

/// Brings experts to where `among.placement` says, from where they were: a tensor of each expert, its weights or
/// its moments. After it the ranks compute with the new placement, and with the same bits.
/// Shapes  from [L before,N] → to [L after,N], of this rank's places; before: on as many ranks
/// Types   any trivially copyable T
/// Order   copies; of an expert with several places before, a rank takes that which its tokens used, its own first
/// Aliasing to shares no memory with from
/// Errors  placements on other ranks or of other experts, shapes, an arena too small: all ranks return the same
///         sentence, and `to` is as it was. error::peer.
/// Cost    one all_gather of 2 KiB a rank; each row that a rank did not hold is sent to it once. Never allocates.
template <exchange X, class T>
[[nodiscard]] status move_experts(among_ranks<X> const& among, expert_placement const& before,
                                  std::type_identity_t<view<T const, 2>> from, view<T, 2> to,
                                  std::type_identity_t<arena<>> work) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  constexpr char const* who = "move_experts";
  int const ranks = among.transport.ranks(), rank = among.transport.rank();
  expert_placement const& after = among.placement;
  offset_t const width = to.extent(1);
  std::size_t const bytes = static_cast<std::size_t>(width) * sizeof(T);
  status own = first_of(check::placement(who, after, ranks),
                        check::placement("move_experts.before", before, ranks));
  if (own.ok()) {
    own = first_of(check::extent("move_experts.from", 0, from.extent(0), before.on_rank(rank),
                                 "places of this rank before"),
                   check::extent("move_experts.to", 0, to.extent(0), after.on_rank(rank),
                                 "places of this rank"),
                   check::extent("move_experts.from", 1, from.extent(1), width, "columns of to"),
                   check::rows("move_experts.from", from), check::rows("move_experts.to", to),
                   check::apart("move_experts.to", to, "from", from));
  }
  auto const s = detail::move_scratch::carve(work, among, before, bytes);
  if (own.ok()) own = work.check("move_experts.work");
  detail::agreed_number const same[] = {
      {"placement.experts", after.experts},
      {"before.experts", before.experts},
      {"placement (as one number)", own.ok() ? placement_number(after) : 0},
      {"before (as one number)", own.ok() ? placement_number(before) : 0},
      {"to: bytes of a row", static_cast<std::int64_t>(bytes)}};
  if (own.ok() && after.experts != before.experts) {
    own = status::fail(error::bad_argument,
                       "move_experts.before: it has %d experts; it must have %d (placement)",
                       before.experts, after.experts);
  }
  if (status const met = detail::agree(who, among, s.messages, own, {}, same); !met.ok())
    return met;

  auto const at = [&](std::byte* rows, offset_t row) {
    return rows + static_cast<std::size_t>(row) * bytes;
  };
  s.send_start[0] = s.recv_start[0] = 0;
  for (int r = 0; r < ranks; ++r) {
    offset_t sends = s.send_start[r], takes = s.recv_start[r];
    detail::each_moved(before, after, rank, r, s.of_expert, [&](index_t was, index_t) {
      detail::copy_bytes(at(s.sent, sends++),
                         from.data() + (was - before.start[rank]) * from.stride(0), bytes);
    });
    detail::each_moved(before, after, r, rank, s.of_expert, [&](index_t, index_t) { ++takes; });
    s.send_start[r + 1] = sends;
    s.recv_start[r + 1] = takes;
  }
  exchange_rows const rows{s.sent, s.received, bytes, s.send_start, s.recv_start};
  if (status bad = detail::begin_rows(who, among, rows); !bad.ok()) return bad;
  if (status bad = detail::finish_rows(who, among); !bad.ok()) return bad;
  for (int r = 0; r < ranks; ++r) {
    offset_t row = s.recv_start[r];
    detail::each_moved(before, after, r, rank, s.of_expert, [&](index_t, index_t now) {
      detail::copy_bytes(to.data() + (now - after.start[rank]) * to.stride(0),
                         at(s.received, row++), bytes);
    });
  }
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt
