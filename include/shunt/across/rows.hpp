#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <type_traits>

#include "shunt/across/make_plan.hpp"
#include "shunt/core/concepts.hpp"

/// The primitives of an exchange of rows: plan, send, return. Each is usable alone.
namespace shunt {
namespace check {
inline namespace SHUNT_ABI {

/// What a plan across ranks can be made with, of one rank: the placement, ids, options.
template <exchange X>
[[nodiscard]] status across_inputs(char const* who, among_ranks<X> const& among,
                                   view<index_t const, 2> expert,
                                   across_plan_options const& o) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = expert.extent(0), top_k = expert.extent(1);
  argument const ids(who, "expert"), slots(who, "tokens x top_k"), all(who, "rows of all ranks"),
      capacity(who, "options.capacity"), zero(who, "options.zero_experts"), t(who, "most_tokens"),
      r(who, "most_rows");
  if (status bad =
          first_of(placement(who, among.placement, among.transport.ranks()), rows(ids, expert),
                   between(t, among.most_tokens, 0, most), between(r, among.most_rows, 0, most),
                   fits_index(slots, tokens, top_k), between(capacity, o.capacity, 0, most),
                   between(zero, o.zero_experts, 0, most - among.placement.experts),
                   optional_vector(who, "options.valid", o.valid, tokens, "tokens"));
      !bad.ok()) {
    return bad;
  }
  if (o.capacity > 0 && o.drop == drop_policy::by_gate) {
    return status::fail(error::unsupported,
                        "%s.options.drop is by_gate; across ranks it must be by_position or "
                        "by_choice: a rank does not see the gates of others",
                        who);
  }
  index_t const bound = static_cast<index_t>(top_k);
  return first_of(
      between(all, across_rows_bound(among, static_cast<index_t>(tokens), bound, o.capacity), 0,
              most),
      report(who, o.report, among.placement.on_rank(among.transport.rank())));
}

/// A plan as carve_across_plan makes it.
template <exchange X, space S>
[[nodiscard]] status across_plan(char const* who, among_ranks<X> const& among,
                                 ::shunt::basic_across_plan<S> const& p) noexcept {
  offset_t const ends = offset_t{among.transport.ranks()} + 1;
  argument const here(who, "plan.here.slot_row"), send(who, "plan.send_start"),
      recv(who, "plan.recv_start"), local(who, "plan.here: experts"), to(who, "plan.to: experts");
  return first_of(
      plan(who, p.to), extent(to, 0, p.to.experts(), among.placement.places(), "places"),
      extent(local, 0, p.here.experts(), among.placement.on_rank(among.transport.rank()),
             "places of this rank"),
      extent(here, 0, p.here.slot_row.extent(0), p.here.row_slot.extent(0), "rows of here"),
      rows(here, p.here.slot_row), extent(send, 0, p.send_start.extent(0), ends, "ranks + 1"),
      extent(recv, 0, p.recv_start.extent(0), ends, "ranks + 1"), memory(send, p.send_start),
      memory(recv, p.recv_start));
}

/// A matrix of so many rows or more, without gaps between them.
template <class V>
[[nodiscard]] status at_least(char const* name, V const& m, offset_t count) noexcept {
  if (status bad = rows(name, m); !bad.ok()) return bad;
  if (m.extent(0) >= count) return {};
  return status::fail(error::bad_shape, "%s: extent 0 is %lld; it must be %lld or more (rows)",
                      name, static_cast<long long>(m.extent(0)), static_cast<long long>(count));
}
template <class V>
[[nodiscard]] status gapless(char const* name, V const& m, offset_t count) noexcept {
  if (status bad = at_least(name, m, count); !bad.ok()) return bad;
  if (m.extent(0) < 2 || m.stride(0) == m.extent(1)) return {};
  return status::fail(error::bad_shape, "%s: axis 0 has stride %lld; it must be %lld (contiguous)",
                      name, static_cast<long long>(m.stride(0)),
                      static_cast<long long>(m.extent(1)));
}

}  // namespace SHUNT_ABI
}  // namespace check

