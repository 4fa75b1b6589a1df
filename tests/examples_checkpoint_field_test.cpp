// What made other readers of checkpoints fail: a router's bias rounded to the model's type, an old copy of
// a tensor in another shard, fp8 whose scales are absent or have another name.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "../examples/support/checkpoint/loaded_layer.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_field_test {

namespace fs = std::filesystem;

class CheckpointField : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_checkpoint_field." + std::to_string(::getpid()));
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// The sentence with which a layer is refused, decoded and as it is stored; empty where it is read.
  [[nodiscard]] std::string refusal(nlohmann::json const& config, tensor_list const& tensors,
                                    bool stored) const {
    fs::remove_all(folder_);
    write_checkpoint(folder_, config, tensors);
    try {
      stored ? (void)checkpoint::load_stored_layer(folder_, 2)
             : (void)checkpoint::load_layer(folder_, 2);
    } catch (lm::problem const& refused) { return refused.what(); }
    return {};
  }
  void expect_refusal(published_family const& p, tensor_list const& tensors,
                      std::string const& want) const {
    for (bool const stored : {false, true}) {
      std::string const said = refusal(p.config, tensors, stored);
      EXPECT_NE(said.find(want), std::string::npos) << "expected: " << want << "\nsaid: " << said;
    }
  }

  fs::path folder_;
};

/// What a sigmoid router of these weights chooses with this bias, in double.
template <class Bias> layer_choice choice_of(layer_setup<bf16> const& s, Bias const& bias) {
  layer_formula const& f = s.is.f;
  auto const x = in_double(s.x), gate = in_double(s.gate);
  std::vector<double> scores;
  for (int t = 0; t < f.tokens; ++t) {
    for (int e = 0; e < f.experts; ++e) {
      double z = 0;
      for (int k = 0; k < f.width; ++k) {
        z += x[static_cast<std::size_t>(t * f.width + k)] *
             gate[static_cast<std::size_t>(e * f.width + k)];
      }
      scores.push_back(1.0 / (1.0 + std::exp(-z)));
    }
  }
  return choose(f, scores, {bias.begin(), bias.end()}, s.is.route.groups, s.is.route.top_groups,
                s.is.route.group_by);
}

/// The ids that the layer chooses.
template <class T, class G>
std::vector<index_t> chosen_by(on_host const& on, layer_setup<T> const& s,
                               moe_weights<T, G> const& w,
                               layer_options<activation> const& options) {
  auto const tokens = static_cast<index_t>(s.is.f.tokens);
  guarded<std::int16_t> chosen(static_cast<std::size_t>(tokens * s.is.f.top_k));
  guarded<T> y(s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on, tokens, w, options));
  status const done =
      moe_layer(on, s.x.as(tokens, s.is.f.width), w, y.as(tokens, s.is.f.width),
                {.route = {.recorded = chosen.as(tokens, s.is.f.top_k)}}, arena<>(work), options);
  EXPECT_TRUE(done.ok()) << done.message();
  return {chosen.begin(), chosen.end()};
}

// Biases that bf16 would round to one number: then the scores alone would choose.
TEST_F(CheckpointField, Battery44_AFloatBiasOfABf16ModelChoosesAsFloat) {
  for (char const* name : {"kimi_k2", "deepseek_v3"}) {
    SCOPED_TRACE(name);
    published_family const p = published(name);
    layer_setup<bf16> s(p.is);
    for (bf16& g : s.gate) g = from_float<bf16>(0.01f * to_float(g));
    rng d(44);
    for (float& b : s.choice_bias) {
      b = static_cast<float>(7.0 + 0.003 * d.normal());
      ASSERT_EQ(to_float(from_float<bf16>(b)), 7.0f);
    }
    layer_choice const want = choice_of(s, s.choice_bias);
    ASSERT_GT(want.margin, 1e-5);
    ASSERT_NE(want.ids, choice_of(s, std::vector<double>(8, 7.0)).ids) << "any bias would do";

    write_checkpoint(folder_, p.config, tensors_of(p, s));
    auto const check = [&](auto const& layer, bool run) {
      bool found = false;
      layer.visit([&]<class T, class G, class W>(moe_weights<T, G, space::host, W> const& w) {
        if constexpr (std::is_same_v<T, bf16> && std::is_same_v<G, bf16> &&
                      std::is_same_v<W, bf16>) {
          found = true;
          ASSERT_EQ(w.choice_bias.size(), 8);
          EXPECT_EQ(std::memcmp(w.choice_bias.data(), s.choice_bias.data(), 8 * sizeof(float)), 0);
          for (on_host const& on : host_configs()) {
            if (!run) break;
            EXPECT_EQ(chosen_by(on, s, w, layer.options()), want.ids) << name_of(on);
          }
        }
      });
      EXPECT_TRUE(found);
    };
    check(checkpoint::load_layer(folder_, 2), true);
    check(checkpoint::load_stored_layer(folder_, 2), false);
    fs::remove_all(folder_);
  }
}

