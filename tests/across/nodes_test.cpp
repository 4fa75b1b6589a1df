// Two NUMA nodes, simulated: a rank and a runner for each. See docs/numa.md.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/across_layer.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_nodes_test {

/// A node's pool: threads of its own for each call, and which node the calling thread belongs to.
class node_pool {
 public:
  static inline thread_local int here = -1;

  explicit node_pool(int node) : node_(node), runner_{this, 2, run} {}
  node_pool(node_pool const&) = delete;
  node_pool& operator=(node_pool const&) = delete;
  [[nodiscard]] on_host policy() const { return {.runner = &runner_}; }
  [[nodiscard]] int calls() const { return calls_; }

 private:
  static void run(void* self, int workers, void (*body)(void*, int), void* context) {
    auto& pool = *static_cast<node_pool*>(self);
    ++pool.calls_;
    std::vector<std::thread> threads;
    for (int w = 0; w < workers; ++w) {
      threads.emplace_back([&, w] {
        here = pool.node_;
        body(context, w);
      });
    }
    for (std::thread& t : threads) t.join();
  }
  int node_;
  std::atomic<int> calls_{0};
  host_runner runner_;
};

/// silu, which counts the values that each node computes.
struct noting {
  static constexpr bool gated = false;
  std::atomic<int>* met = nullptr;  // [2] by node
  [[nodiscard]] float value(float x) const {
    if (node_pool::here >= 0) ++met[node_pool::here];
    return math::product(math::sigmoid(x), x);
  }
  [[nodiscard]] slope_of_one slope(float x) const {
    float const s = math::sigmoid(x);
    return {math::product(s, x), math::fma(math::product(x, 1.0f - s), s, s)};
  }
};

TEST(AcrossNodes, EachRunnerMultipliesWithItsOwnExperts) {
  constexpr index_t T = 40, H = 16, I = 32, E = 6;
  auto const x = normal_values<float>(T * H, 1, 1.0), gate = normal_values<float>(E * H, 2, 0.5),
             up = normal_values<float>(E * I * H, 3, 0.3),
             down = normal_values<float>(E * H * I, 4, 0.3);
  std::atomic<int> met[2] = {}, met_whole[2] = {};
  moe_weights<float> const weights{
      .gate = gate.as(E, H), .up = up.as(E, I, H), .down = down.as(E, H, I)};
  layer_options<noting> options{.top_k = 2, .act = {met_whole}};
  guarded<float> whole(T * H), y(T * H);
  guarded<std::byte> work(moe_layer_scratch_bytes(on_host{.threads = 1}, T, weights, options));
  ASSERT_TRUE(
      moe_layer(on_host{.threads = 1}, x.as(T, H), weights, whole.as(T, H), arena<>(work), options)
          .ok());

  // All tokens are on node 0; experts 0 to 3 there, 4 and 5 on node 1.
  options.act.met = met;
  placed const p{.start = {0, 4, 6}, .expert = {0, 1, 2, 3, 4, 5}, .experts = E};
  node_pool pools[2] = {node_pool(0), node_pool(1)};
  std::vector<index_t> counts(E);
  on_threads(2, [&](rank_threads& transport) {
    int const r = transport.rank();
    among_ranks<rank_threads> const among{
        .transport = transport, .placement = p.view_of(), .most_tokens = T};
    auto mine = weights;
    mine.up = weights.up.slice(p.start[std::size_t(r)], among.placement.on_rank(r));
    mine.down = weights.down.slice(p.start[std::size_t(r)], among.placement.on_rank(r));
    index_t const tokens = r == 0 ? T : 0;
    on_host const on = pools[r].policy();
    guarded<std::byte> bytes(moe_layer_across_scratch_bytes(on, among, tokens, mine, options));
    moe_across_outputs<float> out;
    if (r == 0) out.route.counts = counts;
    status const done = moe_layer_across(on, among, x.as(T, H).slice(0, tokens), mine,
                                         y.as(T, H).slice(0, tokens), out, arena<>(bytes), options);
    EXPECT_TRUE(done.ok()) << done.message();
  });
  EXPECT_TRUE(same_bits(y, whole));
  int rows[2] = {};
  for (index_t e = 0; e < E; ++e) rows[e < 4 ? 0 : 1] += counts[std::size_t(e)];
  EXPECT_EQ(rows[0] + rows[1], 2 * T);
  EXPECT_GT(rows[1], 0);
  // Activations are computed where the rows are multiplied: I of them for each row of a node's experts.
  EXPECT_EQ(met[0], rows[0] * I);
  EXPECT_EQ(met[1], rows[1] * I);
  EXPECT_GT(pools[1].calls(), 0);
}

}  // namespace across_nodes_test
}  // namespace shunt::test
