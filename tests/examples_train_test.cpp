#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "../examples/support/config.hpp"
#include "../examples/support/trainer.hpp"
#include "support/small_corpus.hpp"

namespace examples_train_test {

namespace fs = std::filesystem;

/// A network small enough to know by heart: the logits of the next byte are a row of a table, and a
/// byte's "expert" is its value modulo four. Stops the run, as Ctrl-C would, at a step of one's wish.
struct bigrams {
  std::vector<float> logits = std::vector<float>(256 * 256, 0.0f);
  std::int64_t stop_at = -1;
  std::vector<std::vector<shunt::index_t>> seen;  // the bytes of each step

  double pass(lm::batch const& b, float rate, lm::expert_load& load) {
    double nats = 0;
    load.resize(1, std::vector<std::int64_t>(4));
    std::size_t const width = b.tokens.size() / b.sequences;
    for (std::size_t i = 0; i < b.tokens.size(); ++i) {
      if (i % width == width - 1) continue;  // the last byte of a sequence is a target only
      auto const from = std::size_t(b.tokens[i]), to = std::size_t(b.tokens[i + 1]);
      float* row = logits.data() + 256 * from;
      double sum = 0;
      for (std::size_t v = 0; v < 256; ++v) sum += std::exp(double(row[v]));
      nats += std::log(sum) - double(row[to]);
      ++load[0][from % 4];
      if (rate == 0) continue;
      for (std::size_t v = 0; v < 256; ++v) {
        double const p = std::exp(double(row[v])) / sum;
        row[v] = static_cast<float>(row[v] - double(rate) * (p - (v == to)));
      }
    }
    return nats / double(b.tokens.size() - b.sequences);
  }
  lm::step_result train(lm::batch const& b, std::int64_t step, lm::expert_load& load) {
    if (step + 1 == stop_at) std::raise(SIGINT);
    seen.push_back(b.tokens);
    return {pass(b, 0.3f, load), 1.0, 0.3};
  }
  double evaluate(lm::batch const& b, lm::expert_load& load) {
    lm::expert_load own;
    double const nats = pass(b, 0, own);
    lm::add_load(load, own);
    return nats;
  }
  std::vector<checkpoint::tensor_source> state() {
    return {{"logits", "F32", {256, 256}, logits.data()}};
  }
  void load(checkpoint::safetensors_file& file) {
    file.read("logits", "F32", std::vector<std::uint64_t>{256, 256}, logits.data());
  }
  lm::balance use_of(lm::expert_load const&) const { return {0.5, 0.25}; }
};

class Training : public on_small_corpus {
 protected:
  void SetUp() override {
    on_small_corpus::SetUp();
    settings_.steps = 60;
  }

