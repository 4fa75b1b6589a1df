// What a config.json says, key by key: what a key that is left out stands for in each family, numbers
// that are none, sizes that wrap, groups that do not fit.
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/family.hpp"
#include "../examples/support/config.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_config_test {

using nlohmann::json;

/// The plan in words, or the sentence with which the configuration is refused.
std::string outcome(std::string const& text) {
  try {
    checkpoint::layer_plan const p = checkpoint::plan_of(checkpoint::config("config.json", text));
    preset const& is = p.preset;
    route_options const& r = is.route;
    json const all = {is.name,
                      is.sizes.hidden,
                      is.sizes.intermediate,
                      is.sizes.experts,
                      is.sizes.top_k,
                      {r.score, r.gates, r.scale, r.epsilon, r.groups, r.top_groups, r.group_by},
                      {r.zero_experts, r.gate_on_input},
                      {is.activation, is.activation_limit, p.act.a, p.act.b},
                      {is.choice, is.balance, is.choice_bias, is.gate_bias, is.expert_biases},
                      {is.interleaved, is.model_hidden, is.shared_experts, is.shared_intermediate},
                      {is.shared_gate, p.shared, p.transposed, p.block_rows, p.block_columns}};
    return all.dump();
  } catch (lm::problem const& refused) { return refused.what(); }
}
std::string outcome(json const& config) { return outcome(config.dump()); }

bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

/// What a key that is left out stands for, by configuration_*.py of transformers 5.24.0, and a value
/// that means something else.
struct default_of {
  std::optional<json> otherwise;  ///< none: the file is refused
  json other = nullptr;
};
using keys = std::map<std::string, default_of>;

