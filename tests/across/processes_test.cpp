// Ranks that are processes: the same values, in pieces; and ranks that are killed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "support/exchange_case.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_processes_test {

TEST(Across, ProcessesMoveWhatTheyWereGiven) {
  for (int ranks : {2, 3, 4}) {
    for (std::size_t box : {std::size_t{64}, std::size_t{1} << 16}) {
      SCOPED_TRACE(ranks);
      expect_all_good(on_processes(
          ranks,
          [&](rank_processes& x) {
            std::string const wrong = exchange_rounds(x, box == 64 ? 4 : 12);
            EXPECT_EQ(wrong, "");
            return wrong.empty();
          },
          milliseconds(60000), box));
    }
  }
}

TEST(Across, AProcessThatEndsIsNamed) {
  auto const ends = on_processes(3, [](rank_processes& x) {
    int in = 0, out[3];
    if (!x.all_gather(&in, out, sizeof in).ok()) return false;
    if (x.rank() == 1) _exit(0);  // without a word
    status const done = x.all_gather(&in, out, sizeof in);
    EXPECT_EQ(done.code(), error::peer);
    EXPECT_EQ(std::string(done.message()), "rank 1 of 3 died or left");
    return done.code() == error::peer;
  });
  expect_all_good(ends);
}

/// kill -9 while the ranks exchange, at a time that the seed says; the others name the rank, agree, and go on.
void kill_one(int seed) {
  constexpr int ranks = 3;
  int const victim = seed % ranks;
  shared_values<int> started(ranks), named(ranks), left(ranks);
  auto const ends = on_processes(
      ranks,
      [&](rank_processes& x) {
        auto const me = static_cast<std::size_t>(x.rank());
        started[me] = 1;
        for (;;) {
          std::string const wrong = exchange_rounds(x, 1);
          if (wrong.empty()) continue;
          std::string const name = "rank " + std::to_string(victim) + " of 3 died or left";
          named[me] = wrong.find(name) != std::string::npos ? 1 : 2;
          std::uint8_t survives[ranks];
          status const done = x.recover(view<std::uint8_t, 1>(survives, ranks));
          if (!done.ok() || survives[victim] != 0 || x.ranks() != ranks - 1) return false;
          left[me] = exchange_rounds(x, 5).empty() ? 1 : 2;
          return left[me] == 1;
        }
      },
      milliseconds(20000), 256,
      [&](std::vector<pid_t> const& ids) {
        for (std::size_t r = 0; r < ranks; ++r) {
          while (*const_cast<int volatile*>(&started[r]) == 0) usleep(50);
        }
        usleep(static_cast<useconds_t>(seed * 7919 % 3000));
        kill(ids[static_cast<std::size_t>(victim)], SIGKILL);
      });
  for (int r = 0; r < ranks; ++r) {
    auto const at = static_cast<std::size_t>(r);
    if (r == victim) {
      EXPECT_TRUE(WIFSIGNALED(ends[at]));
      continue;
    }
    EXPECT_TRUE(WIFEXITED(ends[at]) && WEXITSTATUS(ends[at]) == 0) << "rank " << r;
    EXPECT_EQ(named[at], 1) << "rank " << r << " did not name rank " << victim;
    EXPECT_EQ(left[at], 1) << "rank " << r;
  }
}

TEST(Across, AKilledProcessIsNamedAndTheOthersGoOn) {
  char const* const wanted = std::getenv("SHUNT_TEST_KILLS");
  int const kills = wanted != nullptr ? std::atoi(wanted) : 20;
  for (int seed = 0; seed < kills && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    kill_one(seed);
  }
}

}  // namespace across_processes_test
}  // namespace shunt::test