/// Two shards, each with what the index says is in it and an old copy of what is in the other.
void write_with_old_copies(fs::path const& folder, nlohmann::json const& config,
                           tensor_list const& tensors) {
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << config.dump();
  nlohmann::json map = nlohmann::json::object();
  tensor_list old;
  for (checkpoint::tensor_source const& t : tensors.sources()) {
    std::size_t numbers = 1;
    for (std::uint64_t n : t.shape) numbers *= static_cast<std::size_t>(n);
    old.add(t.name, t.shape, std::vector<float>(numbers, -77.0f));
  }
  std::vector<checkpoint::tensor_source> parts[2];
  for (std::size_t i = 0; i < tensors.sources().size(); ++i) {
    parts[i % 2].push_back(tensors.sources()[i]);
    parts[1 - i % 2].push_back(old.sources()[i]);
    map[tensors.sources()[i].name] = i % 2 == 0 ? "part-1.safetensors" : "part-2.safetensors";
  }
  checkpoint::write_safetensors(folder / "part-1.safetensors", parts[0]);
  checkpoint::write_safetensors(folder / "part-2.safetensors", parts[1]);
  std::ofstream(folder / "model.safetensors.index.json")
      << nlohmann::json{{"weight_map", std::move(map)}}.dump();
}

void same_numbers(expert_matrix<float> const& w, guarded<float> const& want) {
  std::size_t i = 0;
  for (offset_t e = 0; e < w.experts(); ++e) {
    for (offset_t n = 0; n < w.rows(); ++n) {
      for (offset_t k = 0; k < w.columns(); ++k) {
        ASSERT_EQ(w.row(e, n)[k * w.stride(2)], want[i++]) << e << " " << n << " " << k;
      }
    }
  }
  EXPECT_EQ(i, want.size());
}

