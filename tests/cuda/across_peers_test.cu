// The layer across ranks that see each other's memory: the bits of one process; captured in graphs, and replayed with
// other tokens, which choose other experts.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/device_across.hpp"
#include "support/exchange_case.hpp"
#include "support/expect_error.hpp"
#include "support/peer_ranks.hpp"
#include "support/staged_exchange.hpp"

namespace shunt::test {
namespace across_peers_test {

constexpr std::size_t room = std::size_t{1} << 18;

void expect_same(char const* name, int ranks, memory_mode memory, int copies, std::uint64_t seed) {
  SCOPED_TRACE(std::string(name) + " on " + std::to_string(ranks));
  layer_case c = family(name);
  c.f.tokens = c.f.balance > 0 ? 83 : 29;
  layer_setup<float> const s(c);
  auto o = s.options();
  o.memory = memory;
  guarded<index_t> counts(std::size_t(c.f.experts));
  guarded<float> importance(std::size_t(c.f.experts)), loss(2);
  moe_outputs<float> out;
  out.route.counts = counts.as(c.f.experts);
  out.route.importance = importance.as(c.f.experts);
  out.loss = loss.as(2);
  layer_run<float> whole(on_host{.threads = 1}, s, o, true, out);
  ASSERT_TRUE(whole.backward.ok()) << whole.forward.message() << whole.backward.message();
  placed const p = placed_at_random(ranks, s.is.f.local(), copies, seed);
  std::vector<int> tokens = tokens_by_rank(ranks, c.f.tokens, false, seed);
  if (c.f.balance > 0) tokens = ranks == 2 ? std::vector<int>{64, 19} : std::vector<int>{32, 0, 51};
  on_peers(ranks, room, [&](peers& x, cudaStream_t stream) {
    device_rank_of_layer<float> part(s, p, tokens, x.rank());
    part.run_on_device(x, {stream}, o);
    EXPECT_EQ(part.difference(whole), "") << "rank " << x.rank();
    EXPECT_TRUE(same_bits(part.counts, counts));
    if (c.f.balance == 0) return;
    EXPECT_TRUE(same_bits(part.importance, importance));
    EXPECT_EQ(std::memcmp(&part.loss[0], &loss[0], sizeof(float)), 0);
  });
}

TEST(CudaAcross, PeersMoveWhatTheyWereGiven) {
  for (int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    on_peers(ranks, 1 << 14, [](peers& x, cudaStream_t stream) {
      staged_exchange<peers> rows(x, stream);
      EXPECT_EQ(exchange_rounds(rows, 6), "");
    });
  }
}

TEST(CudaAcross, PeersRefuseWhatDoesNotFit) {
  on_peers(1, 256, [](peers& x, cudaStream_t) {
    std::string const must = std::to_string(peers::window_bytes(300)),
                      is = std::to_string(peers::window_bytes(256));
    expect_error(x.all_gather(nullptr, nullptr, 300), error::arena_too_small,
                 "over_peers.window_bytes is " + is + "; it must be " + must + " or more");
    offset_t const start[] = {0, 1};
    view<offset_t const, 1> const one(start, 2);
    expect_error(x.begin({nullptr, nullptr, 1, one, one}), error::null_pointer,
                 "over_peers.begin.rows: send_there or recv_there is null; both must be given");
  });
  rank_threads_table table(1);
  rank_threads host(table, 0);
  peers const none(host, {}, 0, nullptr);
  expect_error(none.room(0), error::bad_shape,
               "over_peers.windows: extent 0 is 0; it must be 1 (ranks), at most 32");
}

TEST(CudaAcross, PeersHaveTheBitsOfOneProcess) {
  expect_same("deepseek_v3", 2, memory_mode::save, 0, 1);
  expect_same("gpt_oss", 3, memory_mode::recompute, 2, 2);
  expect_same("llama4", 3, memory_mode::save, 0, 3);
  expect_same("gshard", 3, memory_mode::save, 3, 4);
  expect_same("switch", 2, memory_mode::save, 0, 5);
  expect_same("longcat", 3, memory_mode::recompute, 0, 6);
}

// One capture of forward and backward on each rank; each replay has other tokens.
TEST(CudaAcross, Battery10_CapturedOnceAndReplayedWithOtherTokens) {
  constexpr int ranks = 3, replays = 3;
  layer_case c = family("deepseek_v3");
  c.f.tokens = 30;
  std::vector<std::unique_ptr<layer_setup<float>>> setups;
  std::vector<std::unique_ptr<layer_run<float>>> wholes;
  for (int i = 0; i < replays; ++i) {
    setups.push_back(std::make_unique<layer_setup<float>>(c));
    layer_setup<float>& s = *setups.back();
    auto const x = normal_values<float>(s.x.size(), 100 + static_cast<std::uint64_t>(i));
    // The last time all tokens are one, so that few ranks get all rows.
    for (std::size_t at = 0; at < s.x.size(); ++at) {
      s.x[at] = x[i == replays - 1 ? at % static_cast<std::size_t>(c.f.width) : at];
    }
    wholes.push_back(std::make_unique<layer_run<float>>(on_host{.threads = 1}, s, s.options()));
  }
  layer_setup<float> const first(c);
  placed const p = placed_at_random(ranks, first.is.f.local(), 0, 8);
  std::vector<int> const tokens{11, 0, 19};
  on_peers(ranks, room, [&](peers& x, cudaStream_t stream) {
    device_rank_of_layer<float> part(first, p, tokens, x.rank());
    auto const at = static_cast<std::size_t>(part.first_token() * c.f.width);
    part.run_on_device(
        x, {stream}, first.options(), call_form::whole, true,
        [&](auto const& enqueue, auto const& bring, float* there) {
          cudaGraph_t graph{};
          cudaGraphExec_t exec{};
          // Nobody may wait for the whole device while another rank captures.
          ASSERT_TRUE(x.host().all_gather(nullptr, nullptr, 0).ok());
          ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
          enqueue();
          ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
          ASSERT_TRUE(x.host().all_gather(nullptr, nullptr, 0).ok());
          ASSERT_TRUE(part.backward.ok()) << part.forward.message() << part.backward.message();
          ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
          for (int i = 0; i < replays; ++i) {
            auto const& s = *setups[static_cast<std::size_t>(i)];
            if (part.y.size() > 0) {
              ASSERT_EQ(cudaMemcpy(there, s.x.data() + at, part.y.size() * sizeof(float),
                                   cudaMemcpyHostToDevice),
                        cudaSuccess);
            }
            ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
            bring();
            EXPECT_EQ(part.difference(*wholes[static_cast<std::size_t>(i)]), "")
                << "rank " << x.rank() << ", replay " << i;
          }
          EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
          EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
        });
  });
}

TEST(CudaAcross, PeersAgreeWhenACallIsEnqueued) {
  layer_case c = family("mixtral");
  c.f.tokens = 12;
  layer_setup<float> const s(c);
  placed const p = placed_evenly(3, s.is.f.local());
  std::vector<int> const tokens{4, 4, 4};
  auto const expect = [&](std::string const& sentence, std::size_t bytes, auto const& change) {
    SCOPED_TRACE(sentence);
    std::string said[3];
    on_peers(3, bytes, [&](peers& x, cudaStream_t stream) {
      device_rank_of_layer<float> part(s, p, tokens, x.rank());
      auto o = s.options();
      if (x.rank() == 1) change(o);
      part.run_on_device(x, {stream}, o);
      said[x.rank()] = part.forward.message();
      EXPECT_EQ(part.traffic.rounds, 1);
      EXPECT_TRUE(part.untouched_on_device);
    });
    for (std::string const& one : said) EXPECT_EQ(one, sentence);
  };
  expect("moe_layer_across.options.top_k: rank 1 has 1 and rank 0 2; all ranks must have the same",
         room, [](auto& o) { o.top_k = 1; });
  std::string const must = std::to_string(peers::window_bytes(3 * 12 * 2 * 19 * 4)),
                    is = std::to_string(peers::window_bytes(256));
  expect("rank 0: moe_layer_across: over_peers.window_bytes is " + is + "; it must be " + must +
             " or more",
         256, [](auto&) {});
}

}  // namespace across_peers_test
}  // namespace shunt::test
