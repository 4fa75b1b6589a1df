#pragma once
#include <algorithm>

#include "shunt/across/rows.hpp"

/// Rows towards experts, a token once for each rank: behind the rows' order travels, for each slot, which of the
/// tokens it is. On the host.
namespace shunt::detail {
inline namespace SHUNT_ABI {

struct once_scratch {
  view<index_t, 1> last;        // [T] a token's place among those sent
  view<index_t, 1> token;       // [T·min(K,R)] the tokens sent, by rank
  view<index_t, 1> sent, came;  // [T·K] [N] of each slot's row: which of its rank's tokens
  view<index_t, 1> row;         // [N] of each row of an expert: the token's row received
  view<index_t, 1> ends;        // [2] the segment of a gather
  view<offset_t, 1> send_start, recv_start;  // [R+1] tokens by rank

  static once_scratch carve(arena<>& from, offset_t tokens, offset_t top_k, offset_t received,
                            int ranks) noexcept {
    auto const list = [&](offset_t count) {
      return view<index_t, 1>(from.take<index_t>(count), {{count}});
    };
    once_scratch s;
    s.last = list(tokens);
    s.token = list(tokens * std::min<offset_t>(top_k, ranks));
    s.sent = list(tokens * top_k);
    s.came = list(received);
    s.row = list(received);
    s.send_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
    s.recv_start = view<offset_t, 1>(from.take<offset_t>(ranks + 1), {{ranks + 1}});
    return s;
  }
};

/// Lists the tokens that go to each rank, and which of them each row is.
inline void list_tokens(across_plan const& plan, once_scratch const& s) noexcept {
  offset_t const ranks = plan.send_start.extent(0) - 1;
  for (offset_t t = 0; t < s.last.extent(0); ++t) s.last[t] = -1;
  index_t count = 0;
  s.send_start[0] = 0;
  for (offset_t r = 0; r < ranks; ++r) {
    index_t const first = count;
    for (offset_t i = plan.send_start[r]; i < plan.send_start[r + 1]; ++i) {
      index_t const t = plan.to.row_slot[i] / plan.to.top_k;
      if (s.last[t] < first) {
        s.token[count] = t;
        s.last[t] = count++;
      }
      s.sent[i] = s.last[t] - first;
    }
    s.send_start[r + 1] = count;
  }
}

/// Of what came: how many tokens each rank sends, and which row received each slot's is. A token is first named
/// by the rank's first slot of it, so that its number is at most one above all before.
[[nodiscard]] inline status place_tokens(char const* who, across_plan const& plan,
                                         once_scratch const& s) noexcept {
  offset_t const ranks = plan.recv_start.extent(0) - 1;
  s.recv_start[0] = 0;
  for (offset_t r = 0; r < ranks; ++r) {
    auto const first = static_cast<index_t>(s.recv_start[r]);
    index_t tokens = 0;
    for (offset_t i = plan.recv_start[r]; i < plan.recv_start[r + 1]; ++i) {
      index_t const is = s.came[i];
      if (is < 0 || is > tokens) {
        return status::fail(error::bad_argument,
                            "%s: rank %lld names token %d behind %d others; it must be from 0 to "
                            "%d",
                            who, static_cast<long long>(r), is, tokens, tokens);
      }
      if (is == tokens) ++tokens;
      s.came[i] = first + is;
    }
    s.recv_start[r + 1] = first + tokens;
  }
  for (offset_t i = 0; i < plan.rows_received(); ++i) s.row[i] = s.came[plan.here.row_slot[i]];
  return {};
}

/// Which slots are which tokens: 4 bytes for each row, in the rows' order.
template <exchange X>
[[nodiscard]] status exchange_names(char const* who, among_ranks<X> const& among,
                                    across_plan const& plan, once_scratch const& s) noexcept {
  list_tokens(plan, s);
  exchange_rows const names{s.sent.data(), s.came.data(), sizeof(index_t), plan.send_start,
                            plan.recv_start};
  across_report before;
  if (among.report != nullptr) before = *among.report;
  if (status bad = begin_rows(who, among, names); !bad.ok()) return bad;
  if (among.report != nullptr) {  // bytes, but no rows
    among.report->rows_sent = before.rows_sent;
    among.report->rows_received = before.rows_received;
  }
  if (status bad = finish_rows(who, among); !bad.ok()) return bad;
  return place_tokens(who, plan, s);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
