// Published checkpoints: each family, written at a reduced size under its own keys and names, is
// loaded and computes what hand-made weights compute, bit for bit, and what the formulas say.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/loaded_layer.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_families_test {

namespace fs = std::filesystem;

class Families : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_families." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// The sentence with which this checkpoint is refused.
  [[nodiscard]] std::string refusal(nlohmann::json const& config, tensor_list const& tensors,
                                    index_t layer = 2) const {
    fs::remove_all(folder_);
    write_checkpoint(folder_, config, tensors);
    try {
      (void)checkpoint::load_layer(folder_, layer);
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  }

  fs::path folder_;
};

/// The layer's output on the setup's tokens; the choice goes into the formula, for the oracle.
[[nodiscard]] guarded<float> forward(layer_setup<float>& s, moe_weights<float> const& w,
                                     layer_options<activation> options) {
  layer_formula& f = s.is.f;
  auto const tokens = static_cast<index_t>(f.tokens);
  guarded<std::int16_t> chosen(static_cast<std::size_t>(tokens * f.top_k));
  if (s.is.table > 0) options.token = s.token.as(tokens);
  on_host const on{.threads = 1};
  guarded<float> y(s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on, tokens, w, options));
  status const done =
      moe_layer(on, s.x.as(tokens, f.width), w, y.as(tokens, f.width),
                {.route = {.recorded = chosen.as(tokens, f.top_k)}}, arena<>(work), options);
  EXPECT_TRUE(done.ok()) << done.message();
  f.chosen.assign(chosen.data(), chosen.data() + chosen.size());
  f.kept = f.chosen;
  return y;
}

/// From the weights that were loaded.
[[nodiscard]] guarded<float> output(checkpoint::loaded_layer const& layer, layer_setup<float>& s) {
  guarded<float> y;
  layer.visit([&]<class W, class G>(moe_weights<W, G> const& w) {
    if constexpr (std::is_same_v<W, float>) {
      y = forward(s, w, layer.options());
    } else {
      ADD_FAILURE() << "the layer was loaded as another type";
    }
  });
  return y;
}

/// What hand-made weights in another layout give, which is what the formulas give.
[[nodiscard]] guarded<float> expected(layer_setup<float>& s) {
  guarded<float> const y = forward(s, s.weights(), s.options());
  auto const formula = layer_forward(s.is.f, s.numbers());
  double off = 0, all = 0;
  for (std::size_t i = 0; i < formula.y.size(); ++i) {
    off += std::pow(static_cast<double>(y[i]) - formula.y[i], 2);
    all += formula.y[i] * formula.y[i];
  }
  EXPECT_GT(all, 1e-3) << "the oracle is flat: this test proves nothing";
  EXPECT_LT(std::sqrt(off / all), 2e-6);
  std::vector<double> const bias(s.choice_bias.data(), s.choice_bias.data() + s.choice_bias.size());
  layer_choice const choice = choose(s.is.f, formula.scores, bias, s.is.route.groups,
                                     s.is.route.top_groups, s.is.route.group_by);
  if (s.is.table == 0 && choice.margin > 1e-6) {
    EXPECT_EQ(choice.ids, s.is.f.chosen) << "the library chooses as the formulas do";
  }
  return y;
}

void same_as_hand_made(published_family const& p, fs::path const& folder) {
  SCOPED_TRACE(p.name);
  layer_setup<float> s(p.is);
  write_checkpoint(folder, p.config, tensors_of(p, s), 3);
  checkpoint::loaded_layer const layer = checkpoint::load_layer(folder, p.layer);
  EXPECT_EQ(layer.preset().sizes.experts, p.is.f.experts);
  EXPECT_EQ(layer.preset().sizes.intermediate, p.is.f.intermediate);
  EXPECT_EQ(layer.preset().sizes.top_k, p.is.f.top_k);
  EXPECT_EQ(layer.preset().shared_intermediate, p.is.f.shared);
  EXPECT_EQ(layer.width(), p.is.f.width);
  EXPECT_TRUE(same_bits(output(layer, s), expected(s)));
  fs::remove_all(folder);
}

TEST_F(Families, PublishedNamesGiveTheBitsOfHandMadeWeights) {
  for (published_family const& p : published_families()) same_as_hand_made(p, folder_);
}

