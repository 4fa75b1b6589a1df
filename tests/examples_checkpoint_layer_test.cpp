// Layers that are not quite what their config.json says: tensors that nothing would use, experts of
// several types, types that are not known, sizes that wrap. Nothing is computed here.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/loaded_layer.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_layer_test {

namespace fs = std::filesystem;

class CheckpointLayer : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_checkpoint_layer." + std::to_string(::getpid()));
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// The sentence with which the layer on the disk is refused; empty where it is read.
  [[nodiscard]] std::string refusal(bool stored = false) const {
    try {
      stored ? (void)checkpoint::load_stored_layer(folder_, 2)
             : (void)checkpoint::load_layer(folder_, 2);
    } catch (lm::problem const& refused) { return refused.what(); }
    return {};
  }
  [[nodiscard]] std::string refusal(nlohmann::json const& config, tensor_list const& tensors,
                                    bool stored = false) const {
    fs::remove_all(folder_);
    write_checkpoint(folder_, config, tensors);
    return refusal(stored);
  }

  /// Names another type in the header: the writer knows none but its own.
  void rename_type(std::string const& tensor, std::string const& kind) const {
    fs::path const path = folder_ / "model.safetensors";
    std::ifstream in(path, std::ios::binary);
    std::string const bytes{std::istreambuf_iterator<char>(in), {}};
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    auto header = nlohmann::json::parse(bytes.substr(8, static_cast<std::size_t>(length)));
    ASSERT_TRUE(header.contains(tensor)) << tensor;
    header[tensor]["dtype"] = kind;
    std::string const text = header.dump(),
                      data = bytes.substr(8 + static_cast<std::size_t>(length));
    length = text.size();
    std::string head(8, '\0');
    std::memcpy(head.data(), &length, 8);
    std::ofstream(path, std::ios::binary) << head << text << data;
  }

  fs::path folder_;
};

bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}
std::string block_of(published_family const& p) {
  return p.prefix + "layers." + std::to_string(p.layer) + "." + p.block;
}

TEST_F(CheckpointLayer, Battery32_ATensorThatNothingUsesIsRefused) {
  std::vector<published_family> families = published_families();
  for (published_family const& p : published_families()) families.push_back(in_modules(p));
  for (published_family const& p : families) {
    layer_setup<float> const s(p.is);
    tensor_list const whole = tensors_of(p, s);
    ASSERT_EQ(refusal(p.config, whole), "") << p.name;
    std::vector<std::string> const rests = {
        "experts." + std::to_string(p.is.f.experts) + ".up_proj.weight",
        "shared_experts.up_proj.bias",
        "gate.weight_scale_inv",
        "experts.0.up_proj.bias",
        "fc1_latent_proj.bias",
        "shared_expert.up.weight"};
    for (std::string const& rest : rests) {
      if (p.fused && rest != rests[0] && rest != rests[1]) continue;
      tensor_list more = whole;
      std::string const name = block_of(p) + rest;
      more.add(name, {3}, std::vector<float>(3));
      EXPECT_PRED2(
          contains, refusal(p.config, more),
          "tensor " + name + " is one of the layer, but config.json describes a layer without it")
          << p.name;
    }
    // What belongs to others does not matter.
    tensor_list others = whole;
    std::string const layer = p.prefix + "layers.2.", next = p.prefix + "layers.22." + p.block;
    others.add(layer + "input_layernorm.weight", {3}, std::vector<float>(3));
    others.add(layer + "mlps.0.up_proj.weight", {3}, std::vector<float>(3));
    others.add(next + "experts.0.up_proj.weight", {3}, std::vector<float>(3));
    EXPECT_EQ(refusal(p.config, others), "") << p.name;
  }
}

