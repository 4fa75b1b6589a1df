// The plan across ranks, and its rows there and back, against a list of slots made by hand.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "shunt/across/rows.hpp"
#include "shunt/combine.hpp"
#include "support/across_case.hpp"
#include "support/expect_error.hpp"
#include "support/guarded.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_plan_test {

struct plan_case {
  int ranks = 2, tokens = 20, top_k = 2, experts = 6, zero = 0, copies = 0, capacity = 0;
  drop_policy drop = drop_policy::by_position;
  bool even = true, random = false;
  std::uint64_t seed = 1;

  [[nodiscard]] placed placement() const {
    return random ? placed_at_random(ranks, experts, copies, seed) : placed_evenly(ranks, experts);
  }
};

/// One slot of the whole batch.
struct slot {
  int source, token, k;  // the token's number on its rank
  index_t id;
  bool kept;
};

/// The whole batch as one list, with what a capacity leaves.
struct batch {
  std::vector<int> tokens;               // by rank
  std::vector<std::vector<index_t>> id;  // by rank, [T,K]
  std::vector<std::vector<std::uint8_t>> valid;
  std::vector<slot> slots;

  explicit batch(plan_case const& c) {
    tokens = tokens_by_rank(c.ranks, c.tokens, c.even, c.seed);
    rng d(c.seed * 31 + 7);
    for (int r = 0; r < c.ranks; ++r) {
      id.emplace_back();
      valid.emplace_back();
      for (int t = 0; t < tokens[std::size_t(r)]; ++t) {
        valid.back().push_back(d.below(9) != 0);
        for (int k = 0; k < c.top_k; ++k) {
          auto const one = static_cast<index_t>(d.below(c.experts + c.zero + 1)) - 1;  // -1: none
          id.back().push_back(one);
          bool const real = valid.back().back() != 0 && one >= 0 && one < c.experts;
          slots.push_back({r, t, k, one, real});
        }
      }
    }
    if (c.capacity == 0) return;
    std::vector<int> used(std::size_t(c.experts), 0);
    for (int level = 0; level < c.top_k; ++level) {
      for (slot& s : slots) {
        bool const now = c.drop == drop_policy::by_choice ? s.k == level : level == 0;
        if (now && s.kept && ++used[std::size_t(s.id)] > c.capacity) s.kept = false;
      }
    }
  }
};

/// The place that tokens of a rank use for an expert: on their own rank, or one of the copies by number.
index_t place_of(placed const& p, int rank, index_t expert) {
  std::vector<index_t> all;
  for (int r = 0; r < p.ranks(); ++r) {
    for (index_t at = p.start[std::size_t(r)]; at < p.start[std::size_t(r) + 1]; ++at) {
      if (p.expert[std::size_t(at)] != expert) continue;
      if (r == rank) return at;
      all.push_back(at);
    }
  }
  return all[std::size_t(rank) % all.size()];
}

float value_of(int rank, int token, int h) {
  return static_cast<float>(rank * 1000 + token) + 0.25f * static_cast<float>(h);
}