keys keys_of(std::string const& family) {
  static default_of const refused{};
  auto const with = [](keys all, keys const& more) {
    for (auto const& [key, what] : more) all[key] = what;
    return all;
  };
  keys const every = {{"hidden_size", refused}, {"num_experts_per_tok", refused}};
  keys const silu = with(every, {{"hidden_act", {"silu", "gelu"}}});
  auto const renormalized = [](bool yes) { return keys{{"norm_topk_prob", {yes, !yes}}}; };
  keys const qwen = with(silu, {{"num_experts", refused}, {"moe_intermediate_size", refused}});
  keys const shared = {{"shared_expert_intermediate_size", refused}};
  keys const deepseek =
      with(silu, {{"n_routed_experts", refused}, {"moe_intermediate_size", refused}});
  keys const noaux = {{"scoring_func", {"sigmoid", "softmax"}},
                      {"moe_router_activation_func", {"sigmoid", "softmax"}},
                      {"topk_method", {"noaux_tc", "greedy"}}};
  auto const v3 = [&](double scale, int groups, int top) {
    return with(with(deepseek, noaux), {{"norm_topk_prob", {true, false}},
                                        {"n_shared_experts", {1, 2}},
                                        {"routed_scaling_factor", {scale, 3.25}},
                                        {"n_group", {groups, 32}},
                                        {"topk_group", {top, 7}}});
  };
  if (family == "mixtral") {
    return with(silu, {{"num_local_experts", refused}, {"intermediate_size", refused}});
  }
  if (family == "olmoe") {
    return with(with(silu, renormalized(false)),
                {{"num_experts", refused}, {"intermediate_size", refused}});
  }
  if (family == "qwen2_moe") return with(with(qwen, renormalized(false)), shared);
  if (family == "qwen3_moe") return with(qwen, renormalized(false));
  if (family == "qwen3_next") return with(with(qwen, renormalized(true)), shared);
  if (family == "deepseek_v2" || family == "deepseek_v2_lite") {
    keys all = with(deepseek, {{"norm_topk_prob", {false, true}},
                               {"n_shared_experts", {2, 1}},
                               {"routed_scaling_factor", {1.0, 3.25}},
                               {"scoring_func", {"softmax", "sigmoid"}},
                               {"topk_method", {"greedy", "noaux_tc"}}});
    if (family == "deepseek_v2") all["n_group"] = all["topk_group"] = refused;
    return all;
  }
  if (family == "deepseek_v3" || family == "kimi_k2") return v3(2.5, 8, 4);
  if (family == "glm_4_5") return v3(1.0, 1, 1);
  if (family == "glm_5") return v3(2.5, 1, 1);
  if (family == "kimi_linear") {
    keys all = with(with(silu, noaux), {{"num_experts", refused},
                                        {"num_experts_per_token", refused},
                                        {"moe_intermediate_size", refused},
                                        {"moe_renormalize", {true, false}},
                                        {"num_shared_experts", {1, 2}},
                                        {"num_expert_group", {1, 32}},
                                        {"topk_group", {1, 7}},
                                        {"routed_scaling_factor", {2.446, 3.25}}});
    all.erase("num_experts_per_tok");
    return all;
  }
  if (family == "deepseek_v4" || family == "deepseek_v4_hash") {
    return with(deepseek, {{"norm_topk_prob", {true, false}},
                           {"n_shared_experts", {1, 2}},
                           {"routed_scaling_factor", {1.5, 3.25}},
                           {"scoring_func", {"sqrtsoftplus", "sigmoid"}},
                           {"swiglu_limit", {10.0, 3.25}}});
  }
  if (family == "minimax_m2") {
    return with(silu, {{"num_local_experts", refused},
                       {"intermediate_size", refused},
                       {"scoring_func", {"sigmoid", "softmax"}},
                       {"shared_intermediate_size", {0, 5}}});
  }
  if (family == "gpt_oss") {
    return with(every, {{"num_local_experts", refused},
                        {"intermediate_size", refused},
                        {"swiglu_limit", {7.0, 3.25}},
                        {"swiglu_alpha", {1.702, 3.25}}});
  }
  if (family == "llama4") {
    return with(silu, {{"num_local_experts", refused}, {"intermediate_size", refused}});
  }
  if (family == "nemotron_3") {
    return with(with(every, noaux), {{"n_routed_experts", refused},
                                     {"moe_intermediate_size", refused},
                                     {"moe_shared_expert_intermediate_size", refused},
                                     {"mlp_hidden_act", {"relu2", "silu"}},
                                     {"mlp_bias", {false, true}},
                                     {"norm_topk_prob", {true, false}},
                                     {"n_shared_experts", {1, 0}},
                                     {"moe_latent_size", {json(nullptr), 5}},
                                     {"routed_scaling_factor", {1.0, 3.25}},
                                     {"n_group", {1, 32}},
                                     {"topk_group", {1, 7}}});
  }
  if (family == "longcat_flash") {
    keys all = with(silu, {{"n_routed_experts", refused},
                           {"expert_ffn_hidden_size", refused},
                           {"moe_topk", refused},
                           {"norm_topk_prob", {false, true}},
                           {"zero_expert_num", {256, 3}},
                           {"zero_expert_type", {"identity", "drop"}},
                           {"routed_scaling_factor", {6.0, 3.25}}});
    all.erase("num_experts_per_tok");
    return all;
  }
  ADD_FAILURE() << "the table has no family " << family;
  return {};
}

/// Keys of the published files that say nothing of the layer.
bool unread(std::string const& family, std::string const& key) {
  static std::set<std::string> const all = {
      "architectures",   "num_hidden_layers", "rope_scaling",         "model_type",
      "num_hash_layers", "ffn_hidden_size",   "intermediate_size_mlp"};
  static std::set<std::string> const of_one = {
      "gpt_oss hidden_act",          "nemotron_3 hidden_act",   "deepseek_v2_lite n_group",
      "deepseek_v2_lite topk_group", "deepseek_v4 topk_method", "deepseek_v4_hash topk_method"};
  bool const dense = key == "intermediate_size" && keys_of(family).count(key) == 0;
  return all.count(key) + of_one.count(family + " " + key) > 0 || dense;
}