  template <class F> static std::string refusal(F&& act) {
    try {
      act();
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  }
};

TEST_F(Training, BatchesDependOnSeedAndStepAlone) {
  lm::batch a, b, c, d;
  lm::training_batch(text_, 1, 41, 4, 16, a);
  lm::training_batch(text_, 1, 40, 4, 16, b);
  lm::training_batch(text_, 1, 41, 4, 16, b);
  lm::training_batch(text_, 1, 42, 4, 16, c);
  lm::training_batch(text_, 2, 41, 4, 16, d);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NE(a.tokens, c.tokens);
  EXPECT_NE(a.tokens, d.tokens);
  EXPECT_EQ(a.tokens.size(), 68u);
}

TEST_F(Training, BatchesReachEveryByteOfEveryDomain) {
  // Each domain's last byte as a target, its first as an input, none beyond.
  std::vector<long> of_domain(2);
  bool last = false, first = false;
  lm::batch b;
  for (int step = 0; step < 4000; ++step) {
    lm::training_batch(text_, 1, step, 4, 16, b);
    for (std::size_t row = 0; row < 4; ++row) {
      auto const* at = b.tokens.data() + 17 * row;
      for (std::size_t d = 0; d < 2; ++d) {
        auto const& train = text_.domains[d].train;
        if (std::equal(at, at + 17, train.begin())) first = true;
        if (std::equal(at, at + 17, train.end() - 17)) last = true;
        of_domain[d] += std::search(train.begin(), train.end(), at, at + 17) != train.end();
      }
    }
  }
  EXPECT_TRUE(first);
  EXPECT_TRUE(last);
  EXPECT_GT(of_domain[0], 4000);
  EXPECT_GT(of_domain[1], 4000);
}

TEST_F(Training, HeldOutWindowsDoNotOverlapAndStayInside) {
  for (std::size_t most : {1u, 3u, 10u, 100000u}) {
    auto const starts = lm::held_out_windows(text_.domains[0], 16, most);
    ASSERT_FALSE(starts.empty());
    EXPECT_LE(starts.size(), most);
    for (std::size_t i = 0; i < starts.size(); ++i) {
      EXPECT_LT(starts[i] + 16, text_.domains[0].held_out.size());
      EXPECT_EQ(starts[i] % 16, 0u);
      EXPECT_TRUE(i == 0 || starts[i] > starts[i - 1]);
    }
  }
}

TEST_F(Training, LearnsAndKeepsItsCurves) {
  bigrams network;
  lm::trainer run("moe", settings_, text_, network);
  double step_seconds = -1;
  run.train(folder_ / "moe.safetensors", [&](double s) { step_seconds = s; });
  EXPECT_TRUE(run.finished());
  EXPECT_GT(step_seconds, 0);
  lm::history const& curves = run.curves();
  EXPECT_EQ(curves.step.size(), 60u);
  EXPECT_EQ(curves.eval_step.front(), 0);
  EXPECT_EQ(curves.eval_step.back(), 60);
  EXPECT_NEAR(curves.eval_bits.front(), 8.0, 1e-9) << "no byte is likelier than another";
  EXPECT_LT(curves.eval_bits.back(), 5.0);
  ASSERT_FALSE(curves.load.empty());
  double sum = 0;
  for (double share : curves.load.back()[0]) sum += share;
  EXPECT_NEAR(sum, 1.0, 1e-12);
  lm::evaluation const result = run.evaluate(1000);
  EXPECT_EQ(result.per_domain.size(), 2u);
  EXPECT_EQ(result.experts_by_domain.size(), 1u);
  EXPECT_EQ(result.experts_by_domain[0].size(), 2u);
  EXPECT_GT(result.bits_per_byte, 0.0);
}

TEST_F(Training, CtrlCSavesAndResumeContinuesBitForBit) {
  bigrams whole;
  lm::trainer straight("moe", settings_, text_, whole);
  straight.train(folder_ / "straight.safetensors");

  bigrams first_half, second_half;
  first_half.stop_at = 23;
  lm::trainer stopped("moe", settings_, text_, first_half);
  stopped.train(folder_ / "stopped.safetensors");
  EXPECT_EQ(stopped.step(), 23);
  EXPECT_FALSE(stopped.finished());

  lm::detail::stop_asked = 0;
  lm::trainer resumed("moe", lm::settings{}, text_, second_half);
  resumed.resume(folder_ / "stopped.safetensors");
  EXPECT_EQ(resumed.step(), 23);
  resumed.train(folder_ / "resumed.safetensors");
  EXPECT_EQ(second_half.seen.front(), whole.seen[23]);
  EXPECT_EQ(second_half.logits, whole.logits);
  EXPECT_EQ(resumed.curves().loss, straight.curves().loss);
  EXPECT_EQ(resumed.curves().load, straight.curves().load);
  EXPECT_EQ(resumed.curves().eval_bits, straight.curves().eval_bits);
}

TEST_F(Training, AForeignOrDamagedCheckpointIsRefused) {
  settings_.steps = 3;
  bigrams network;
  lm::trainer run("moe", settings_, text_, network);
  fs::path const path = folder_ / "moe.safetensors";
  run.train(path);

  lm::trainer dense("dense", settings_, text_, network);
  EXPECT_NE(refusal([&] { dense.resume(path); }).find("must be dense"), std::string::npos);
  lm::corpus const other = lm::user_corpus({(folder_ / "ab").string()}, 100000);
  lm::trainer elsewhere("moe", settings_, other, network);
  EXPECT_NE(refusal([&] { elsewhere.resume(path); }).find("another text"), std::string::npos);
  checkpoint::write_safetensors(folder_ / "foreign", {{"w", "F32", {1}, network.logits.data()}});
  EXPECT_NE(refusal([&] { run.resume(folder_ / "foreign"); }).find("not a checkpoint"),
            std::string::npos);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-5, std::ios::end);
    file.put('!');
  }
  EXPECT_NE(refusal([&] { run.resume(path); }).find("damaged"), std::string::npos);
  EXPECT_EQ(refusal([&] { run.train(path); }), "") << "a refused file leaves the run as it was";
}

TEST_F(Training, TheDenseModelHasAtLeastTheActiveParametersOfTheMixture) {
  for (int experts : {4, 8, 16, 128}) {
    settings_.experts = experts;
    lm::model_size const mixed = lm::size_of(lm::config_of(settings_, true));
    lm::model_size const dense = lm::size_of(lm::config_of(settings_, false));
    EXPECT_GE(dense.active, mixed.active) << experts;
    EXPECT_LT(dense.active, mixed.active * 1.02) << experts;
    lm::model_size const all = lm::size_of(lm::dense_with_all(lm::config_of(settings_, true)));
    EXPECT_NEAR(all.parameters, mixed.parameters, 0.01 * mixed.parameters);
    EXPECT_GT(all.flops_per_byte, 1.2 * mixed.flops_per_byte);
  }
}

}  // namespace examples_train_test
