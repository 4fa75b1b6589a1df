// A key that a configuration leaves out has its family's published default, or refuses the file.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "support/config_defaults.hpp"
#include "support/config_outcome.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_defaults_test {

using namespace config_defaults;
using namespace config_outcome;

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

}  // namespace examples_checkpoint_defaults_test
}  // namespace shunt::test