TEST_F(CheckpointLayer, Battery32_SharedExpertsThatTheConfigurationLacksAreRefused) {
  int tried = 0;
  for (published_family const& p : published_families()) {
    layer_setup<float> const s(p.is);
    for (char const* key : {"n_shared_experts", "num_shared_experts"}) {
      for (nlohmann::json const& none : {nlohmann::json(0), nlohmann::json(nullptr)}) {
        if (!p.config.contains(key)) continue;
        nlohmann::json config = p.config;
        config[key] = none;
        std::string const said = refusal(config, tensors_of(p, s));
        EXPECT_PRED2(contains, said, "tensor " + block_of(p) + p.shared) << p.name;
        EXPECT_PRED2(contains, said, "config.json describes a layer without it, as without ")
            << p.name;
        ++tried;
      }
    }
  }
  EXPECT_GE(tried, 16);
}

TEST_F(CheckpointLayer, Battery32_DeepSeekV3WithoutItsKeysIsDeepSeekV3) {
  published_family const p = published("deepseek_v3");
  layer_setup<float> const s(p.is);
  nlohmann::json config = p.config;
  for (char const* key : {"n_shared_experts", "routed_scaling_factor", "n_group", "topk_group",
                          "norm_topk_prob", "scoring_func", "topk_method"}) {
    config.erase(key);
  }
  write_checkpoint(folder_, config, tensors_of(p, s));
  auto const layer = checkpoint::load_layer(folder_, 2);
  EXPECT_EQ(layer.options().route.scale, 2.5f);
  EXPECT_EQ(layer.options().route.groups, 8);
  EXPECT_EQ(layer.options().route.top_groups, 4);
  EXPECT_EQ(layer.options().route.gates, gate_kind::renormalized);
  layer.visit([&](auto const& w) { EXPECT_EQ(w.shared_up.rows(), 2 * 9); });
}

TEST_F(CheckpointLayer, Battery32_WhatTheReferenceDoesNotReadEitherIsNoFault) {
  published_family const p = published("longcat_flash");
  layer_setup<float> const s(p.is);
  tensor_list tensors = tensors_of(p, s);
  tensors.add(block_of(p) + "router.classifier.bias", {11}, std::vector<float>(11));
  EXPECT_EQ(refusal(p.config, tensors), "");
  // Nor does it compute with experts that are the identity, for which its module has room.
  for (char const* e : {"8", "10"}) {
    tensors.add(block_of(p) + "experts." + e + ".up_proj.weight", {9, 19},
                std::vector<bf16>(9 * 19));
  }
  EXPECT_EQ(refusal(p.config, tensors), "");
  checkpoint::load_layer(folder_, 2).visit([]<class T, class G>(moe_weights<T, G> const&) {
    EXPECT_TRUE((std::is_same_v<T, float> && std::is_same_v<G, float>));
  });
  std::string const other = block_of(p) + "experts.11.up_proj.weight";
  tensors.add(other, {9, 19}, std::vector<float>(9 * 19));
  EXPECT_PRED2(contains, refusal(p.config, tensors), "tensor " + other + " is one of the layer");
}

TEST_F(CheckpointLayer, Battery32_ALayerUnderTwoNamesIsRefused) {
  published_family const p = published("mixtral");
  layer_setup<float> const s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const other = "model.layers.2.mlp.experts.0.w1.weight";
  tensors.add(other, {9, 19}, std::vector<float>(9 * 19));
  EXPECT_PRED2(contains, refusal(p.config, tensors), "tensor " + other + " is one of the layer");
}