TEST_F(Families, NamesOfTransformersModulesDoToo) {
  for (published_family const& p : published_families()) {
    same_as_hand_made(in_modules(p), folder_);
  }
}

/// Number (n,k) of matrix e, wherever it lies.
template <class T> T number(expert_matrix<T> const& w, int e, int n, int k) {
  return w.row(e, n)[k * w.stride(2)];
}
template <class T>
void same_numbers(expert_matrix<T> const& w, guarded<T> const& want, char const* what) {
  std::size_t i = 0;
  for (int e = 0; e < w.experts(); ++e) {
    for (int n = 0; n < w.rows(); ++n) {
      for (int k = 0; k < w.columns(); ++k) {
        ASSERT_EQ(number(w, e, n, k).bits, want[i++].bits) << what << " " << e << " " << n;
      }
    }
  }
  EXPECT_EQ(i, want.size()) << what;
}

TEST_F(Families, Bf16IsUsedAsItIs) {
  for (published_family const& p : published_families()) {
    SCOPED_TRACE(p.name);
    layer_setup<bf16> const s(p.is);
    write_checkpoint(folder_, p.config, tensors_of(p, s));
    bool found = false;
    checkpoint::load_layer(folder_, 2).visit([&]<class T, class G>(moe_weights<T, G> const& w) {
      if constexpr (std::is_same_v<T, bf16> && std::is_same_v<G, bf16>) {
        found = true;
        same_numbers(w.up, s.up, "up");
        same_numbers(w.down, s.down, "down");
        same_numbers(w.shared_up, s.shared_up, "shared_up");
        EXPECT_EQ(std::memcmp(w.gate.data(), s.gate.data(), s.gate.size() * sizeof(bf16)), 0);
      }
    });
    EXPECT_TRUE(found);
    fs::remove_all(folder_);
  }
}

TEST_F(Families, AGateOfAnotherTypeThanTheExpertsIsFloat) {
  published_family const p = published("deepseek_v3");
  layer_setup<bf16> const s(p.is);
  std::string const gate = "model.layers.2.mlp.gate.weight";
  std::vector<float> wide;
  for (bf16 const& v : s.gate) wide.push_back(to_float(v));
  std::vector<fp16> half;
  for (float v : wide) half.push_back(from_float<fp16>(v));
  for (bool const in_half : {false, true}) {
    tensor_list tensors = tensors_of(p, s);
    tensors.remove(gate);
    if (in_half) {
      tensors.add(gate, {8, 19}, half);
    } else {
      tensors.add(gate, {8, 19}, wide);
    }
    write_checkpoint(folder_, p.config, tensors);
    bool found = false;
    checkpoint::loaded_layer const layer = checkpoint::load_layer(folder_, 2);
    layer.visit([&]<class T, class G>(moe_weights<T, G> const& w) {
      if constexpr (std::is_same_v<T, bf16> && std::is_same_v<G, float>) {
        found = true;
        for (std::size_t i = 0; i < wide.size(); ++i) {
          EXPECT_EQ(w.gate.data()[i], in_half ? to_float(half[i]) : wide[i]);
        }
      }
    });
    EXPECT_TRUE(found);
  }
}

TEST_F(Families, WhatLiesWellIsNotCopied) {
  // An expert's gate_proj and up_proj are used where each lies ...
  published_family const olmoe = published("olmoe");
  layer_setup<float> s(olmoe.is);
  write_checkpoint(folder_, olmoe.config, tensors_of(olmoe, s));
  checkpoint::loaded_layer const apart = checkpoint::load_layer(folder_, 2);
  EXPECT_EQ(apart.bytes_owned(), 0u);
  EXPECT_EQ(apart.used().bytes_copied(), 0u);
  EXPECT_EQ(apart.used().bytes_in_place(), 4u * (8 * 19 + 8 * 3 * 9 * 19));
  ASSERT_EQ(apart.used().all().size(), 4u) << "the gate and three of experts.*";
  EXPECT_EQ(apart.used().all()[1].name, "model.layers.2.mlp.experts.*.gate_proj.weight");
  EXPECT_EQ(apart.used().all()[1].count, 8u);
  // ... though they be in two shards, or w2 lie between w1 and w3; and a tensor of all experts is,
  // exchanged and interleaved or not. Whatever the family, nothing of its experts is copied.
  for (published_family const& p : published_families()) {
    layer_setup<float> all(p.is);
    for (std::size_t const shards : {std::size_t{1}, std::size_t{3}}) {
      SCOPED_TRACE(p.name + std::string(", shards: ") + std::to_string(shards));
      fs::remove_all(folder_);
      write_checkpoint(folder_, p.config, tensors_of(p, all), shards);
      checkpoint::loaded_layer const layer = checkpoint::load_layer(folder_, 2);
      std::uint64_t experts = 0;
      for (checkpoint::used_tensor const& t : layer.used().all()) {
        if (t.name.find("expert") == std::string::npos) continue;
        EXPECT_EQ(t.in_place, t.count) << t.name;
        experts += t.count;
      }
      EXPECT_GT(experts, 1u);
    }
  }
}

