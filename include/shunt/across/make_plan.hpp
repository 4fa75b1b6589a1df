#pragma once
#include <algorithm>
#include <limits>

#include "shunt/across/agree.hpp"
#include "shunt/dispatch.hpp"

/// From the ids of this rank's tokens and the counts of all ranks to a plan: integers only, so that every
/// rank computes the same.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The sizes of a plan across ranks, and what competes for a capacity.
struct across_sizes {
  offset_t tokens = 0, top_k = 0, experts = 0, zero = 0, places = 0, local = 0;
  offset_t rows = 0;  // that may be received
  int ranks = 1;
  index_t capacity = 0;
  drop_policy drop = drop_policy::by_position;

  /// Where first choices go before second ones, each choice is counted by itself.
  [[nodiscard]] offset_t levels() const noexcept {
    return capacity > 0 && drop == drop_policy::by_choice ? top_k : 1;
  }
  [[nodiscard]] offset_t ids() const noexcept { return experts + zero; }
  [[nodiscard]] offset_t counts() const noexcept { return levels() * ids(); }
};

template <exchange X>
[[nodiscard]] across_sizes sizes_across(among_ranks<X> const& among, offset_t tokens,
                                        offset_t top_k, index_t capacity, drop_policy drop,
                                        index_t zero_experts) noexcept {
  expert_placement const& p = among.placement;
  int const rank = among.transport.rank();
  bool const whole = p.start && p.ranks() == among.transport.ranks();
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t rows = whole ? across_rows_bound(among, static_cast<index_t>(tokens),
                                            static_cast<index_t>(top_k), capacity)
                        : 0;
  if (rows < 0 || rows > most) rows = 0;  // refused later
  return {.tokens = tokens,
          .top_k = top_k,
          .experts = p.experts,
          .zero = zero_experts,
          .places = p.places(),
          .local = whole ? p.on_rank(rank) : 0,
          .rows = rows,
          .ranks = among.transport.ranks(),
          .capacity = capacity,
          .drop = drop};
}

/// What a policy's backend does of a call across ranks: one specialization in each backend's across header.
template <class P> struct across_backend;
/// What a backend needs beside the plan's memory: nothing, where it has no specialization.
template <class P> struct across_tables {
  static across_tables carve(arena<P::memory>&, arena<>&, across_sizes const&) noexcept {
    return {};
  }
};

/// Counts and what follows from them are the host's on every policy; slots are where the ids are.
template <class P> struct across_plan_scratch {
  static constexpr space S = P::memory;
  rank_messages messages;
  view<index_t, 2, S> place;       // [T,K] the place of each slot
  view<plan_counts, 1, S> totals;  // [1] of this rank's slots
  view<index_t, 1> of_expert;      // [E] the place that tokens of one rank use
  view<index_t, 2> kept;           // [R,E] slots of each rank that have a row
  view<index_t, 1> used;           // [E]
  view<offset_t, 1> received;      // [R] rows that each rank receives
  across_tables<P> tables;
  arena<S> plan;

  /// `counts`: host memory, the same arena where the policy's memory is the host's.
  static across_plan_scratch carve(P const& on, arena<S>& from, arena<>& counts,
                                   across_sizes const& n) noexcept {
    auto const list = [&](offset_t count) {
      return view<index_t, 1>(counts.take<index_t>(count), {{count}});
    };
    across_plan_scratch s;
    s.messages = rank_messages::carve(counts, n.ranks, n.counts());
    s.place =
        view<index_t, 2, S>(from.template take<index_t>(n.tokens * n.top_k), {{n.tokens, n.top_k}});
    s.totals = view<plan_counts, 1, S>(from.template take<plan_counts>(1), {{1}});
    s.of_expert = list(n.experts);
    s.kept = view<index_t, 2>(counts.take<index_t>(n.ranks * n.experts), {{n.ranks, n.experts}});
    s.used = list(n.experts);
    s.received = view<offset_t, 1>(counts.take<offset_t>(n.ranks), {{n.ranks}});
    s.tables = across_tables<P>::carve(from, counts, n);
    std::size_t const bytes = plan_scratch_bytes(on, {.tokens = static_cast<index_t>(n.tokens),
                                                      .experts = static_cast<index_t>(n.places),
                                                      .top_k = static_cast<index_t>(n.top_k)});
    s.plan = {from.template take<std::byte>(static_cast<offset_t>(bytes)), bytes};
    return s;
  }
};

/// Slots of this rank that ask for each id, choice by choice where n.levels() says so; and valid tokens.
[[nodiscard]] inline offset_t count_slots(across_sizes const& n, view<index_t const, 2> expert,
                                          view<std::uint8_t const, 1> valid,
                                          index_t* counts) noexcept {
  std::fill_n(counts, n.counts(), 0);
  offset_t tokens = 0;
  for (offset_t t = 0; t < n.tokens; ++t) {
    if (!is_valid(valid, t)) continue;
    ++tokens;
    for (offset_t k = 0; k < n.top_k; ++k) {
      index_t const id = expert(t, k);
      if (id >= 0 && id < n.ids()) ++counts[(n.levels() > 1 ? k * n.ids() : 0) + id];
    }
  }
  return tokens;
}

