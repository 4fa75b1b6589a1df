// The layer over processes: the bits of one, and ranks that are killed at any stage of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "shunt/across/recover.hpp"
#include "support/across_layer.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_processes_layer_test {

on_host const one{.threads = 1};

TEST(Across, ProcessesHaveTheBitsOfOneProcess) {
  for (char const* name : {"olmoe", "gpt_oss", "llama4", "kimi_k3"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 96;
    layer_setup<float> const s(c);
    layer_run<float> whole(one, s, s.options());
    for (int const ranks : {2, 3}) {
      placed const p = placed_at_random(ranks, s.is.f.local(), 1, std::uint64_t(ranks));
      std::vector<int> tokens(std::size_t(ranks), 32);
      tokens.back() = 96 - 32 * (ranks - 1);
      expect_all_good(on_processes(
          ranks,
          [&](rank_processes& x) {
            rank_of_layer<float> part(s, p, tokens, x.rank());
            part.run(x, one, s.options());
            EXPECT_EQ(part.difference(whole), "");
            return true;
          },
          milliseconds(60000), 1 << 12));
    }
  }
}

/// Ends the process by kill -9 after so many stages.
struct end_after {
  int stages = 0;
  static void stage(void* self, char const*) {
    if (--static_cast<end_after*>(self)->stages == 0) kill(getpid(), SIGKILL);
  }
};

/// One rank of three dies at a stage; the others name it, recover, share its experts and the batch, and repeat.
void lose_one(layer_setup<float> const& s, layer_run<float>& whole, int seed) {
  constexpr int ranks = 3;
  int const victim = seed % ranks, stage = 1 + seed * 5 % 33;  // forward and backward have some 40
  placed const p = placed_at_random(ranks, s.is.f.local(), 2, std::uint64_t(seed));
  std::vector<int> const tokens{20, 4, 16};
  auto const ends = on_processes(
      ranks,
      [&](rank_processes& x) {
        auto o = s.options();
        end_after end{stage};
        if (x.rank() == victim) o.hook = {&end, end_after::stage};
        rank_of_layer<float> part(s, p, tokens, x.rank());
        part.run(x, one, o);
        status failed = part.forward.ok() ? part.backward : part.forward;
        if (failed.ok()) {  // the rank died after its last exchange: the next call finds it
          int in = 0, out[ranks];
          failed = x.all_gather(&in, out, sizeof in);
        }
        std::string const name = "rank " + std::to_string(victim) + " of 3 died or left";
        EXPECT_EQ(failed.code(), error::peer);
        EXPECT_NE(std::string(failed.message()).find(name), std::string::npos) << failed.message();

        std::uint8_t survives[ranks];
        among_ranks<rank_processes> const among{.transport = x, .placement = p.view_of()};
        status const again = recover(among, view<std::uint8_t, 1>(survives, ranks));
        EXPECT_TRUE(again.ok()) << again.message();
        placed q{.start = std::vector<index_t>(ranks), .expert = p.expert, .experts = p.experts};
        expert_placement after;
        EXPECT_TRUE(place_on_survivors(p.view_of(), view<std::uint8_t const, 1>(survives, ranks),
                                       view<index_t, 1>(q.start), view<index_t, 1>(q.expert), after)
                        .ok());
        q.expert.resize(std::size_t(after.places()));
        std::vector<int> const shared{17, 23};
        rank_of_layer<float> repeated(s, q, shared, x.rank());
        repeated.run(x, one, s.options());
        EXPECT_EQ(repeated.difference(whole), "");
        return true;
      },
      milliseconds(20000), 1 << 12);
  for (int r = 0; r < ranks; ++r) {
    int const how = ends[std::size_t(r)];
    if (r == victim) {
      EXPECT_TRUE(WIFSIGNALED(how)) << "stage " << stage << " was never reached";
    } else {
      EXPECT_TRUE(WIFEXITED(how) && WEXITSTATUS(how) == 0) << "rank " << r;
    }
  }
}

TEST(Across, ARankKilledAtAnyStageCostsTheStepAndNothingElse) {
  layer_case c = family("deepseek_v3");
  c.f.tokens = 40;
  layer_setup<float> const s(c);
  layer_run<float> whole(one, s, s.options());
  char const* const wanted = std::getenv("SHUNT_TEST_KILLS");
  int const kills = wanted != nullptr ? std::atoi(wanted) : 20;
  for (int seed = 0; seed < kills && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    lose_one(s, whole, seed);
  }
}

}  // namespace across_processes_layer_test
}  // namespace shunt::test