/// The configuration of a family at a size at which every default is possible, in one object.
json config_of(published_family const& p) {
  json c = p.config.contains("text_config") ? p.config["text_config"] : p.config;
  auto const set = [&](char const* key, int value) {
    if (c.contains(key)) c[key] = value;
  };
  for (char const* key : {"n_routed_experts", "num_experts", "num_local_experts"}) set(key, 64);
  for (char const* key : {"n_group", "num_expert_group"}) set(key, 16);
  set("topk_group", 3);
  return c;
}

TEST(CheckpointConfig, Battery32_AKeyThatIsLeftOutHasTheDefaultOfItsFamily) {
  for (published_family const& p : published_families()) {
    json const config = config_of(p);
    ASSERT_EQ(outcome(config)[0], '[') << outcome(config);
    for (auto const& [key, what] : keys_of(p.name)) {
      SCOPED_TRACE(p.name + (" without " + key));
      json without = config, said = config, other = config;
      without.erase(key);
      if (!what.otherwise) {
        EXPECT_PRED2(contains, outcome(without), "it has no " + key);
        continue;
      }
      said[key] = *what.otherwise;
      other[key] = what.other;
      EXPECT_EQ(outcome(without), outcome(said));
      EXPECT_EQ(outcome(without)[0], '[') << outcome(without);
      EXPECT_NE(outcome(other), outcome(said)) << "the key means nothing: this proves nothing";
    }
  }
}

TEST(CheckpointConfig, Battery32_TheTableHasEveryKeyOfEveryPublishedConfiguration) {
  for (published_family const& p : published_families()) {
    json const config = config_of(p);
    keys const known = keys_of(p.name);
    for (auto const& [key, value] : config.items()) {
      SCOPED_TRACE(p.name + (" and " + key));
      EXPECT_NE(known.count(key) > 0, unread(p.name, key));
      if (!unread(p.name, key) || key == "model_type") continue;
      json without = config;
      without.erase(key);
      EXPECT_EQ(outcome(without), outcome(config)) << "it is read";
    }
  }
}

// As to the reference, a null is a value. Where there may be none of something it says so.
TEST(CheckpointConfig, Battery32_ANullIsNoDefault) {
  std::set<std::string> const none = {"n_shared_experts", "num_shared_experts", "zero_expert_num",
                                      "shared_intermediate_size"};
  for (published_family const& p : published_families()) {
    json const config = config_of(p);
    for (auto const& [key, what] : keys_of(p.name)) {
      if (key == "moe_latent_size") continue;
      SCOPED_TRACE(p.name + (" with a null for " + key));
      json null = config, zero = config;
      null[key] = nullptr;
      zero[key] = 0;
      if (none.count(key) > 0) {
        EXPECT_EQ(outcome(null), outcome(zero));
        EXPECT_EQ(outcome(null)[0], '[') << outcome(null);
      } else {
        EXPECT_PRED2(contains, outcome(null), "it has no " + key + ", but a null in its place");
      }
    }
  }
}

TEST(CheckpointConfig, Battery32_TwoNamesOfOneKeyAgree) {
  json config = config_of(published("kimi_linear"));
  config.erase("moe_renormalize");
  std::string const raw = [&] {
    json c = config;
    c["moe_renormalize"] = false;
    return outcome(c);
  }();
  config["norm_topk_prob"] = false;
  EXPECT_EQ(outcome(config), raw) << "the reference takes DeepSeek-V3's names for these";
  config["moe_renormalize"] = true;
  EXPECT_PRED2(contains, outcome(config),
               "moe_renormalize is true, but norm_topk_prob, the same key, is false");
}

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
    config["quantization_config"] = {{"quant_method", "gptq"}};
    EXPECT_PRED2(contains, outcome(config), "quantized by gptq") << null;
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