/// What one rank finds of the case, by every primitive.
void check_rank(rank_threads& x, plan_case const& c, placed const& p, batch const& b) {
  int const me = x.rank(), H = 3;
  int const T = b.tokens[std::size_t(me)], K = c.top_k;
  across_report traffic;
  among_ranks<rank_threads> const among{
      .transport = x, .placement = p.view_of(), .most_tokens = c.tokens, .report = &traffic};
  across_plan_options const options{.capacity = c.capacity,
                                    .drop = c.drop,
                                    .valid = view<std::uint8_t const, 1>(b.valid[std::size_t(me)]),
                                    .zero_experts = c.zero};
  auto measure = arena<>::measuring();
  static_cast<void>(carve_across_plan(measure, among, T, K, c.capacity));
  guarded<std::byte> memory(measure.needed());
  arena<> from(memory);
  across_plan const plan = carve_across_plan(from, among, T, K, c.capacity);
  guarded<std::byte> work(plan_across_scratch_bytes(among, T, K, options));
  view<index_t const, 2> const ids(b.id[std::size_t(me)].data(), {{T, K}});
  status const made = plan_across(on_host{.threads = 1}, among, ids, plan, arena<>(work), options);
  ASSERT_TRUE(made.ok()) << made.message();

  // What came: for each of this rank's places its slots, in the order of the whole batch.
  guarded<float> tokens(std::size_t(T * H));
  for (int t = 0; t < T; ++t) {
    for (int h = 0; h < H; ++h) tokens[std::size_t(t * H + h)] = value_of(me, t, h);
  }
  offset_t const N = plan.rows_received();
  guarded<float> received(std::size_t(N * H));
  guarded<std::byte> sending(send_rows_scratch_bytes<float>(plan, H));
  status const sent = send_rows(on_host{.threads = 1}, among, plan, tokens.as(T, H),
                                received.as(N, H), arena<>(sending));
  ASSERT_TRUE(sent.ok()) << sent.message();
  dispatch_plan<> const here = plan.received();
  offset_t row = 0, remote = 0;
  std::vector<float> answer(std::size_t(N * H));
  for (index_t e = 0; e < here.experts(); ++e) {
    index_t const at = p.start[std::size_t(me)] + e;
    ASSERT_EQ(here.offset[e], row);
    for (slot const& s : b.slots) {
      if (!s.kept || place_of(p, s.source, s.id) != at) continue;
      ASSERT_LT(row, N);
      for (int h = 0; h < H; ++h) {
        ASSERT_EQ(received[std::size_t(here.row_slot[row] * H + h)],
                  value_of(s.source, s.token, h));
        answer[std::size_t(row * H + h)] =
            value_of(s.source, s.token, h) + 0.5f * static_cast<float>(at);
      }
      if (s.source != me) ++remote;
      ++row;
    }
  }
  ASSERT_EQ(row, N);
  EXPECT_EQ(traffic.rows_received, remote);
  EXPECT_EQ(traffic.bytes_received, remote * H * 4);

  // And back: each slot has its own expert's answer.
  offset_t const R = plan.to.row_slot.extent(0);
  guarded<float> returned(std::size_t(R * H));
  guarded<std::byte> returning(return_rows_scratch_bytes<float>(plan, H));
  view<float const, 2> const rows(answer.data(), {{N, H}});
  status const back =
      return_rows(on_host{.threads = 1}, among, plan, rows, returned.as(R, H), arena<>(returning));
  ASSERT_TRUE(back.ok()) << back.message();
  for (slot const& s : b.slots) {
    if (s.source != me) continue;
    index_t const r = plan.to.slot_row[s.token * K + s.k];
    ASSERT_EQ(r >= 0, s.kept);
    if (r < 0) continue;
    float const place = 0.5f * static_cast<float>(place_of(p, me, s.id));
    for (int h = 0; h < H; ++h) {
      ASSERT_EQ(returned[std::size_t(r * H + h)], value_of(me, s.token, h) + place);
    }
  }
  EXPECT_EQ(traffic.rounds, 3);
}

TEST(Across, RowsGoToTheirExpertsInTheOrderOfOneProcess) {
  for (plan_case c :
       {plan_case{}, plan_case{.even = false}, plan_case{.zero = 2, .random = true},
        plan_case{.copies = 4, .even = false, .random = true}, plan_case{.capacity = 3},
        plan_case{.tokens = 0}, plan_case{.experts = 1, .even = false},
        plan_case{.copies = 5,
                  .capacity = 4,
                  .drop = drop_policy::by_choice,
                  .even = false,
                  .random = true}}) {
    for (int ranks : {1, 2, 3, 4, 5, 8}) {
      c.ranks = ranks;
      c.seed += 11;
      SCOPED_TRACE("ranks " + std::to_string(ranks) + " seed " + std::to_string(c.seed));
      placed const p = c.placement();
      batch const b(c);
      on_threads(ranks, [&](rank_threads& x) { check_rank(x, c, p, b); });
    }
  }
}

TEST(Across, CountsBeyondOneMessageTakeASecond) {
  plan_case c{.ranks = 3, .tokens = 40, .experts = 900, .copies = 20, .random = true};
  placed const p = c.placement();
  batch const b(c);
  across_report traffic;
  on_threads(3, [&](rank_threads& x) {
    among_ranks<rank_threads> const among{.transport = x,
                                          .placement = p.view_of(),
                                          .most_tokens = 40,
                                          .report = x.rank() == 0 ? &traffic : nullptr};
    int const T = b.tokens[std::size_t(x.rank())];
    auto measure = arena<>::measuring();
    static_cast<void>(carve_across_plan(measure, among, T, 2));
    guarded<std::byte> memory(measure.needed()), work(plan_across_scratch_bytes(among, T, 2));
    arena<> from(memory);
    across_plan const plan = carve_across_plan(from, among, T, 2);
    view<index_t const, 2> const ids(b.id[std::size_t(x.rank())].data(), {{T, 2}});
    EXPECT_TRUE(plan_across(on_host{}, among, ids, plan, arena<>(work)).ok());
  });
  EXPECT_EQ(traffic.rounds, 2);
}

