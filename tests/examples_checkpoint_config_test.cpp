// What a config.json says, key by key: what a key that is left out stands for in each family, numbers
// that are none, sizes that wrap, groups that do not fit.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/family.hpp"
#include "../examples/support/config.hpp"
#include "support/config_outcome.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_config_test {

using namespace config_outcome;

/// The text of a configuration with one value as written.
std::string with_value(json config, std::string const& key, std::string const& value) {
  config[key] = "here";
  std::string text = config.dump();
  return text.replace(text.find("\"here\""), 6, value);
}

// As published: "time_step_limit": [0.0, Infinity].
TEST(CheckpointConfig, Battery36_NumbersThatAreNotFiniteAreReadWhereTheyAreNotNeeded) {
  json const config = published("nemotron_3").config;
  std::string const plain = outcome(config);
  ASSERT_EQ(plain[0], '[') << plain;
  for (char const* value :
       {"[0.0, Infinity]", "[0.0,Infinity]", "NaN", "-Infinity", "[-Infinity,NaN,Infinity]",
        R"({"a":Infinity})", R"("NaN, -Infinity \" NaN")", R"("\\")", R"({"NaN":{"Infinity":NaN}})",
        "[Infinity\n]"}) {
    EXPECT_EQ(outcome(with_value(config, "time_step_limit", value)), plain) << value;
  }
  for (char const* value :
       {"-NaN", "+Infinity", "Infinityx", "xNaN", "NaN1", "nan", "inf", "- Infinity", "--Infinity",
        "{NaN:1}", "Inf", "NaN NaN", "1NaN", "\"NaN"}) {
    std::string const said = outcome(with_value(config, "time_step_limit", value));
    EXPECT_PRED2(contains, said, "config.json is refused: it is not a JSON object") << value;
  }
}

TEST(CheckpointConfig, Battery36_ANumberThatIsNeededMustBeOne) {
  json const config = published("deepseek_v3").config;
  for (char const* value : {"NaN", "Infinity", "-Infinity", "1e300", "-1e39"}) {
    std::string const said = outcome(with_value(config, "routed_scaling_factor", value));
    EXPECT_PRED2(contains, said, "it must be a finite number within the range of float") << value;
    EXPECT_PRED2(contains, said, "routed_scaling_factor is ");
    EXPECT_PRED2(contains, outcome(with_value(config, "norm_topk_prob", value)),
                 "norm_topk_prob is neither true nor false");
    EXPECT_PRED2(contains, outcome(with_value(config, "hidden_act", value)),
                 "hidden_act is not a string");
    EXPECT_PRED2(contains, outcome(with_value(config, "n_routed_experts", value)),
                 "it must be a count");
    std::string const blocks = std::string(R"({"weight_block_size":[128,)") + value + "]}";
    EXPECT_PRED2(contains, outcome(with_value(config, "quantization_config", blocks)),
                 "weight_block_size must be two counts");
  }
  EXPECT_PRED2(contains, outcome(with_value(config, "hidden_size", "Infinity")),
               "hidden_size is Infinity; it must be a count");
  EXPECT_PRED2(contains, outcome(with_value(config, "quantization_config", "NaN")),
               "quantization_config is not an object");
}

TEST(CheckpointConfig, Battery31_BlocksOfAnySizeDoNotWrap) {
  json config = published("deepseek_v3").config;
  auto const with_blocks = [&](std::string const& rows, std::string const& columns) {
    return outcome(with_value(config, "quantization_config",
                              R"({"weight_block_size":[)" + rows + "," + columns + "]}"));
  };
  EXPECT_EQ(with_blocks("2147483647", "1")[0], '[');
  for (char const* size : {"18446744073709551615", "18446744073709551614", "9223372036854775808",
                           "2147483648", "18446744073709551616", "0", "-1", "1.5", "null"}) {
    for (bool const first : {false, true}) {
      EXPECT_PRED2(contains, first ? with_blocks(size, "128") : with_blocks("128", size),
                   "weight_block_size must be two counts of at least 1 and less than 2^31")
          << size;
    }
  }
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(checkpoint::blocks_of(2, most), 1u);
  EXPECT_EQ(checkpoint::blocks_of(most, most), 1u);
  EXPECT_EQ(checkpoint::blocks_of(most, 2), most / 2 + 1);
  EXPECT_EQ(checkpoint::blocks_of(0, most), 0u);
  EXPECT_EQ(checkpoint::blocks_of(257, 128), 3u);
  EXPECT_EQ(checkpoint::blocks_of(256, 128), 2u);
}