TEST_F(CheckpointLayer, Battery31_ABlockSizeThatWrapsReadsNothingOutside) {
  published_family p = published("deepseek_v3");
  layer_setup<float> const s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const name = block_of(p) + "experts.0.gate_proj.weight";
  tensors.remove(name);
  tensors.add(name, {9, 19}, std::vector<std::uint8_t>(9 * 19, 0x38), "F8_E4M3");
  std::vector<std::uint64_t> const none[] = {{0, 1}, {1, 0}};  // (n + b - 1) / b, had it wrapped
  constexpr std::uint64_t most = ~std::uint64_t{0};
  for (bool const of_columns : {false, true}) {
    auto const sizes = [&](std::uint64_t size) {
      return of_columns ? nlohmann::json{128, size} : nlohmann::json{size, 128};
    };
    tensors.remove(name + "_scale_inv");
    tensors.add(name + "_scale_inv", none[of_columns], std::vector<float>{});
    for (std::uint64_t const size : {most, most - 7, most / 2 + 1}) {
      p.config["quantization_config"] = {{"weight_block_size", sizes(size)}};
      for (bool const stored : {false, true}) {
        EXPECT_PRED2(contains, refusal(p.config, tensors, stored),
                     "weight_block_size must be two counts of at least 1 and less than 2^31")
            << size;
      }
    }
    p.config["quantization_config"]["weight_block_size"] = sizes(2147483647);
    EXPECT_PRED2(contains, refusal(p.config, tensors),
                 "has shape " + checkpoint::shape_text(none[of_columns]) + "; it must be [1,1]");
  }
}

TEST_F(CheckpointLayer, Battery31_DecodingTakesBlocksOfAnySize) {
  constexpr std::uint64_t most = ~std::uint64_t{0};
  std::vector<std::byte> const ones(6, std::byte{0x38});
  float const scale = 3.0f;
  checkpoint::tensor const numbers{"numbers", "F8_E4M3", {2, 3}, ones.data(), 6};
  checkpoint::tensor const scales{
      "scales", "F32", {1, 1}, reinterpret_cast<std::byte const*>(&scale), 4};
  std::vector<float> to(6);
  checkpoint::decode({&numbers, &scales, 2, 3, most, most, false}, to.data());
  EXPECT_EQ(to, std::vector<float>(6, 3.0f));
}

