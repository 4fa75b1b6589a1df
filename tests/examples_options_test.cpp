#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "../examples/support/options.hpp"

namespace examples_options_test {

lm::train_options parsed(std::vector<char const*> arguments) {
  CLI::App app;
  lm::train_options options;
  arguments.insert(arguments.begin(), "train_lm");
  lm::parse(app, options, static_cast<int>(arguments.size()), arguments.data());
  return options;
}

template <class F> std::string refusal(F&& act) {
  try {
    act();
  } catch (lm::problem const& p) { return p.what(); } catch (CLI::ParseError const& e) {
    return e.what();
  }
  return {};
}

TEST(Options, TheDefaultsFitEachOther) {
  lm::train_options const o = parsed({});
  EXPECT_TRUE(o.named.empty());
  EXPECT_GT(o.seconds, 0);
  EXPECT_EQ(o.run.experts % 2, 0);
}

TEST(Options, APoolOfOnesOwn) {
  lm::train_options const o = parsed({"--experts", "128", "--top-k", "4", "--bf16", "--balance",
                                      "aux", "--text", "a", "b=c", "--threads", "3"});
  EXPECT_EQ(o.run.experts, 128);
  EXPECT_EQ(o.run.top_k, 4);
  EXPECT_TRUE(o.run.bf16);
  EXPECT_EQ(o.run.balance, "aux");
  EXPECT_EQ(o.run.text, (std::vector<std::string>{"a", "b=c"}));
  EXPECT_EQ(o.threads, 3);
  EXPECT_EQ(o.named.size(), 5u) << "threads do not change the model";
}

TEST(Options, HeadsFollowTheWidth) {
  for (char const* width : {"32", "96", "100", "128", "192", "250"}) {
    lm::train_options const o = parsed({"--width", width});
    EXPECT_EQ(o.run.width % o.run.heads, 0) << width;
    EXPECT_EQ(o.run.width / o.run.heads % 2, 0) << width;
    EXPECT_EQ(o.run.heads % o.run.kv_heads, 0) << width;
  }
  EXPECT_EQ(parsed({"--width", "128"}).run.heads, 4);
  EXPECT_EQ(parsed({"--width", "128", "--heads", "2"}).run.heads, 2);
}

TEST(Options, AFixedNumberOfStepsLiftsTheTimeLimit) {
  EXPECT_EQ(parsed({"--steps", "50"}).seconds, 0);
  EXPECT_EQ(parsed({"--steps", "50", "--seconds", "9"}).seconds, 9);
  EXPECT_EQ(parsed({"--quick", "--layers", "3"}).run.layers, 3) << "what is given counts";
}

TEST(Options, NonsenseGetsASentence) {
  struct {
    std::vector<char const*> arguments;
    char const* sentence;
  } const cases[] = {
      {{"--top-k", "20"}, "it must be at most --experts"},
      {{"--width", "96", "--heads", "5"}, "must be a multiple of --heads"},
      {{"--width", "12", "--heads", "4"}, "even head width"},
      {{"--heads", "4", "--kv-heads", "3", "--width", "96"}, "must be a multiple of --kv-heads"},
      {{"--experts", "0"}, "not in range"},
      {{"--lr", "-1"}, "not in range"},
      {{"--balance", "luck"}, "not in"},
      {{"--moe-only", "--dense-only"}, "excludes"},
      {{"--nonsense"}, "--nonsense"},
  };
  for (auto const& c : cases) {
    std::string const sentence = refusal([&] { parsed(c.arguments); });
    EXPECT_NE(sentence.find(c.sentence), std::string::npos) << c.arguments[0] << ": " << sentence;
  }
}

TEST(Options, AResumedRunKeepsItsSettings) {
  lm::settings stored;
  stored.experts = 32;
  stored.steps = 777;
  lm::train_options o = parsed({"--resume", "--threads", "5"});
  lm::adopt(o, stored, "moe.safetensors");
  EXPECT_EQ(o.run.experts, 32);
  EXPECT_EQ(o.run.steps, 777);
  EXPECT_EQ(o.threads, 5);
  lm::train_options same = parsed({"--resume", "--experts", "32"});
  EXPECT_EQ(refusal([&] { lm::adopt(same, stored, "moe.safetensors"); }), "");
  lm::train_options other = parsed({"--resume", "--experts", "8"});
  EXPECT_EQ(refusal([&] { lm::adopt(other, stored, "moe.safetensors"); }),
            "--experts is 8, but moe.safetensors was begun with 32");
}

}  // namespace examples_options_test