TEST_F(Families, ALoadedLayerCanBeMoved) {
  published_family const p = published("deepseek_v4_hash");
  layer_setup<float> s(p.is);
  write_checkpoint(folder_, p.config, tensors_of(p, s), 2);
  checkpoint::loaded_layer first = checkpoint::load_layer(folder_, 2);
  checkpoint::loaded_layer const second = std::move(first);
  EXPECT_EQ(second.vocabulary(), 23);
  EXPECT_TRUE(same_bits(output(second, s), expected(s)));
}

TEST_F(Families, ZeroExpertsMayHaveRoomInTheTensor) {
  published_family const p = in_modules(published("longcat_flash"));
  layer_setup<float> s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const name = "model.layers.2.mlp.experts.gate_up_proj";
  std::vector<float> longer(s.up.data(), s.up.data() + s.up.size());
  longer.resize(11 * 18 * 19, 1e30f);
  tensors.remove(name);
  tensors.add(name, {11, 18, 19}, longer);
  write_checkpoint(folder_, p.config, tensors);
  EXPECT_TRUE(same_bits(output(checkpoint::load_layer(folder_, 2), s), expected(s)));
}

TEST_F(Families, AConfigurationIsRefusedWithASentence) {
  published_family const p = published("deepseek_v3");
  layer_setup<float> s(p.is);
  tensor_list const tensors = tensors_of(p, s);
  ASSERT_EQ(refusal(p.config, tensors), "");
  auto const changed = [&](char const* key, nlohmann::json value) {
    nlohmann::json config = p.config;
    config[key] = std::move(value);
    return refusal(config, tensors);
  };
  struct {
    char const* key;
    nlohmann::json value;
    char const* sentence;
  } const cases[] = {
      {"model_type", "gpt2", "model_type is \"gpt2\", a family that is not known"},
      {"model_type", nullptr, "a family that is not known"},
      {"model_type", 7, "model_type is not a string"},
      {"n_routed_experts", 0, "n_routed_experts is 0; it must be a count"},
      {"n_routed_experts", -8, "n_routed_experts is -8; it must be a count"},
      {"n_routed_experts", 8.5, "n_routed_experts is 8.5; it must be a count"},
      {"n_routed_experts", 4294967296, "less than 2^31"},
      {"n_routed_experts", 18446744073709551615ull, "less than 2^31"},
      {"n_routed_experts", nullptr, "it has no n_routed_experts"},
      {"num_experts_per_tok", 9, "it chooses 9 experts of 8"},
      {"n_shared_experts", 2147483647, "too wide"},
      {"hidden_act", "gelu", "hidden_act is gelu; only silu is known"},
      {"scoring_func", "softmax", "scoring_func is softmax; only sigmoid"},
      {"norm_topk_prob", "yes", "norm_topk_prob is neither true nor false"},
      {"routed_scaling_factor", "2.5", "routed_scaling_factor is not a number"},
      {"quantization_config", {{"quant_method", "quip"}}, "quantized by quip"},
      {"quantization_config",
       {{"quant_method", "gptq"}, {"bits", 8}},
       "quantized with bits 8; only 4 is known here"},
      {"quantization_config",
       {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 0}},
       "group_size of its quantized weights must be -1, or a count"},
      {"quantization_config",
       {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 128}, {"version", "gemv"}},
       "version gemv; only gemm is known here"},
      {"quantization_config",
       {{"quant_method", "compressed-tensors"}, {"format", "int-quantized"}},
       "format int-quantized; only pack-quantized is known here"},
      {"quantization_config",
       {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}},
       "config_groups is left out"},
      {"quantization_config",
       {{"quant_method", "modelopt"}, {"quant_algo", "FP8"}},
       "quant_algo FP8; only NVFP4 is known here"},
      {"quantization_config", {{"quant_method", 7}}, "quantized by 7"},
      {"quantization_config",
       {{"quant_method", "fp8"}, {"weight_block_size", {0, 128}}},
       "weight_block_size must be two counts"},
  };
  for (auto const& c : cases) {
    std::string const said = changed(c.key, c.value);
    EXPECT_NE(said.find(c.sentence), std::string::npos) << c.key << ": " << said;
    EXPECT_NE(said.find("config.json is refused"), std::string::npos) << said;
  }
  nlohmann::json agreed = published("deepseek_v2").config;
  agreed["norm_topk_prob"] = true;
  EXPECT_NE(refusal(agreed, tensors).find("do not agree"), std::string::npos);
}