namespace detail {
inline namespace SHUNT_ABI {

/// The rows of an exchange that leave their rank.
template <exchange X>
void add_traffic(among_ranks<X> const& among, exchange_rows const& rows) noexcept {
  if (among.report == nullptr) return;
  int const rank = among.transport.rank(), ranks = among.transport.ranks();
  auto const others = [&](view<offset_t const, 1> start) {
    return start[ranks] - (start[rank + 1] - start[rank]);
  };
  across_report& to = *among.report;
  auto const bytes = static_cast<offset_t>(rows.row_bytes);
  to.rows_sent += others(rows.send_start);
  to.rows_received += others(rows.recv_start);
  to.bytes_sent += others(rows.send_start) * bytes;
  to.bytes_received += others(rows.recv_start) * bytes;
}
template <exchange X>
[[nodiscard]] status begin_rows(char const* who, among_ranks<X> const& among,
                                exchange_rows const& rows) noexcept {
  status const begun = among.transport.begin(rows);
  if (!begun.ok()) return status::fail(begun.code(), "%s: %s", who, begun.message());
  add_traffic(among, rows);
  return {};
}
template <exchange X>
[[nodiscard]] status finish_rows(char const* who, among_ranks<X> const& among) noexcept {
  if (among.report != nullptr) ++among.report->rounds;
  status const done = among.transport.finish();
  return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
}
/// From the ranks of the tokens to those of the experts, and the other way. The first rows of `from` and `to`
/// are taken; both have contiguous rows without gaps.
template <class T, space S>
[[nodiscard]] exchange_rows towards_experts(basic_across_plan<S> const& plan, T const* from, T* to,
                                            offset_t width) noexcept {
  return {from,
          to,
          static_cast<std::size_t>(width) * sizeof(T),
          plan.send_start,
          plan.recv_start,
          plan.send_there,
          plan.recv_there};
}
template <class T, space S>
[[nodiscard]] exchange_rows towards_tokens(basic_across_plan<S> const& plan, T const* from, T* to,
                                           offset_t width) noexcept {
  return {from,
          to,
          static_cast<std::size_t>(width) * sizeof(T),
          plan.recv_start,
          plan.send_start,
          plan.recv_there,
          plan.send_there};
}
/// Rows of experts in the order in which they came: a copy, so that no bit changes.
template <class P, class T>
[[nodiscard]] status in_order_of_arrival(P const& on, view<T const, 2, P::memory> rows,
                                         dispatch_plan<P::memory> const& received,
                                         view<T, 2, P::memory> arrived) noexcept {
  dispatch_plan<P::memory> back = received;  // the inverse: each row of an expert goes to its slot
  back.row_slot = received.slot_row;
  back.slot_row = received.row_slot;
  return dispatch(on, rows, back, arrived);
}

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// Scratch of plan_across in bytes.
template <exchange X>
[[nodiscard]] std::size_t plan_across_scratch_bytes(among_ranks<X> const& among, index_t tokens,
                                                    index_t top_k,
                                                    across_plan_options const& o = {}) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(detail::across_plan_scratch<on_host>::carve(
      on_host{}, from, from,
      detail::sizes_across(among, tokens, top_k, o.capacity, o.drop, o.zero_experts)));
  return from.needed();
}
/// Scratch of send_rows for rows of `width` elements of T.
template <class T>
[[nodiscard]] std::size_t send_rows_scratch_bytes(across_plan const& plan,
                                                  offset_t width) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(from.take<T>(plan.to.row_slot.extent(0) * width));
  return from.needed();
}
/// Scratch of return_rows likewise.
template <class T>
[[nodiscard]] std::size_t return_rows_scratch_bytes(across_plan const& plan,
                                                    offset_t width) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(from.take<T>(plan.here.row_slot.extent(0) * width));
  return from.needed();
}

}  // namespace SHUNT_ABI

/// Decides which rows go to which rank: one all_gather of headers and counts, then integers alone. Every rank
/// returns ok, or every rank the same sentence, which begins with the rank that it is about.
/// Shapes  expert [T,K], T of this rank's own → plan (carve_across_plan)
/// Types   expert index_t; ids as in plan_dispatch, of all experts
/// Order   rows that a rank receives for an expert stand in (source rank, token, k) order: that of one
///         process with the tokens in blocks by rank. So are those that a capacity drops.
/// Aliasing none
/// Errors  what plan_dispatch refuses; ranks with different options or placements; more rows than a rank has
///         memory for; drop_policy::by_gate; error::peer. The plan may be half written then, no report is.
/// Cost    reads T·K three times; one all_gather of 2 KiB a rank where levels·E counts fit beside the
///         header, else two. Never allocates.
/// Source  GShard's all-to-all (Lepikhin et al., 2020), without a capacity
template <exchange X>
[[nodiscard]] status plan_across(on_host const& on, among_ranks<X> const& among,
                                 std::type_identity_t<view<index_t const, 2>> expert,
                                 across_plan const& plan, std::type_identity_t<arena<>> work,
                                 across_plan_options const& options = {}) noexcept {
  constexpr char const* who = "plan_across";
  status own = first_of(check::policy(on), check::across_inputs(who, among, expert, options));
  if (own.ok()) own = check::across_plan(who, among, plan);
  if (own.ok()) {
    own = first_of(
        check::extent("plan_across.plan.to.tokens", 0, plan.to.tokens, expert.extent(0), "tokens"),
        check::extent("plan_across.plan.to.top_k", 0, plan.to.top_k, expert.extent(1), "top_k"));
  }
  auto const n = detail::sizes_across(among, expert.extent(0), expert.extent(1), options.capacity,
                                      options.drop, options.zero_experts);
  auto const s = detail::across_plan_scratch<on_host>::carve(on, work, work, n);
  if (own.ok()) own = work.check("plan_across.work");
  detail::rank_header header;
  header.most_rows = plan.here.row_slot.extent(0);
  if (own.ok()) header.tokens = detail::count_slots(n, expert, options.valid, s.messages.mine);
  detail::agreed_number const same[] = {
      {"expert: extent 1 (top_k)", n.top_k},
      {"placement.experts", n.experts},
      {"options.zero_experts", n.zero},
      {"placement (as one number)", own.ok() ? placement_number(among.placement) : 0},
      {"options.capacity", n.capacity},
      {"options.drop", static_cast<std::int64_t>(n.drop)}};
  status const met = detail::agree(who, among, s.messages, own, header, same);
  if (!met.ok()) return met;
  status const made = detail::plan_agreed(who, on, among, n, expert, options.valid, s, plan);
  if (made.ok()) detail::report_plan(among, n, s, plan, options.report);
  return made;
}