/// Whether what the ranks say can be true, each of its own slots: from here on counts are used as sizes. The
/// same answer on all ranks.
[[nodiscard]] inline status counts_make_sense(char const* who, across_sizes const& n,
                                              rank_messages const& m) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t all_tokens = 0, all_slots = 0;
  for (int r = 0; r < n.ranks; ++r) {
    offset_t const tokens = m.header(r).tokens, each = n.levels() > 1 ? 1 : n.top_k;
    bool good = tokens >= 0 && tokens <= most - all_tokens && m.header(r).most_rows >= 0;
    for (offset_t k = 0; k < n.levels() && good; ++k) {
      offset_t slots = 0;
      for (offset_t id = 0; id < n.ids() && good; ++id) {
        index_t const count = m.count(r, k * n.ids() + id);
        good = count >= 0;
        slots += count;
      }
      all_slots += slots;
      good = good && slots <= tokens * each && all_slots <= most;
    }
    if (!good) {
      return status::fail(error::bad_argument,
                          "%s: rank %d says that it has %lld tokens, and counts slots that these "
                          "cannot have; slots of all ranks must be below 2^31",
                          who, r, static_cast<long long>(tokens));
    }
    all_tokens += tokens;
  }
  return {};
}

/// Slots of all ranks that ask for an id.
[[nodiscard]] inline offset_t wanted_by_all(across_sizes const& n, rank_messages const& m,
                                            offset_t id) noexcept {
  offset_t sum = 0;
  for (int r = 0; r < n.ranks; ++r) {
    for (offset_t k = 0; k < n.levels(); ++k) sum += m.count(r, k * n.ids() + id);
  }
  return sum;
}

/// What a capacity leaves to each rank: an expert takes slots in the order of ranks, or, by choice, all
/// ranks' first choices before their second ones.
inline void share_capacity(across_sizes const& n, rank_messages const& m,
                           view<index_t, 2> kept) noexcept {
  for (offset_t e = 0; e < n.experts; ++e) {
    offset_t left = n.capacity > 0 ? n.capacity : std::numeric_limits<offset_t>::max();
    for (int r = 0; r < n.ranks; ++r) kept(r, e) = 0;
    for (offset_t k = 0; k < n.levels(); ++k) {
      for (int r = 0; r < n.ranks; ++r) {
        offset_t const got = std::min<offset_t>(left, m.count(r, k * n.ids() + e));
        kept(r, e) += static_cast<index_t>(got);
        left -= got;
      }
    }
  }
}

/// Rows that each place gets, rank by rank: each(source rank, owner rank, place, rows).
template <class Each>
void each_transfer(across_sizes const& n, expert_placement const& p, view<index_t, 2> kept,
                   view<index_t, 1> of_expert, Each const& each) noexcept {
  for (int source = 0; source < n.ranks; ++source) {
    places_of_rank(p, source, of_expert);
    for (int owner = 0; owner < n.ranks; ++owner) {
      for (index_t at = p.start[owner]; at < p.start[owner + 1]; ++at) {
        index_t const e = p.expert[at];
        each(source, owner, at, of_expert[e] == at ? kept(source, e) : 0);
      }
    }
  }
}

/// Whether every rank has memory for what it would receive: the same answer on all of them.
template <class P>
[[nodiscard]] status room_for_rows(char const* who, across_sizes const& n,
                                   expert_placement const& p,
                                   across_plan_scratch<P> const& s) noexcept {
  for (int rank = 0; rank < n.ranks; ++rank) s.received[rank] = 0;
  each_transfer(n, p, s.kept, s.of_expert,
                [&](int, int owner, index_t, index_t rows) { s.received[owner] += rows; });
  for (int rank = 0; rank < n.ranks; ++rank) {
    offset_t const most = s.messages.header(rank).most_rows;
    if (s.received[rank] <= most) continue;
    return status::fail(error::arena_too_small,
                        "%s: rank %d would receive %lld rows; it has memory for %lld "
                        "(among.most_rows, most_tokens)",
                        who, rank, static_cast<long long>(s.received[rank]),
                        static_cast<long long>(most));
  }
  return {};
}