TEST_F(CheckpointLayer, Battery40_ATypeThatIsNotKnownMattersWhereItIsAskedFor) {
  published_family const p = published("deepseek_v3");
  layer_setup<float> const s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const other = "model.layers.2.self_attn.q_proj.weight";
  tensors.add(other, {4}, std::vector<float>(4));
  std::string const kinds[] = {"C64", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F33", "\x1b[2J"};
  for (std::string const& kind : kinds) {
    for (bool const stored : {false, true}) {
      fs::remove_all(folder_);
      write_checkpoint(folder_, p.config, tensors);
      rename_type(other, kind);
      EXPECT_EQ(refusal(stored), "") << kind;
      for (checkpoint::tensor_source const& t : tensors.sources()) {
        bool const one_of_each = !contains(t.name, "experts.") || contains(t.name, "experts.5.up");
        if (t.name == other || (!one_of_each && (stored || kind != "C64"))) continue;
        fs::remove_all(folder_);
        write_checkpoint(folder_, p.config, tensors);
        rename_type(t.name, kind);
        EXPECT_PRED2(contains, refusal(stored),
                     "tensor " + t.name + " is " + checkpoint::quotable(kind) + "; known here are")
            << kind;
      }
    }
  }
  // Scales too, and a table.
  std::string const name = block_of(p) + "experts.3.down_proj.weight";
  tensors.remove(name);
  tensors.add(name, {19, 9}, std::vector<std::uint8_t>(19 * 9, 0x38), "F8_E4M3");
  tensors.add(name + "_scale_inv", {1, 1}, std::vector<float>{1.0f});
  ASSERT_EQ(refusal(p.config, tensors), "");
  rename_type(name + "_scale_inv", "C64");
  EXPECT_PRED2(contains, refusal(), "tensor " + name + "_scale_inv is C64; known here are");
  published_family const hash = published("deepseek_v4_hash");
  layer_setup<float> const t(hash.is);
  ASSERT_EQ(refusal(hash.config, tensors_of(hash, t)), "");
  rename_type(block_of(hash) + "gate.tid2eid", "C64");
  EXPECT_PRED2(contains, refusal(),
               "tensor " + block_of(hash) + "gate.tid2eid is C64 [23,3]; it must");
}

/// A tensor in another type, of the numbers that `value` gives.
template <class T, class F>
void replace(tensor_list& tensors, std::string const& name, F const& value) {
  checkpoint::tensor_source* const t = tensors.find(name);
  ASSERT_NE(t, nullptr) << name;
  std::vector<std::uint64_t> const shape = t->shape;
  std::vector<T> numbers;
  std::uint64_t count = 1;
  for (std::uint64_t n : shape) count *= n;
  for (std::uint64_t i = 0; i < count; ++i) numbers.push_back(from_float<T>(value(i)));
  tensors.remove(name);
  tensors.add(name, shape, numbers);
}

/// Number (n,k) of matrix e.
template <class T> float number(expert_matrix<T> const& w, int e, int n, int k) {
  return to_float(w.row(e, n)[k * w.stride(2)]);
}

// fp16 cannot hold 1e6, nor bf16 what fp16 rounds 1.001 to: in float both are what they were.
TEST_F(CheckpointLayer, Battery42_ExpertsOfSeveralTypesBecomeFloat) {
  published_family const p = published("deepseek_v3");
  layer_setup<fp16> const halves(p.is);
  layer_setup<bf16> const brains(p.is);
  auto const large = [](std::uint64_t i) { return 1e6f * static_cast<float>(i + 1); };
  auto const fine = [](std::uint64_t i) { return 1.0f + 0x1p-10f * static_cast<float>(i % 900); };
  std::string const at = block_of(p);
  auto const check = [&](tensor_list const& tensors, char const* what, int e, int n, auto value,
                         bool stored) {
    SCOPED_TRACE(std::string(what) + (stored ? ", as stored" : ""));
    fs::remove_all(folder_);
    write_checkpoint(folder_, p.config, tensors);
    bool found = false;
    auto const look = [&]<class T, class G, class W>(moe_weights<T, G, space::host, W> const& w) {
      if constexpr (std::is_same_v<W, float>) {
        found = true;
        auto const& m = e < 8 ? w.up : w.shared_up;
        for (int r = 0; r < 9; ++r) {
          for (int k = 0; k < 19; ++k) {
            auto const i = static_cast<std::uint64_t>(r * 19 + k);
            ASSERT_EQ(number(m, e % 8, n + r, k), value(i)) << r << " " << k;
          }
        }
      }
    };
    stored ? checkpoint::load_stored_layer(folder_, 2).visit(look)
           : checkpoint::load_layer(folder_, 2).visit(look);
    EXPECT_TRUE(found) << "the layer is not of float";
  };
  for (bool const stored : {false, true}) {
    auto const in_bf16 = [&](std::uint64_t i) { return to_float(from_float<bf16>(large(i))); };
    tensor_list a = tensors_of(p, halves);
    replace<bf16>(a, at + "experts.5.gate_proj.weight", large);
    check(a, "fp16, and one bf16", 5, 0, in_bf16, stored);
    tensor_list b = tensors_of(p, brains);
    replace<fp16>(b, at + "experts.5.up_proj.weight", fine);
    check(b, "bf16, and one fp16", 5, 9, fine, stored);
    tensor_list c = tensors_of(p, halves);
    replace<float>(c, at + "experts.7.up_proj.weight", large);
    check(c, "fp16, and one float", 7, 9, large, stored);
    tensor_list d = tensors_of(p, halves);
    replace<bf16>(d, at + "shared_experts.up_proj.weight", large);
    check(d, "fp16, and a shared bf16", 8, 9, in_bf16, stored);
  }
  // Blocks become bf16, unless fp16 stands next to them.
  auto const decoded = [](std::uint64_t) { return 1e6f; };
  auto const in_fp8 = [&](tensor_list tensors) {
    std::string const name = at + "experts.6.gate_proj.weight";
    tensors.remove(name);
    tensors.add(name, {9, 19}, std::vector<std::uint8_t>(9 * 19, 0x38), "F8_E4M3");
    tensors.add(name + "_scale_inv", {1, 1}, std::vector<float>{1e6f});
    return tensors;
  };
  check(in_fp8(tensors_of(p, halves)), "fp16, and one fp8", 6, 0, decoded, false);
  tensor_list const mixed = in_fp8(tensors_of(p, brains));
  EXPECT_EQ(refusal(p.config, mixed), "") << "bf16 holds what fp8 becomes";
  EXPECT_PRED2(contains, refusal(p.config, mixed, true),
               "tensor " + at +
                   "experts.6.gate_proj.weight is F8_E4M3; as stored, experts are all "
                   "of one format, as tensor " +
                   at + "experts.0.up_proj.weight, BF16");
}

// Biases, latents and the shared expert's gate are of the tokens' type as well.
TEST_F(CheckpointLayer, Battery42_WhatStandsNextToExpertsIsNotRounded) {
  auto const large = [](std::uint64_t) { return 1e6f; };
  struct {
    char const *family, *name;
  } const cases[] = {{"nemotron_3", "fc1_latent_proj.weight"},
                     {"nemotron_3", "fc2_latent_proj.weight"},
                     {"gpt_oss", "experts.gate_up_proj_bias"},
                     {"gpt_oss", "experts.down_proj_bias"},
                     {"qwen2_moe", "shared_expert_gate.weight"}};
  for (auto const& c : cases) {
    SCOPED_TRACE(c.name);
    published_family const p = published(c.family);
    layer_setup<fp16> const s(p.is);
    tensor_list tensors = tensors_of(p, s);
    replace<bf16>(tensors, block_of(p) + c.name, large);
    fs::remove_all(folder_);
    write_checkpoint(folder_, p.config, tensors);
    bool found = false;
    checkpoint::load_layer(folder_, 2).visit([&]<class T, class G>(moe_weights<T, G> const& w) {
      if constexpr (std::is_same_v<T, float>) {
        found = true;
        std::string const name = c.name;
        float const first =
            name.starts_with("fc1")            ? w.latent_down.data()[0]
            : name.starts_with("fc2")          ? w.latent_up.data()[0]
            : name.ends_with("up_proj_bias")   ? *static_cast<float const*>(w.up_bias.data())
            : name.ends_with("down_proj_bias") ? *static_cast<float const*>(w.down_bias.data())
                                               : w.shared_gate.data()[0];
        EXPECT_EQ(first, to_float(from_float<bf16>(1e6f)));
      }
    });
    EXPECT_TRUE(found) << "the layer is not of float";
  }
  // As stored the tokens are bf16: what that cannot hold is refused.
  published_family p = published("qwen2_moe");
  layer_setup<bf16> const s(p.is);
  tensor_list tensors = tensors_of(p, s), whole = tensors;
  for (checkpoint::tensor_source const& t : whole.sources()) {
    if (!contains(t.name, "expert") || contains(t.name, "expert_gate")) continue;
    tensors.remove(t.name);
    tensors.add(t.name, t.shape, std::vector<std::uint8_t>(t.shape[0] * t.shape[1], 0x38),
                "F8_E4M3");
    tensors.add(t.name + "_scale_inv", {1, 1}, std::vector<float>{1.0f});
  }
  EXPECT_EQ(refusal(p.config, tensors, true), "");
  replace<float>(tensors, block_of(p) + "shared_expert_gate.weight", large);
  EXPECT_PRED2(
      contains, refusal(p.config, tensors, true),
      "tensor " + block_of(p) +
          "shared_expert_gate.weight is F32; next to fp8 experts as stored it must be BF16");
  EXPECT_EQ(refusal(p.config, tensors), "") << "decoded, it can be read";
}

}  // namespace examples_checkpoint_layer_test
}  // namespace shunt::test
