// A process that joins where one died: the bits of one process before, between and after.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "shunt/across/grow.hpp"
#include "support/across_layer.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_processes_grow_test {

on_host const one{.threads = 1};

/// What a process that comes must be told: in the memory that all of them see.
struct told {
  int step;
  index_t places;
  index_t start[4], expert[64];
};

/// A step of the layer; what differs from one process.
std::string step(rank_processes& x, layer_setup<float> const& s, placed const& placement,
                 std::vector<int> const& tokens, layer_run<float>& whole) {
  rank_of_layer<float> part(s, placement, tokens, x.rank());
  part.run(x, one, s.options());
  return part.difference(whole);
}

/// Experts' rows of one tensor, of a rank.
std::vector<float> rows_of(guarded<float> const& all, std::vector<index_t> const& experts,
                           std::size_t each) {
  std::vector<float> rows;
  for (index_t e : experts) {
    auto const* const from = all.data() + static_cast<std::size_t>(e) * each;
    rows.insert(rows.end(), from, from + each);
  }
  return rows;
}

/// Brings the weights from where they were, and compares them with the setup's.
void bring(rank_processes& x, layer_setup<float> const& s, placed const& before,
           placed const& after) {
  layer_formula const& f = s.is.f;
  among_ranks<rank_processes> const among{.transport = x, .placement = after.view_of()};
  std::size_t const H = static_cast<std::size_t>(f.hidden),
                    N = static_cast<std::size_t>(f.halves() * f.intermediate);
  for (auto const& [all, each] : {std::pair{&s.up, N * H}, {&s.down, H * N / 2}}) {
    auto const had = before.of(x.rank()), gets = after.of(x.rank());
    std::vector<float> from = rows_of(*all, had, each), to(gets.size() * each);
    std::vector<std::byte> work(
        move_experts_scratch_bytes(among, before.view_of(), each * sizeof(float)));
    offset_t const columns = static_cast<offset_t>(each);
    status const done =
        move_experts(among, before.view_of(),
                     view<float const, 2>(from.data(), static_cast<offset_t>(had.size()), columns),
                     view<float, 2>(to.data(), static_cast<offset_t>(gets.size()), columns), work);
    EXPECT_TRUE(done.ok()) << done.message();
    EXPECT_EQ(to, rows_of(*all, gets, each));
  }
}

/// Three processes, of which the second dies; two go on; a third comes, and is one of three again.
TEST(Across, Battery16_AGroupThatShrankGrowsBack) {
  layer_case c = family("olmoe");
  c.f.tokens = 40;
  layer_setup<float> const s(c);
  layer_run<float> whole(one, s, s.options());
  placed const three = placed_evenly(3, s.is.f.local()),
               again = placed_at_random(3, s.is.f.local(), 1, 5);
  rank_processes_table table(3, 1 << 12);
  ASSERT_TRUE(table.ok());
  std::vector<int> const of_three{20, 4, 16}, of_two{17, 23};

  auto const grown = [&](rank_processes& x, placed const& before) {  // alike on all three
    told mine{}, all[3];
    mine.places = static_cast<index_t>(before.expert.size());
    std::copy(before.start.begin(), before.start.end(), mine.start);
    std::copy(before.expert.begin(), before.expert.end(), mine.expert);
    EXPECT_TRUE(x.all_gather(&mine, all, sizeof mine).ok());
    placed from{.start = {},
                .expert = {all[0].expert, all[0].expert + all[0].places},
                .experts = s.is.f.local()};
    from.start.assign(all[0].start, all[0].start + 4);
    bring(x, s, from, again);
    EXPECT_EQ(step(x, s, again, of_three, whole), "");
  };
  auto const member = [&](rank_processes& x) {
    EXPECT_EQ(step(x, s, three, of_three, whole), "");
    if (x.rank() == 1) kill(getpid(), SIGKILL);
    int in = 0, out[3];
    EXPECT_EQ(x.all_gather(&in, out, sizeof in).code(), error::peer);
    std::uint8_t survives[3], came[3];
    among_ranks<rank_processes> const among{.transport = x, .placement = three.view_of()};
    EXPECT_TRUE(recover(among, view<std::uint8_t, 1>(survives, 3)).ok());
    placed two{.start = std::vector<index_t>(3), .expert = three.expert, .experts = three.experts};
    expert_placement after;
    EXPECT_TRUE(place_on_survivors(three.view_of(), view<std::uint8_t const, 1>(survives, 3),
                                   view<index_t, 1>(two.start), view<index_t, 1>(two.expert), after)
                    .ok());
    EXPECT_EQ(step(x, s, two, of_two, whole), "");

    status const more = grow(among, 3, view<std::uint8_t, 1>(came, 3));
    EXPECT_TRUE(more.ok()) << more.message();
    EXPECT_TRUE(came[0] == 0 && came[1] == 1 && came[2] == 0);
    placed with{.start = std::vector<index_t>(4), .expert = two.expert, .experts = two.experts};
    expert_placement before;
    EXPECT_TRUE(place_with_newcomers(two.view_of(), view<std::uint8_t const, 1>(came, 3),
                                     view<index_t, 1>(with.start), before)
                    .ok());
    grown(x, with);
  };
  auto const child = [&](auto const& body) {
    pid_t const id = fork();
    if (id == 0) {
      body();
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    return id;
  };
  std::vector<pid_t> ids;
  for (int seat = 0; seat < 3; ++seat) {
    ids.push_back(child([&] {
      rank_processes x(table, seat, milliseconds(30000));
      member(x);
    }));
  }
  int end = 0;
  waitpid(ids[1], &end, 0);
  EXPECT_TRUE(WIFSIGNALED(end));
  ids[1] = child([&] {  // in the seat of the one that died
    rank_processes x(table, 1, newcomer{}, milliseconds(30000));
    status const in = join(x);
    EXPECT_TRUE(in.ok()) << in.message();
    grown(x, placed{.start = std::vector<index_t>(4), .expert = {}, .experts = 0});
  });
  for (pid_t const id : ids) {
    waitpid(id, &end, 0);
    EXPECT_TRUE(WIFEXITED(end) && WEXITSTATUS(end) == 0);
  }
}

}  // namespace across_processes_grow_test
}  // namespace shunt::test