/// Runs plan_across on two ranks, rank 1 changed by `change`; both must return this sentence.
template <class Change>
void expect_sentence(error code, std::string const& sentence, Change change) {
  placed const p = placed_evenly(2, 6);
  std::vector<index_t> const ids{0, 3, 5, 1};
  std::string said[2];
  on_threads(2, [&](rank_threads& x) {
    placed mine = p;
    among_ranks<rank_threads> among{.transport = x, .placement = mine.view_of()};
    across_plan_options o;
    view<index_t const, 2> expert(ids.data(), {{2, 2}});
    auto measure = arena<>::measuring();
    static_cast<void>(carve_across_plan(measure, among, 2, 2));
    guarded<std::byte> memory(measure.needed());
    arena<> from(memory);
    across_plan plan = carve_across_plan(from, among, 2, 2);
    std::size_t bytes = plan_across_scratch_bytes(among, 2, 2, o);
    if (x.rank() == 1) change(among, mine, expert, o, plan, bytes);
    guarded<std::byte> work(bytes);
    status const done = plan_across(on_host{.threads = 1}, among, expert, plan, arena<>(work), o);
    EXPECT_EQ(done.code(), code) << done.message();
    said[x.rank()] = done.message();
  });
  EXPECT_EQ(said[0], sentence);
  EXPECT_EQ(said[1], sentence);
}

TEST(Across, EveryRankReturnsTheSameSentence) {
  expect_sentence(
      error::bad_argument,
      "plan_across.options.capacity: rank 1 has 3 and rank 0 0; all ranks must have the "
      "same",
      [](auto&, placed&, auto&, across_plan_options& o, auto&, auto&) { o.capacity = 3; });
  expect_sentence(error::null_pointer,
                  "rank 1: plan_across.expert: the pointer is null; it must point to 4 elements",
                  [](auto&, placed&, view<index_t const, 2>& e, auto&, auto&, auto&) {
                    e = view<index_t const, 2>(nullptr, {{2, 2}});
                  });
  expect_sentence(
      error::unsupported,
      "rank 1: plan_across.options.drop is by_gate; across ranks it must be by_position "
      "or by_choice: a rank does not see the gates of others",
      [](auto&, placed&, auto&, across_plan_options& o, auto&, auto&) {
        o.capacity = 3;
        o.drop = drop_policy::by_gate;
      });
  expect_sentence(
      error::bad_argument,
      "rank 1: plan_across.placement.expert: place 1 (rank 0) is 0; it must be from 1 to "
      "5: ascending, each once",
      [](auto& among, placed& p, auto&, auto&, auto&, auto&) {
        p.expert[1] = 0;
        among.placement = p.view_of();
      });
  expect_sentence(
      error::bad_argument,
      "rank 1: plan_across.placement.expert: expert 1 has no place; it must have one on "
      "some rank",
      [](auto& among, placed& p, auto&, auto&, auto&, auto&) {
        p.expert = {0, 2, 3, 4, 5};
        p.start = {0, 2, 5};
        among.placement = p.view_of();
      });
}

TEST(Across, AnArenaThatIsTooSmallIsOneSentence) {
  for (std::size_t const bytes : {std::size_t{0}, std::size_t{100}, std::size_t{4500}}) {
    std::string said[2];
    placed const p = placed_evenly(2, 6);
    std::vector<index_t> const ids{0, 3, 5, 1};
    std::size_t needed = 0;
    on_threads(2, [&](rank_threads& x) {
      among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
      auto measure = arena<>::measuring();
      static_cast<void>(carve_across_plan(measure, among, 2, 2));
      guarded<std::byte> memory(measure.needed());
      arena<> from(memory);
      across_plan const plan = carve_across_plan(from, among, 2, 2);
      std::size_t const all = plan_across_scratch_bytes(among, 2, 2);
      if (x.rank() == 1) needed = all;
      guarded<std::byte> work(x.rank() == 1 ? bytes : all);
      view<index_t const, 2> const expert(ids.data(), {{2, 2}});
      status const done = plan_across(on_host{.threads = 1}, among, expert, plan, arena<>(work));
      EXPECT_EQ(done.code(), error::arena_too_small);
      said[x.rank()] = done.message();
    });
    EXPECT_EQ(said[0], said[1]);
    EXPECT_EQ(said[0], "rank 1: plan_across.work: the arena has " + std::to_string(bytes) +
                           " bytes; it must have " + std::to_string(needed) +
                           " (ask an arena that is measuring)");
  }
}