TEST_F(Families, AMissingTensorOrAWrongOneIsNamed) {
  published_family const p = published("deepseek_v3");
  layer_setup<float> s(p.is);
  auto const sentence = [&](auto change, index_t layer = 2) {
    tensor_list tensors = tensors_of(p, s);
    change(tensors);
    return refusal(p.config, tensors, layer);
  };
  auto const nothing = [](tensor_list&) {};
  std::string const at = "model.layers.2.mlp.";
  tensor_list const whole = tensors_of(p, s);
  for (checkpoint::tensor_source const& t : whole.sources()) {
    std::string const gone = sentence([&](tensor_list& all) { all.remove(t.name); });
    EXPECT_NE(gone.find("there is no tensor " + t.name), std::string::npos) << gone;
    std::vector<std::uint64_t> const wrong = {t.shape.back() + 1, 1};
    std::string const other = sentence([&](tensor_list& all) {
      all.remove(t.name);
      all.add(t.name, wrong, std::vector<float>(t.shape.back() + 1));
    });
    EXPECT_NE(other.find("tensor " + t.name + " has shape " + checkpoint::shape_text(wrong) +
                         "; it must be " + checkpoint::shape_text(t.shape)),
              std::string::npos)
        << other;
    std::string const kind = sentence([&](tensor_list& all) { all.find(t.name)->kind = "I32"; });
    EXPECT_NE(kind.find("tensor " + t.name + " is I32; known here are"), std::string::npos) << kind;
  }
  EXPECT_NE(sentence(nothing, 0)
                .find("layer 0 has no mixture of experts: there is no tensor "
                      "model.layers.0.mlp.gate.weight; of those that have one the "
                      "first is 2, the last 2"),
            std::string::npos);
  EXPECT_NE(sentence(nothing, -1).find("layer -1 was asked for"), std::string::npos);
  EXPECT_NE(refusal(p.config, {}).find("no layer has one"), std::string::npos);
  EXPECT_NE(
      sentence([&](tensor_list& all) {
        std::string const name = at + "experts.3.up_proj.weight";
        all.remove(name);
        all.add(name, {9, 19}, std::vector<char>(9 * 19), "F8_E4M3");
      }).find("there is no tensor " + at + "experts.3.up_proj.weight_scale_inv; it must be [1,1]"),
      std::string::npos);

  published_family const hash = published("deepseek_v4_hash");
  layer_setup<float> t(hash.is);
  tensor_list tensors = tensors_of(hash, t);
  std::string const table = "layers.2.ffn.gate.tid2eid";
  tensors.remove(table);
  std::vector<std::int64_t> ids(23 * 3, 1);
  ids[7] = 8;
  tensors.add(table, {23, 3}, ids);
  EXPECT_NE(refusal(hash.config, tensors).find("names expert 8 in row 2; there are 8"),
            std::string::npos);
  tensors.find(table)->shape = {3, 23};
  EXPECT_NE(refusal(hash.config, tensors).find("it must be I64 or I32 [vocabulary,3]"),
            std::string::npos);
}

}  // namespace examples_checkpoint_families_test
}  // namespace shunt::test
