// Sums over ranks: in rank order, and the norm of all gradients, the same bits on any number of ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "shunt/across/recover.hpp"
#include "shunt/across/sum.hpp"
#include "support/across_case.hpp"
#include "support/expect_error.hpp"
#include "support/guarded.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_sum_test {

TEST(Across, SumsAreInRankOrder) {
  int const ranks = 5, count = 40000;  // more than one piece
  std::vector<guarded<float>> in;
  for (int r = 0; r < ranks; ++r)
    in.push_back(normal_values<float>(count, 3 + std::uint64_t(r), 1e3));
  on_threads(ranks, [&](rank_threads& x) {
    placed const p = placed_evenly(ranks, 5);
    among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
    guarded<float> mine(in[std::size_t(x.rank())]);
    guarded<std::byte> work(sum_across_scratch_bytes(among, count));
    status const done = sum_across(among, mine.as(count), arena<>(work));
    ASSERT_TRUE(done.ok()) << done.message();
    for (std::size_t i = 0; i < std::size_t(count); ++i) {
      float const want = (((in[0][i] + in[1][i]) + in[2][i]) + in[3][i]) + in[4][i];
      ASSERT_EQ(mine[i], want) << i;
    }
    guarded<std::byte> little(64);
    expect_error(
        sum_across(among, mine.as(count), arena<>(little)), error::arena_too_small,
        "sum_across.work: the arena has 64 bytes; it must have 327744 (ask an arena that is "
        "measuring)");
  });
}

TEST(Across, Battery07_TheNormCountsEveryExpertOnceWhereverItLives) {
  int const experts = 7, up = 33, down = 20;
  auto const of_up = normal_values<float>(std::size_t(experts * up), 1, 2.0),
             of_down = normal_values<float>(std::size_t(experts * down), 2, 0.5),
             gate = normal_values<float>(50, 3);
  double squares = 0.0;
  for (auto const* list : {&of_up, &of_down, &gate}) {
    for (float v : *list) squares += double(v) * double(v);
  }
  double first = 0.0;
  for (int const ranks : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(ranks);
    placed const p = ranks == 1 ? placed_evenly(1, experts)
                                : placed_at_random(ranks, experts, 4, std::uint64_t(ranks));
    std::vector<double> norms(std::size_t(ranks), -1.0);
    on_threads(ranks, [&](rank_threads& x) {
      std::vector<index_t> const own = p.of(x.rank());
      guarded<float> a(own.size() * up), b(own.size() * down);
      for (std::size_t i = 0; i < own.size(); ++i) {
        std::copy_n(of_up.data() + own[i] * up, up, a.data() + i * up);
        std::copy_n(of_down.data() + own[i] * down, down, b.data() + i * down);
      }
      view<float const, 2> const lists[] = {a.as(own.size(), up), b.as(own.size(), down)};
      view<float const, 1> const whole[] = {gate.as(50)};
      among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
      guarded<std::byte> work(gradient_norm_across_scratch_bytes(among, 2));
      status const done = gradient_norm_across(among,
                                               {view<view<float const, 2> const, 1>(lists, 2),
                                                view<view<float const, 1> const, 1>(whole, 1)},
                                               norms[std::size_t(x.rank())], arena<>(work));
      ASSERT_TRUE(done.ok()) << done.message();
    });
    if (ranks == 1) first = norms[0];
    for (double const n : norms) EXPECT_EQ(n, first);
  }
  EXPECT_NEAR(first, std::sqrt(squares), 1e-12 * std::sqrt(squares));
}

TEST(Across, ExpertsOfALostRankGoToTheLeastLoaded) {
  placed const p{.start = {0, 3, 6, 8}, .expert = {0, 1, 4, 2, 4, 5, 3, 6}, .experts = 7};
  std::uint8_t const survives[] = {1, 0, 1};
  index_t start[3], expert[8];
  expert_placement after;
  status const done =
      place_on_survivors(p.view_of(), view<std::uint8_t const, 1>(survives, 3),
                         view<index_t, 1>(start, 3), view<index_t, 1>(expert, 8), after);
  ASSERT_TRUE(done.ok()) << done.message();
  // 4 has a copy on rank 0; 2 goes to rank 2 (two places), 5 to rank 0 (three each).
  EXPECT_EQ(std::vector<index_t>(start, start + 3), (std::vector<index_t>{0, 4, 7}));
  EXPECT_EQ(std::vector<index_t>(expert, expert + 7), (std::vector<index_t>{0, 1, 4, 5, 2, 3, 6}));
  EXPECT_EQ(after.places(), 7);
  EXPECT_TRUE(check::placement("test", after, 2).ok());
  std::uint8_t const none[] = {0, 0, 0};
  expect_error(place_on_survivors(p.view_of(), view<std::uint8_t const, 1>(none, 3),
                                  view<index_t, 1>(start, 3), view<index_t, 1>(expert, 8), after),
               error::bad_argument,
               "place_on_survivors.survives: no rank is left; it must be 1 or more");
  for (std::uint64_t seed = 1; seed < 40; ++seed) {
    placed const q = placed_at_random(4, 11, 3, seed);
    std::uint8_t const left[] = {1, seed % 2 == 0, 1, seed % 3 == 0};
    int const ranks = 2 + left[1] + left[3];
    std::vector<index_t> s(std::size_t(ranks) + 1), e(q.expert.size());
    ASSERT_TRUE(place_on_survivors(q.view_of(), view<std::uint8_t const, 1>(left, 4),
                                   view<index_t, 1>(s), view<index_t, 1>(e), after)
                    .ok());
    status const good = check::placement("test", after, ranks);
    EXPECT_TRUE(good.ok()) << good.message();
  }
}

}  // namespace across_sum_test
}  // namespace shunt::test
