// What every exchange promises, on threads: the values, sizes that do not fit, a rank that leaves or is late.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>

#include "support/exchange_case.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_transports_test {

TEST(Across, AloneIsAnExchange) {
  alone x;
  EXPECT_EQ(exchange_rounds(x, 20), "");
}

TEST(Across, ThreadsMoveWhatTheyWereGiven) {
  for (int ranks : {1, 2, 3, 5, 8, 32}) {
    SCOPED_TRACE(ranks);
    on_threads(ranks, [&](rank_threads& x) {
      std::string const wrong = exchange_rounds(x, small_scale() || ranks > 8 ? 4 : 12);
      EXPECT_EQ(wrong, "");
    });
  }
}

TEST(Across, GatheringOtherSizesIsOneSentenceOnAllRanks) {
  on_threads(3, [](rank_threads& x) {
    char const in[8] = {};
    char out[24];
    status const done = x.all_gather(in, out, x.rank() == 1 ? 8 : 4);
    EXPECT_EQ(std::string(done.message()),
              "all_gather: rank 1 brings 8 bytes and rank 0 4; all must bring as many");
  });
}

TEST(Across, RowsThatNobodyExpectsAreRefused) {
  on_threads(2, [](rank_threads& x) {
    char const send[4] = {};
    char recv[8];
    offset_t const sent[] = {0, 1, 3}, wrong[] = {0, 1, 2};  // rank 0 sends rank 1 two rows
    offset_t const from[] = {0, 0, 1}, expected[] = {0, 1, 2};
    bool const first = x.rank() == 0;
    exchange_rows const rows{send, recv, 1, view<offset_t const, 1>(first ? sent : from, 3),
                             view<offset_t const, 1>(first ? wrong : expected, 3)};
    ASSERT_TRUE(x.begin(rows).ok());
    status const done = x.finish();
    if (first) return;
    expect_error(
        done, error::bad_argument,
        "finish: rank 0 sends other rows in exchange 0 than this rank expects; their counts "
        "and bytes must agree");
  });
}

TEST(Across, BeginChecksItsRows) {
  alone x;
  offset_t const start[] = {0, 2}, other[] = {0, 1};
  char data[4];
  expect_error(x.begin({data, data + 2, 1, view<offset_t const, 1>(start, 2),
                        view<offset_t const, 1>(other, 2)}),
               error::bad_argument,
               "alone.begin.rows: 2 rows go to the rank itself and 1 come from it; they must be as "
               "many");
  expect_error(
      x.begin({data, data + 2, 1, view<offset_t const, 1>(start, 1),
               view<offset_t const, 1>(other, 2)}),
      error::bad_shape,
      "alone.begin.rows: send_start has extent 1 and recv_start 2; both must be 2 (ranks + "
      "1)");
}

TEST(Across, Battery05_ARankThatLeavesIsNamedByTheOthers) {
  for (int leaving : {0, 1, 3}) {
    SCOPED_TRACE(leaving);
    on_threads(4, [&](rank_threads& x) {
      int in = x.rank(), out[4];
      ASSERT_TRUE(x.all_gather(&in, out, sizeof in).ok());
      if (x.rank() == leaving) return;
      status const done = x.all_gather(&in, out, sizeof in);
      EXPECT_EQ(done.code(), error::peer);
      EXPECT_EQ(std::string(done.message()),
                "rank " + std::to_string(leaving) + " of 4 died or left");
    });
  }
}

TEST(Across, Battery14_ALateRankIsNamedAfterTheDeadline) {
  std::atomic<int> done{0};
  on_threads(
      3,
      [&](rank_threads& x) {
        int in = 7, out[3];
        if (x.rank() == 2) {
          while (done.load() < 2) std::this_thread::yield();
          EXPECT_EQ(x.all_gather(&in, out, sizeof in).code(), error::peer);
          return;
        }
        auto const started = std::chrono::steady_clock::now();
        status const met = x.all_gather(&in, out, sizeof in);
        auto const took = std::chrono::steady_clock::now() - started;
        EXPECT_EQ(met.code(), error::peer);
        EXPECT_EQ(std::string(met.message()), "rank 2 has not answered for 100 ms");
        EXPECT_GE(took, milliseconds(100));
        EXPECT_LT(took, milliseconds(10000));
        ++done;
      },
      milliseconds(100));
}