TEST(Across, MoreRowsThanARankHasMemoryForAreRefusedByAll) {
  placed const p = placed_evenly(2, 6);
  std::vector<index_t> const ids{0, 1, 2, 3};  // three of four slots are rank 0's, on both ranks
  on_threads(2, [&](rank_threads& x) {
    among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of(), .most_rows = 5};
    auto measure = arena<>::measuring();
    static_cast<void>(carve_across_plan(measure, among, 2, 2));
    guarded<std::byte> memory(measure.needed()), work(plan_across_scratch_bytes(among, 2, 2));
    arena<> from(memory);
    across_plan const plan = carve_across_plan(from, among, 2, 2);
    view<index_t const, 2> const expert(ids.data(), {{2, 2}});
    status const done = plan_across(on_host{.threads = 1}, among, expert, plan, arena<>(work));
    expect_error(done, error::arena_too_small,
                 "plan_across: rank 0 would receive 6 rows; it has memory for 5 (among.most_rows, "
                 "most_tokens)");
  });
}

TEST(Across, ReportsCountTheWholeBatch) {
  plan_case c{.ranks = 3, .tokens = 30, .zero = 1, .capacity = 4};
  placed const p = c.placement();
  batch const b(c);
  std::vector<index_t> wanted(6, 0), kept(6, 0);
  std::vector<plan_counts> totals(3);
  on_threads(3, [&](rank_threads& x) {
    among_ranks<rank_threads> const among{
        .transport = x, .placement = p.view_of(), .most_tokens = 30};
    auto const r = std::size_t(x.rank());
    int const T = b.tokens[r];
    auto const first = p.start[r], local = p.start[r + 1] - first;
    across_plan_options const o{.capacity = 4,
                                .valid = view<std::uint8_t const, 1>(b.valid[r]),
                                .zero_experts = 1,
                                .report = {view<index_t, 1>(&wanted[std::size_t(first)], {{local}}),
                                           view<index_t, 1>(&kept[std::size_t(first)], {{local}}),
                                           view<plan_counts, 1>(&totals[r], {{1}})}};
    auto measure = arena<>::measuring();
    static_cast<void>(carve_across_plan(measure, among, T, 2, 4));
    guarded<std::byte> memory(measure.needed()), work(plan_across_scratch_bytes(among, T, 2, o));
    arena<> from(memory);
    across_plan const plan = carve_across_plan(from, among, T, 2, 4);
    view<index_t const, 2> const expert(b.id[r].data(), {{T, 2}});
    ASSERT_TRUE(plan_across(on_host{}, among, expert, plan, arena<>(work), o).ok());
  });
  std::vector<index_t> asked(6, 0), got(6, 0);
  plan_counts sum, expected;
  for (plan_counts const& t : totals) detail::add_counts(sum, t);
  for (slot const& s : b.slots) {
    if (b.valid[std::size_t(s.source)][std::size_t(s.token)] == 0) {
      ++expected.invalid;
    } else if (s.id < 0) {
      ++expected.unrouted;
    } else if (s.id >= 6) {
      ++expected.zero;
    } else {
      ++asked[std::size_t(s.id)];
      ++(s.kept ? expected.rows : expected.dropped);
      if (s.kept) ++got[std::size_t(s.id)];
    }
  }
  EXPECT_EQ(wanted, asked);
  EXPECT_EQ(kept, got);
  EXPECT_GT(expected.dropped, 0);
  EXPECT_EQ(sum.rows, expected.rows);
  EXPECT_EQ(sum.dropped, expected.dropped);
  EXPECT_EQ(sum.unrouted, expected.unrouted);
  EXPECT_EQ(sum.zero, expected.zero);
  EXPECT_EQ(sum.invalid, expected.invalid);
}

}  // namespace across_plan_test
}  // namespace shunt::test
