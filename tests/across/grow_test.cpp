// Ranks that join between two steps, and experts that go to other ranks.
#include "shunt/across/grow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "support/across_case.hpp"
#include "support/exchange_case.hpp"
#include "support/expect_error.hpp"
#include "support/guarded.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_grow_test {

TEST(Across, ThreadsJoinAndMoveWhatTheyWereGiven) {
  rank_threads_table table(2, 4);
  std::vector<std::thread> threads;
  for (int seat = 0; seat < 4; ++seat) {
    threads.emplace_back([&, seat] {
      if (seat > 1) {  // they come later
        rank_threads x(table, seat, newcomer{});
        ASSERT_TRUE(join(x).ok());
        EXPECT_EQ(x.rank(), seat);
        EXPECT_EQ(exchange_rounds(x, 3), "");
        return;
      }
      rank_threads x(table, seat);
      EXPECT_EQ(exchange_rounds(x, 2), "");
      std::uint8_t came[4];
      placed const p = placed_evenly(2, 3);
      among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
      status const grown = grow(among, 4, view<std::uint8_t, 1>(came, 4));
      ASSERT_TRUE(grown.ok()) << grown.message();
      for (int r = 0; r < 4; ++r) EXPECT_EQ(came[r], r > 1 ? 1 : 0);
      EXPECT_EQ(x.ranks(), 4);
      EXPECT_EQ(exchange_rounds(x, 3), "");
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(Across, WhereNobodyComesAllGoOnWithWhoIsThere) {
  rank_threads_table table(2, 3);
  std::vector<std::thread> threads;
  for (int seat = 0; seat < 2; ++seat) {
    threads.emplace_back([&, seat] {
      rank_threads x(table, seat, milliseconds(100));
      std::uint8_t came[3] = {7, 7, 7};
      expect_error(x.grow(3, view<std::uint8_t, 1>(came, 3)), error::peer,
                   "grow: 2 of 3 ranks are there after 100 ms");
      for (std::uint8_t is : came) EXPECT_EQ(is, 0);
      EXPECT_EQ(exchange_rounds(x, 3), "");  // together still
      expect_error(x.grow(4, {}), error::bad_argument,
                   "grow: 4 ranks are wanted and came has extent 0; it must be from 2 to 3 "
                   "(seats), and came of as many");
    });
  }
  for (std::thread& t : threads) t.join();
  rank_threads late(table, 2, newcomer{}, milliseconds(50)),
      taken(table, 1, newcomer{}, milliseconds(50));
  expect_error(late.join(), error::peer, "join: no rank has called grow for 50 ms");
  expect_error(taken.join(), error::peer, "join: seat 1 is that of a rank, and was so for 50 ms");
}

TEST(Across, GrowingWaitsForAllThatAreThere) {
  rank_threads_table table(2, 3);
  std::atomic<bool> done{false};
  std::thread other([&] {
    rank_threads x(table, 1, milliseconds(50));
    while (!done) std::this_thread::yield();
  });
  rank_threads x(table, 0, milliseconds(50));
  expect_error(x.grow(3, {}), error::peer, "rank 1 has not answered for 50 ms");
  done = true;
  other.join();
  expect_error(x.grow(3, {}), error::peer, "rank 1 of 2 died or left");
  ASSERT_TRUE(x.recover({}).ok());  // and then by itself, with a newcomer
  std::thread comes([&] {
    rank_threads y(table, 1, newcomer{});  // the seat of the one that left
    ASSERT_TRUE(y.join().ok());
    EXPECT_EQ(exchange_rounds(y, 3), "");
  });
  while (x.ranks() < 2) static_cast<void>(x.grow(2, {}));
  EXPECT_EQ(exchange_rounds(x, 3), "");
  comes.join();
}

/// A number of each expert and column.
float number_of(index_t expert, offset_t column) {
  return static_cast<float>(expert) * 1000.0f + static_cast<float>(column);
}

TEST(Across, Battery11_ExpertsMoveInOneExchangeToWhereThePlacementSays) {
  constexpr int experts = 7, width = 5;
  for (int const ranks : {1, 2, 3, 5}) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, seed " << seed);
      placed const before = placed_at_random(ranks, experts, 2, seed),
                   after = placed_at_random(ranks, experts, 3, seed + 77);
      on_threads(ranks, [&](rank_threads& x) {
        across_report moved;
        among_ranks<rank_threads> const among{
            .transport = x, .placement = after.view_of(), .report = &moved};
        auto const had = before.of(x.rank()), gets = after.of(x.rank());
        guarded<float> from(had.size() * width), to(gets.size() * width);
        for (std::size_t i = 0; i < from.size(); ++i) {
          from[i] = number_of(had[i / width], static_cast<offset_t>(i % width));
        }
        guarded<std::byte> work(
            move_experts_scratch_bytes(among, before.view_of(), width * sizeof(float)));
        status const done = move_experts(among, before.view_of(), from.as(had.size(), width),
                                         to.as(gets.size(), width), work);
        ASSERT_TRUE(done.ok()) << done.message();
        offset_t comes = 0;
        for (std::size_t i = 0; i < to.size(); ++i) {
          EXPECT_EQ(to[i], number_of(gets[i / width], static_cast<offset_t>(i % width)));
        }
        for (index_t e : gets) comes += std::count(had.begin(), had.end(), e) == 0 ? 1 : 0;
        EXPECT_EQ(moved.rounds, 2);             // a gather and an exchange
        EXPECT_EQ(moved.rows_received, comes);  // what a rank has is not sent to it
        EXPECT_EQ(moved.bytes_received, comes * width * offset_t{sizeof(float)});
      });
    }
  }
}

TEST(Across, MovingExpertsRefusesOnAllRanks) {
  placed const p = placed_evenly(2, 4), more = placed_evenly(2, 5);
  on_threads(2, [&](rank_threads& x) {
    among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
    guarded<float> from(6), to(6);
    std::fill(to.begin(), to.end(), 7.0f);
    guarded<std::byte> work(move_experts_scratch_bytes(among, p.view_of(), 12));
    auto const moves = [&](placed const& before, offset_t rows, guarded<std::byte>& with) {
      return move_experts(among, before.view_of(), from.as(rows, 3), to.as(2, 3), with);
    };
    expect_error(moves(p, x.rank() == 1 ? 1 : 2, work), error::bad_shape,
                 "rank 1: move_experts.from: extent 0 is 1; it must be 2 (places of this rank "
                 "before)");
    guarded<std::byte> small(x.rank() == 0 ? work.size() / 2 : work.size());
    EXPECT_EQ(moves(p, 2, small).code(), error::arena_too_small);
    if (x.rank() == 0) from = guarded<float>(9);  // it has three of the five experts
    guarded<std::byte> of_more(move_experts_scratch_bytes(among, more.view_of(), 12));
    expect_error(moves(more, x.rank() == 0 ? 3 : 2, of_more), error::bad_argument,
                 "rank 0: move_experts.before: it has 5 experts; it must have 4 (placement)");
    for (float is : to) EXPECT_EQ(is, 7.0f);
  });
}

}  // namespace across_grow_test
}  // namespace shunt::test