TEST(Across, Battery14_ARankThatIsLateButInTimeIsWaitedFor) {
  on_threads(3, [](rank_threads& x) {
    if (x.rank() == 1) std::this_thread::sleep_for(milliseconds(50));
    EXPECT_EQ(exchange_rounds(x, 2), "");
  });
}

TEST(Across, WhoIsLeftRecoversAndGoesOn) {
  for (int lost : {0, 2, 4}) {
    SCOPED_TRACE(lost);
    on_threads(5, [&](rank_threads& x) {
      EXPECT_EQ(exchange_rounds(x, 2), "");
      int const before = x.rank();
      if (before == lost) return;
      int in = before, out[5];
      EXPECT_EQ(x.all_gather(&in, out, sizeof in).code(), error::peer);
      std::uint8_t survives[5];
      status const done = x.recover(view<std::uint8_t, 1>(survives, 5));
      ASSERT_TRUE(done.ok()) << done.message();
      for (int r = 0; r < 5; ++r) EXPECT_EQ(survives[r] != 0, r != lost);
      EXPECT_EQ(x.ranks(), 4);
      EXPECT_EQ(x.rank(), before - (before > lost ? 1 : 0));  // ranks keep their order
      EXPECT_EQ(exchange_rounds(x, 5), "");
    });
  }
}

TEST(Across, ARankThatComesAfterTheDeadlineIsLeftOut) {
  std::atomic<int> done{0};
  on_threads(
      3,
      [&](rank_threads& x) {
        int in = 0, out[3];
        std::uint8_t survives[3];
        if (x.rank() == 0) {
          while (done.load() < 2) std::this_thread::yield();
          EXPECT_EQ(x.all_gather(&in, out, sizeof in).code(), error::peer);
          status const late = x.recover(view<std::uint8_t, 1>(survives, 3));
          EXPECT_EQ(late.code(), error::peer);
          EXPECT_NE(std::string(late.message()).find("went on without it"), std::string::npos);
          return;
        }
        EXPECT_EQ(x.all_gather(&in, out, sizeof in).code(), error::peer);
        EXPECT_TRUE(x.recover(view<std::uint8_t, 1>(survives, 3)).ok());
        EXPECT_EQ(x.ranks(), 2);
        ++done;
        while (done.load() < 2) std::this_thread::yield();
        EXPECT_EQ(exchange_rounds(x, 3), "");
      },
      milliseconds(200));
}

TEST(Across, Battery08_OffsetsPastTwoToThe32Bytes) {
  std::size_t const row = std::size_t{1} << 20,
                    far = 5000;  // rows of 1 MiB, 5 GB on: never touched
  on_threads(2, [&](rank_threads& x) {
    std::size_t const mapped = row * (far + 2);
    void* const memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* const bytes = static_cast<std::uint8_t*>(memory);
    int const other = 1 - x.rank();
    auto const at = static_cast<offset_t>(far);
    // One row to the other rank, none to oneself; it comes to the row behind.
    offset_t const sent[] = {at, at + (other == 0 ? 1 : 0), at + 1};
    offset_t const came[] = {at + 1, at + 1 + (other == 0 ? 1 : 0), at + 2};
    std::memset(bytes + row * far, 11 + x.rank(), row);
    ASSERT_TRUE(x.begin({bytes, bytes, row, view<offset_t const, 1>(sent, 3),
                         view<offset_t const, 1>(came, 3)})
                    .ok());
    status const done = x.finish();
    EXPECT_TRUE(done.ok()) << done.message();
    EXPECT_EQ(bytes[row * (far + 1)], 11 + other);
    EXPECT_EQ(bytes[row * (far + 2) - 1], 11 + other);
    munmap(memory, mapped);
  });
}

TEST(Across, Battery09_TwoExchangesInTwoOrdersEndAtTheDeadline) {
  rank_threads_table one(2), two(2);
  status done[2];
  std::thread threads[2];
  for (int r = 0; r < 2; ++r) {
    threads[r] = std::thread([&, r] {
      rank_threads a(one, r, milliseconds(100)), b(two, r, milliseconds(100));
      int in = r, out[2];
      done[r] = (r == 0 ? a : b).all_gather(&in, out, sizeof in);
      if (done[r].ok()) done[r] = (r == 0 ? b : a).all_gather(&in, out, sizeof in);
    });
  }
  for (std::thread& t : threads) t.join();
  for (status const& s : done) EXPECT_EQ(s.code(), error::peer) << s.message();
}

}  // namespace across_transports_test
}  // namespace shunt::test