// What train_lm keeps in its own checkpoints: generate sizes its memory by them.
TEST(CheckpointConfig, Battery31_SettingsOfATrainedModelDoNotWrap) {
  auto const refusal = [](lm::settings const& s, bool mixed) -> std::string {
    try {
      nn::model_config const c = lm::config_of(s, mixed);
      EXPECT_NEAR(
          nn::detail::approximate_parameters(c) / static_cast<double>(nn::parameter_count(c)), 1.0,
          1e-12);
    } catch (lm::problem const& refused) { return refused.what(); }
    return {};
  };
  for (bool const mixed : {false, true}) EXPECT_EQ(refusal({}, mixed), "");
  lm::settings huge;
  huge.experts = huge.intermediate = huge.width = 1 << 24;
  huge.heads = huge.kv_heads = 1;
  EXPECT_PRED2(contains, refusal(huge, true), "parameters; there must be fewer than 2^58");
  huge.width =
      1 << 12;  // the experts of a layer are 2^60, 2^61 and 2^36 numbers; of 32, as good as 0
  huge.layers = 32;
  EXPECT_PRED2(contains, refusal(huge, true), "parameters; there must be fewer than 2^58");
  huge.experts = 1 << 16;
  huge.layers = 3;
  EXPECT_EQ(refusal(huge, true), "") << "2^52 and more do not wrap";
  lm::settings wide;
  wide.top_k = wide.experts = 1 << 24;
  wide.intermediate = 256;  // 2^32 wide
  EXPECT_PRED2(contains, refusal(wide, false), "4300559702 wide; it must be 1 to 2^24");
  EXPECT_EQ(lm::dense_with_all(lm::config_of({}, true)).intermediate, 16 * 128 + 6);
}

TEST(CheckpointConfig, Battery42_GroupsThatDoNotFitAreRefusedWhenLoaded) {
  struct {
    char const* family;
    json changes;
    char const* sentence;
  } const cases[] = {
      {"deepseek_v3", {{"n_group", 3}}, "n_group is 3; it must divide the number of experts, 8"},
      {"deepseek_v2", {{"n_group", 3}}, "n_group is 3; it must divide the number of experts, 8"},
      {"deepseek_v3", {{"n_group", 16}}, "n_group is 16; it must divide the number of experts, 8"},
      {"deepseek_v3", {{"n_group", 0}}, "n_group is 0; it must be a count of at least 1"},
      {"deepseek_v3", {{"topk_group", 5}}, "topk_group is 5; there are 4 groups"},
      {"deepseek_v3", {{"topk_group", 0}}, "topk_group is 0; it must be a count of at least 1"},
      {"deepseek_v3",
       {{"topk_group", 1}},
       "topk_group is 1, and so many groups hold 2 experts; they must hold the 3"},
      {"kimi_linear", {{"num_expert_group", 5}}, "num_expert_group is 5; it must divide"},
      {"nemotron_3", {{"n_group", 7}}, "n_group is 7; it must divide"},
      {"glm_4_5", {{"n_group", 5}}, "n_group is 5; it must divide"},
      {"glm_5", {{"n_group", 5}}, "n_group is 5; it must divide"},
      {"kimi_k2", {{"n_group", 5}}, "n_group is 5; it must divide"},
  };
  for (auto const& c : cases) {
    json config = published(c.family).config;
    config.update(c.changes);
    EXPECT_PRED2(contains, outcome(config), c.sentence) << c.family;
  }
}

TEST(CheckpointConfig, Battery42_TheOuterQuantizationCountsWhereTheInnerIsNull) {
  json const inside = published("llama4").config;
  for (bool const null : {false, true}) {
    json config = inside;
    if (null) config["text_config"]["quantization_config"] = nullptr;
    config["quantization_config"] = {{"quant_method", "quip"}};
    EXPECT_PRED2(contains, outcome(config), "quantized by quip") << null;
    config["quantization_config"] = {{"weight_block_size", {64, 32}}};
    checkpoint::layer_plan const p = checkpoint::plan_of({"config.json", config.dump()});
    EXPECT_EQ(p.block_rows, 64u);
    EXPECT_EQ(p.block_columns, 32u);
    config["text_config"]["quantization_config"] = {{"weight_block_size", {8, 8}}};
    EXPECT_EQ(checkpoint::plan_of({"config.json", config.dump()}).block_rows, 8u);
  }
  json typed = inside;
  typed["text_config"]["model_type"] = nullptr;
  EXPECT_EQ(outcome(typed), outcome(inside));
  json wrong = inside;
  wrong["quantization_config"] = "gptq";
  EXPECT_PRED2(contains, outcome(wrong), "quantization_config is not an object");
}

}  // namespace examples_checkpoint_config_test
}  // namespace shunt::test