/// recv_start, and `here`: the rows that come, in the order of source ranks, each rank's place by place.
inline void plan_received(across_sizes const& n, expert_placement const& p, int rank,
                          across_plan_scratch<on_host> const& s, across_plan const& plan) noexcept {
  index_t const first = p.start[rank];
  view<index_t, 1> const offset = plan.here.offset;
  for (offset_t e = 0; e < offset.extent(0); ++e) offset[e] = 0;
  for (int r = 0; r <= n.ranks; ++r) plan.recv_start[r] = 0;
  each_transfer(n, p, s.kept, s.of_expert, [&](int source, int owner, index_t at, index_t rows) {
    if (owner != rank) return;
    plan.recv_start[source + 1] += rows;
    offset[at - first + 1] += rows;
  });
  for (int r = 0; r < n.ranks; ++r) plan.recv_start[r + 1] += plan.recv_start[r];
  for (offset_t e = 0; e + 1 < offset.extent(0); ++e) offset[e + 1] += offset[e];
  // The next row of each expert, where its own offset stands until all are placed.
  index_t* const next = s.used.data();
  for (offset_t e = 0; e < n.local; ++e) next[e] = offset[e];
  index_t slot = 0;
  each_transfer(n, p, s.kept, s.of_expert, [&](int, int owner, index_t at, index_t rows) {
    for (index_t i = 0; owner == rank && i < rows; ++i, ++slot) {
      index_t const row = next[at - first]++;
      plan.here.row_slot[row] = slot;
      plan.here.slot_row[slot] = row;
    }
  });
}

/// Ids become places; a slot that a capacity leaves out becomes -1, and so does one of an id that names no
/// expert. Returns the slots left out.
inline index_t place_slots(across_sizes const& n, int rank, expert_placement const& p,
                           view<index_t const, 2> expert, view<std::uint8_t const, 1> valid,
                           across_plan_scratch<on_host> const& s) noexcept {
  places_of_rank(p, rank, s.of_expert);
  for (offset_t e = 0; e < n.experts; ++e) s.used[e] = 0;
  index_t dropped = 0;
  auto const slot = [&](offset_t t, offset_t k) {
    index_t const id = expert(t, k);
    index_t& to = s.place(t, k);
    to = id;  // -1, and what is out of range: plan_dispatch counts it
    if (id < 0 || !is_valid(valid, t)) return;
    if (id >= n.experts) {
      to = static_cast<index_t>(id < n.ids() ? id - n.experts + n.places : n.places + n.zero);
    } else if (s.used[id] == s.kept(rank, id)) {
      to = -1;
      ++dropped;
    } else {
      ++s.used[id];
      to = s.of_expert[id];
    }
  };
  if (n.levels() > 1) {
    for (offset_t k = 0; k < n.top_k; ++k) {
      for (offset_t t = 0; t < n.tokens; ++t) slot(t, k);
    }
  } else {
    for (offset_t t = 0; t < n.tokens; ++t) {
      for (offset_t k = 0; k < n.top_k; ++k) slot(t, k);
    }
  }
  return dropped;
}

/// The plan, once the ranks agree. Writes the plan alone.
template <exchange X>
[[nodiscard]] status plan_agreed(char const* who, on_host const& on, among_ranks<X> const& among,
                                 across_sizes const& n, view<index_t const, 2> expert,
                                 view<std::uint8_t const, 1> valid,
                                 across_plan_scratch<on_host> const& s,
                                 across_plan const& plan) noexcept {
  expert_placement const& p = among.placement;
  int const rank = among.transport.rank();
  if (status bad = counts_make_sense(who, n, s.messages); !bad.ok()) return bad;
  share_capacity(n, s.messages, s.kept);
  if (status bad = room_for_rows(who, n, p, s); !bad.ok()) return bad;
  if (s.received[rank] > plan.here.row_slot.extent(0)) {  // another number than this rank gave
    return status::fail(error::bad_argument,
                        "%s: rank %d has memory for %lld rows, and its header came with another "
                        "number",
                        who, rank, static_cast<long long>(plan.here.row_slot.extent(0)));
  }
  plan_received(n, p, rank, s, plan);
  index_t const dropped = place_slots(n, rank, p, expert, valid, s);
  status const made = plan_dispatch(on, s.place, plan.to, s.plan,
                                    {.valid = valid,
                                     .experts = static_cast<index_t>(n.places),
                                     .zero_experts = static_cast<index_t>(n.zero),
                                     .report = {.totals = s.totals}});
  for (int r = 0; r <= n.ranks; ++r) plan.send_start[r] = plan.to.offset[p.start[r]];
  s.totals[0].dropped += dropped;
  s.totals[0].unrouted -= dropped;
  return made;
}

/// What the caller wants to know of it.
template <exchange X>
void report_plan(among_ranks<X> const& among, across_sizes const& n,
                 across_plan_scratch<on_host> const& s, across_plan const& plan,
                 plan_report<> const& report) noexcept {
  expert_placement const& p = among.placement;
  index_t const first = p.start[among.transport.rank()];
  if (report.totals) report.totals[0] = s.totals[0];
  for (index_t i = 0; i < n.local; ++i) {
    if (report.wanted) {
      report.wanted[i] = static_cast<index_t>(wanted_by_all(n, s.messages, p.expert[first + i]));
    }
    if (report.kept) report.kept[i] = plan.here.offset[i + 1] - plan.here.offset[i];
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