/// Sends each token to the ranks of its experts.
/// Shapes  x [T,H] → received [N,H], N ≥ plan.rows_received(): in the order of ranks, as plan.received()
///         takes them; options.gate [T,K]
/// Types   x and received of one storage type
/// Order   copies; with gates gate · x, as dispatch
/// Aliasing received shares no memory with x
/// Errors  shapes that do not fit the plan, an arena too small: of this rank alone, so that the others wait
///         for it until their deadline. Make the plan and check sizes on all ranks first. error::peer.
/// Cost    one exchange of rows. Never allocates.
template <exchange X, input<on_host, 2> Tokens, output<on_host, 2> Rows>
[[nodiscard]] status send_rows(on_host const& on, among_ranks<X> const& among,
                               across_plan const& plan, Tokens x, Rows received,
                               std::type_identity_t<arena<>> work,
                               dispatch_options<> const& options = {}) noexcept {
  using T = element_t<Rows>;
  static_assert(std::same_as<element_t<Tokens>, T>,
                "shunt::send_rows: x and received must have the same element type");
  constexpr char const* who = "send_rows";
  auto const from = as_input<on_host, 2>(x);
  auto const to = as_output<on_host, 2>(received);
  offset_t const width = from.extent(1), rows = plan.to.row_slot.extent(0);
  if (status bad = first_of(check::across_plan(who, among, plan),
                            check::extent("send_rows.received", 1, to.extent(1), width, "hidden"),
                            check::gapless("send_rows.received", to, plan.rows_received()));
      !bad.ok()) {
    return bad;
  }
  view<T, 2> const sent(work.take<T>(rows * width), {{rows, width}});
  if (status bad = work.check("send_rows.work"); !bad.ok()) return bad;
  if (status bad = dispatch(on, from, plan.to, sent, options); !bad.ok()) return bad;
  auto const moved = detail::towards_experts<T>(plan, sent.data(), to.data(), width);
  if (status bad = detail::begin_rows(who, among, moved); !bad.ok()) return bad;
  return detail::finish_rows(who, among);
}

/// Sends the rows of experts back to where the tokens are.
/// Shapes  rows [N,H] in the order of plan.received() → returned [R,H] in that of plan.to, as combine and
///         dispatch_backward take them
/// Types   any storage type, the same on both sides
/// Order   copies
/// Aliasing returned shares no memory with rows
/// Errors  as send_rows
/// Cost    one exchange of rows. Never allocates.
template <exchange X, input<on_host, 2> Rows, output<on_host, 2> Returned>
[[nodiscard]] status return_rows(on_host const& on, among_ranks<X> const& among,
                                 across_plan const& plan, Rows rows, Returned returned,
                                 std::type_identity_t<arena<>> work) noexcept {
  using T = element_t<Returned>;
  static_assert(std::same_as<element_t<Rows>, T>,
                "shunt::return_rows: rows and returned must have the same element type");
  constexpr char const* who = "return_rows";
  auto const from = as_input<on_host, 2>(rows);
  auto const to = as_output<on_host, 2>(returned);
  offset_t const width = to.extent(1), count = plan.rows_received();
  if (status bad = first_of(check::across_plan(who, among, plan),
                            check::extent("return_rows.rows", 1, from.extent(1), width, "hidden"),
                            check::at_least("return_rows.rows", from, count),
                            check::gapless("return_rows.returned", to, plan.rows_sent()));
      !bad.ok()) {
    return bad;
  }
  view<T, 2> const sorted(work.take<T>(plan.here.row_slot.extent(0) * width), {{count, width}});
  if (status bad = work.check("return_rows.work"); !bad.ok()) return bad;
  auto const received = plan.received();
  if (status bad = detail::in_order_of_arrival(on, from.slice(0, count), received, sorted);
      !bad.ok()) {
    return bad;
  }
  auto const moved = detail::towards_tokens<T>(plan, sorted.data(), to.data(), width);
  if (status bad = detail::begin_rows(who, among, moved); !bad.ok()) return bad;
  return detail::finish_rows(who, among);
}

}  // namespace shunt
