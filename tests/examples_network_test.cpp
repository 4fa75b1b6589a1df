#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "../examples/support/network.hpp"
#include "support/small_corpus.hpp"

namespace examples_network_test {

/// A network of the library's that is stopped, as by Ctrl-C, at a step of one's wish.
struct stoppable : lm::network<float> {
  using lm::network<float>::network;
  std::int64_t stop_at = -1;
  lm::step_result train(lm::batch const& b, std::int64_t step, lm::expert_load& load) override {
    if (step + 1 == stop_at) std::raise(SIGINT);
    return lm::network<float>::train(b, step, load);
  }
};

template <class Network> std::vector<std::vector<char>> bits(Network const& network) {
  std::vector<std::vector<char>> all;
  for (checkpoint::tensor_source const& t : network.state()) {
    std::uint64_t size = 0;
    EXPECT_TRUE(checkpoint::size_of(t.shape, checkpoint::bits_of_kind(t.kind), size));
    auto const* from = static_cast<char const*>(t.data);
    all.emplace_back(from, from + size);
  }
  return all;
}

class Network : public on_small_corpus {
 protected:
  void SetUp() override {
    on_small_corpus::SetUp();
    settings_.layers = 2;
    settings_.width = 16;
    settings_.heads = 2;
    settings_.kv_heads = 1;
    settings_.intermediate = 8;
    settings_.experts = 4;
    settings_.steps = 24;
    settings_.warm_up = 4;
  }

  /// A run that was stopped and resumed ends with the bits of one that was not, whatever the threads.
  void resumes_bit_for_bit(bool mixed) {
    std::string const name = mixed ? "moe" : "dense";
    stoppable whole(settings_, mixed, {.threads = 1}), first(settings_, mixed, {.threads = 2}),
        second(settings_, mixed, {.threads = 3});
    lm::trainer straight(name, settings_, text_, whole);
    straight.train(folder_ / "straight");
    ASSERT_TRUE(straight.finished());

    first.stop_at = 9;
    lm::trainer stopped(name, settings_, text_, first);
    stopped.train(folder_ / "stopped");
    ASSERT_EQ(stopped.step(), 9);
    EXPECT_NE(bits(first), bits(whole)) << "nothing was learned after step 9: this proves nothing";

    lm::detail::stop_asked = 0;
    lm::trainer resumed(name, settings_, text_, second);
    resumed.resume(folder_ / "stopped");
    EXPECT_EQ(bits(second), bits(first));
    resumed.train(folder_ / "resumed");
    EXPECT_EQ(bits(second), bits(whole));
    EXPECT_EQ(resumed.curves().loss, straight.curves().loss);
    EXPECT_EQ(resumed.curves().eval_bits, straight.curves().eval_bits);
    EXPECT_EQ(resumed.curves().load, straight.curves().load);
    EXPECT_EQ(resumed.evaluate(50).bits_per_byte, straight.evaluate(50).bits_per_byte);
  }
};

TEST_F(Network, ResumesBitForBit) { resumes_bit_for_bit(true); }
TEST_F(Network, ResumesBitForBitWithTheAuxiliaryLoss) {
  settings_.balance = settings_.balance == "aux" ? "bias" : "aux";
  resumes_bit_for_bit(true);
}
TEST_F(Network, ResumesBitForBitWhenDense) { resumes_bit_for_bit(false); }

TEST_F(Network, LearnsAndTimesItsStages) {
  settings_.steps = 60;
  lm::network<float> network(settings_, true, {.threads = 2});
  lm::trainer run("moe", settings_, text_, network);
  run.train(folder_ / "moe");
  EXPECT_NEAR(run.curves().eval_bits.front(), 8.0, 0.1);
  EXPECT_LT(run.curves().eval_bits.back(), 6.0);
  EXPECT_EQ(network.steps_timed(), 60);
  double all = 0;
  for (auto const& [stage, seconds] : network.time()) {
    EXPECT_GE(seconds, 0) << stage;
    all += seconds;
  }
  EXPECT_GT(all, 0.5 * run.step_seconds());
  EXPECT_LE(all, 1.05 * run.step_seconds());
  for (char const* stage : {"experts", "attention", "optimizer"}) {
    EXPECT_EQ(network.time().count(stage), 1u) << stage;
  }
}

TEST_F(Network, CountsEverySlotOfEveryLayer) {
  lm::network<float> network(settings_, true, {.threads = 2});
  lm::batch b;
  lm::training_batch(text_, 1, 0, 4, 16, b);
  lm::expert_load load;
  network.evaluate(b, load);
  ASSERT_EQ(load.size(), 2u);
  for (auto const& layer : load) {
    std::int64_t sum = 0;
    for (std::int64_t count : layer) sum += count;
    EXPECT_EQ(sum, 4 * 16 * settings_.top_k);
  }
  lm::expert_load const uniform = {{5, 5, 5, 5}}, hot = {{20, 0, 0, 0}};
  EXPECT_EQ(network.use_of(uniform).utilization, 1);
  EXPECT_NEAR(network.use_of(uniform).divergence, 0, 1e-6);
  EXPECT_EQ(network.use_of(hot).utilization, 0.25);
  EXPECT_GT(network.use_of(hot).divergence, 0.4);
}

TEST_F(Network, ACheckpointOfAnotherShapeIsRefused) {
  settings_.steps = 2;
  lm::network<float> network(settings_, true, {.threads = 1});
  lm::trainer run("moe", settings_, text_, network);
  run.train(folder_ / "moe");
  settings_.intermediate = 12;
  lm::network<float> wider(settings_, true, {.threads = 1});
  lm::trainer other("moe", settings_, text_, wider);
  try {
    other.resume(folder_ / "moe");
    FAIL() << "it was read";
  } catch (lm::problem const& p) {
    EXPECT_NE(std::string(p.what()).find("it must be ["), std::string::npos) << p.what();
  }
}

}  // namespace examples_network_test