TEST_F(CheckpointField, Battery44_AnOldCopyInAnotherShardIsNotRead) {
  published_family const p = published("deepseek_v3");
  layer_setup<float> const s(p.is);
  write_with_old_copies(folder_, p.config, tensors_of(p, s));
  bool found = false;
  checkpoint::load_layer(folder_, 2).visit([&]<class T, class G>(moe_weights<T, G> const& w) {
    if constexpr (std::is_same_v<T, float>) {
      found = true;
      same_numbers(w.up, s.up);
      same_numbers(w.down, s.down);
      same_numbers(w.shared_up, s.shared_up);
      same_numbers(w.shared_down, s.shared_down);
      EXPECT_EQ(std::memcmp(w.gate.data(), s.gate.data(), s.gate.size() * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(w.choice_bias.data(), s.choice_bias.data(), 8 * sizeof(float)), 0);
    }
  });
  EXPECT_TRUE(found);
}

/// The matrices of experts, shared ones too, in fp8, each with one scale. Their names, without .weight.
std::vector<std::string> put_in_fp8(published_family& p, tensor_list& tensors) {
  p.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  std::vector<std::pair<std::string, std::vector<std::uint64_t>>> found;
  for (checkpoint::tensor_source const& t : tensors.sources()) {
    std::size_t const end = t.name.rfind(".weight");
    if (end == std::string::npos || t.name.find("experts.") == std::string::npos) continue;
    found.emplace_back(t.name.substr(0, end), t.shape);
  }
  std::vector<std::string> names;
  float scale = 1.0f;
  for (auto const& [name, shape] : found) {
    auto const numbers = static_cast<std::size_t>(shape[0] * shape[1]);
    tensors.remove(name + ".weight");
    tensors.add(name + ".weight", shape, std::vector<std::uint8_t>(numbers, 0x38), "F8_E4M3");
    tensors.add(name + ".weight_scale_inv", {1, 1}, std::vector<float>{scale});
    scale += 1.0f;
    names.push_back(name);
  }
  return names;
}

TEST_F(CheckpointField, Battery44_ScalesOfFp8ThatAreAbsentOrMisnamedAreRefused) {
  published_family p = published("deepseek_v3");
  layer_setup<bf16> const s(p.is);
  tensor_list whole = tensors_of(p, s);
  std::vector<std::string> const names = put_in_fp8(p, whole);
  ASSERT_EQ(names.size(), 27u);
  for (bool const stored : {false, true}) ASSERT_EQ(refusal(p.config, whole, stored), "");
  for (std::string const& name : names) {
    std::string const scale = name + ".weight_scale_inv";
    std::string const want = "there is no tensor " + scale + "; it must be [1,1]";
    tensor_list tensors = whole;
    tensors.remove(scale);
    expect_refusal(p, tensors, want);
    for (char const* tail : {".weight_scale", ".scales", ".weight_scale_inverse", "_scale_inv",
                             ".weight_scale_inv.weight"}) {
      tensors = whole;
      tensors.find(scale)->name = name + tail;
      expect_refusal(p, tensors, want);
    }
  }
  // One of the two published names, and not both: one of them would not be used.
  tensor_list tensors = whole;
  std::string const scale = names[3] + ".weight_scale_inv";
  tensors.add(names[3] + ".scale", {1, 1}, std::vector<float>{2.0f});
  expect_refusal(p, tensors, "tensor " + scale + " is one of the layer, but config.json");
  tensors.remove(scale);
  for (bool const stored : {false, true}) EXPECT_EQ(refusal(p.config, tensors, stored), "");
  // A scale beside a matrix that has none to have.
  tensors = whole;
  tensors.remove(names[3] + ".weight");
  tensors.add(names[3] + ".weight", {9, 19}, std::vector<bf16>(9 * 19));
  EXPECT_NE(refusal(p.config, tensors, false).find("tensor " + scale + " is one of the layer"),
            std::string::npos);
}

/// Number (0,0) of the first half of each expert's up, and of each down.
std::vector<float> firsts(fs::path const& folder) {
  std::vector<float> all;
  checkpoint::load_layer(folder, 2, {.widen = true})
      .visit([&]<class T, class G>(moe_weights<T, G> const& w) {
        for (offset_t e = 0; e < w.up.experts(); ++e) {
          all.push_back(to_float(*w.up.row(e, 0)));
          all.push_back(to_float(*w.up.row(e, 9)));
          all.push_back(to_float(*w.down.row(e, 0)));
        }
      });
  return all;
}

TEST_F(CheckpointField, Battery44_EachMatrixHasTheScaleOfItsNameInEitherSpelling) {
  published_family p = published("deepseek_v3");
  layer_setup<bf16> const s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::vector<std::string> const names = put_in_fp8(p, tensors);
  std::vector<float> want;
  for (int i = 0; i < 24; ++i) want.push_back(static_cast<float>(i + 1));  // each number is 1
  write_checkpoint(folder_, p.config, tensors, 3);
  EXPECT_EQ(firsts(folder_), want);
  fs::remove_all(folder_);
  for (std::string const& name : names) {
    tensors.find(name + ".weight_scale_inv")->name = name + ".scale";
  }
  write_checkpoint(folder_, p.config, tensors, 3);
  EXPECT_EQ(firsts(folder_), want);
}

TEST_F(CheckpointField, Battery44_ExpertsInOneTensorWithoutScalesAreRefused) {
  published_family const fused = in_modules(published("qwen3_moe"));
  layer_setup<bf16> const s(fused.is);
  std::string const at = "model.layers.2.mlp.experts.";
  for (char const* name : {"gate_up_proj", "down_proj"}) {
    tensor_list tensors = tensors_of(fused, s);
    std::vector<std::uint64_t> const shape = tensors.find(at + name)->shape;
    auto const numbers = static_cast<std::size_t>(shape[0] * shape[1] * shape[2]);
    tensors.remove(at + name);
    tensors.add(at + name, shape, std::vector<std::uint8_t>(numbers), "F8_E4M3");
    EXPECT_NE(refusal(fused.config, tensors, false).find("tensor " + at + name + " is F8_E4M3"),
              std::string::npos);
    EXPECT_NE(refusal(fused.config, tensors, true).find(at + name), std::string::npos);
  }
  published_family wide = published("gpt_oss");
  wide.is.f.width = 32;
  wide.config["hidden_size"] = 32;
  layer_setup<bf16> const t(wide.is);
  tensor_list tensors = tensors_of(wide, t);
  tensors.remove(at + "gate_up_proj");
  tensors.add(at + "gate_up_proj_blocks", {8, 18, 1, 16}, std::vector<std::uint8_t>(8 * 18 * 16));
  expect_refusal(wide, tensors, "there is no tensor " + at + "gate_up_proj_scales");
  tensors.add(at + "gate_up_proj_scale", {8, 18, 1}, std::vector<std::uint8_t>(8 * 18));
  expect_refusal(wide, tensors, "there is no tensor " + at + "gate_up_proj_scales");
}

}  // namespace examples_checkpoint_field_test
}  // namespace shunt::test
