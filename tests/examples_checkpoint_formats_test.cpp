// Published fp8 and mxfp4 experts that stay as they are stored: the layer has the bits of the layer
// with the same weights decoded to float, and what does not fit is refused with a sentence.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "support/stored_experts.hpp"

namespace shunt::test {
namespace examples_checkpoint_formats_test {

class CheckpointFormats : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::temp_directory_path() / ("shunt_checkpoint_formats." + std::to_string(::getpid()));
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

std::vector<std::uint8_t> powers(std::uint64_t count, rng& d) {
  std::vector<std::uint8_t> v(static_cast<std::size_t>(count));
  for (auto& b : v) b = static_cast<std::uint8_t>(120 + d.below(5));
  return v;
}

/// As DeepSeek-V3 publishes it, with scales of this type: float, bf16 or (bytes) e8m0.
template <class Scale> void in_fp8(a_checkpoint& c, std::uint64_t block_rows = 128) {
  c.p.config["quantization_config"] = {{"quant_method", "fp8"},
                                       {"weight_block_size", {block_rows, 128}}};
  rng d(1);
  c.each_expert_matrix([&](std::string const& name, std::vector<std::uint64_t> const& shape) {
    std::vector<std::uint64_t> const blocks = {(shape[0] + block_rows - 1) / block_rows,
                                               (shape[1] + 127) / 128};
    std::vector<Scale> scales;
    for (std::uint64_t i = 0; i < blocks[0] * blocks[1]; ++i) {
      if constexpr (sizeof(Scale) == 1) {
        scales.push_back(static_cast<std::uint8_t>(112 + d.below(7)));
      } else {
        scales.push_back(from_float<Scale>(0.0003f + 0.0001f * static_cast<float>(d.below(9))));
      }
    }
    c.tensors.remove(name + ".weight");
    c.tensors.add(name + ".weight", shape, numbers(shape[0] * shape[1], d), "F8_E4M3");
    c.tensors.add(name + ".weight_scale_inv", blocks, scales,
                  sizeof(Scale) == 1 ? "F8_E8M0" : std::string());
  });
}

/// As DeepSeek-V4 publishes its experts; here the shared one too.
void in_mxfp4(a_checkpoint& c) {
  rng d(2);
  c.each_expert_matrix([&](std::string const& name, std::vector<std::uint64_t> const& shape) {
    std::uint64_t const N = shape[0], K = shape[1];
    c.tensors.remove(name + ".weight");
    c.tensors.add(name + ".weight", {N, K / 2}, numbers(N * K / 2, d), "I8");
    c.tensors.add(name + ".scale", {N, K / 32}, powers(N * K / 32, d), "F8_E8M0");
  });
}

/// As gpt-oss publishes them: all in one tensor, rows of gate and up in turn.
void in_gpt_oss_blocks(a_checkpoint& c) {
  rng d(3);
  auto const H = static_cast<std::uint64_t>(c.p.is.f.width);
  auto const I = static_cast<std::uint64_t>(c.p.is.f.intermediate);
  std::string const at = "model.layers.2.mlp.experts.";
  auto const put = [&](std::string const& name, std::uint64_t N, std::uint64_t K) {
    c.tensors.remove(name);
    c.tensors.add(name + "_blocks", {8, N, K / 32, 16}, numbers(8 * N * K / 2, d));
    c.tensors.add(name + "_scales", {8, N, K / 32}, powers(8 * N * K / 32, d));
  };
  put(at + "gate_up_proj", 2 * I, H);
  put(at + "down_proj", H, I);
}

// 150 rows: the border of gate and up is no multiple of 16 or 128; 200 columns: nor are rows.
TEST_F(CheckpointFormats, Fp8HasTheBitsOfTheDecodedWeights) {
  a_checkpoint floats("deepseek_v3", 200, 150), halves("minimax_m2", 130, 128),
      powers("deepseek_v3", 64, 33);
  in_fp8<float>(floats);
  in_fp8<bf16>(halves);
  in_fp8<std::uint8_t>(powers);
  for (a_checkpoint const* c : {&floats, &halves, &powers}) {
    has_the_bits_of_the_decoded<fp8_block>(*c, folder_);
  }
}

TEST_F(CheckpointFormats, Mxfp4HasTheBitsOfTheDecodedWeights) {
  a_checkpoint apart("deepseek_v4", 96, 32), fused("gpt_oss", 64, 96);
  in_mxfp4(apart);
  in_gpt_oss_blocks(fused);
  has_the_bits_of_the_decoded<mxfp4>(apart, folder_);
  has_the_bits_of_the_decoded<mxfp4>(fused, folder_);
}

TEST_F(CheckpointFormats, AGateOfAnotherTypeThanTheTokensIsFloat) {
  a_checkpoint c("minimax_m2", 130, 128);
  in_fp8<float>(c);
  std::string const gate = "model.layers.2.block_sparse_moe.gate.weight";
  c.tensors.remove(gate);
  c.tensors.add(gate, {8, 130}, std::vector<float>(8 * 130, 0.1f));
  write_checkpoint(folder_, c.p.config, c.tensors);
  checkpoint::load_stored_layer(folder_, 2)
      .visit([]<class T, class G, class W>(moe_weights<T, G, space::host, W> const& w) {
        EXPECT_TRUE(
            (std::is_same_v<T, bf16> && std::is_same_v<G, float> && std::is_same_v<W, fp8_block>));
        EXPECT_EQ(to_float(w.gate.data()[77]), 0.1f);
      });
}

TEST_F(CheckpointFormats, WhatIsStoredPlainIsUsedWhereItLies) {
  a_checkpoint const c("olmoe", 19, 9);
  write_checkpoint(folder_, c.p.config, c.tensors);
  checkpoint::stored_layer const layer = checkpoint::load_stored_layer(folder_, 2);
  EXPECT_EQ(layer.bytes_owned(), 0u);
  as_stored<bf16>(layer, [&](auto const& w) { EXPECT_NE(w.up.pointers(), nullptr); });
}

TEST_F(CheckpointFormats, WhatDoesNotFitIsRefusedWithASentence) {
  auto const refusal = [&](a_checkpoint const& c, std::string const& want) {
    fs::remove_all(folder_);
    write_checkpoint(folder_, c.p.config, c.tensors);
    EXPECT_NO_THROW((void)checkpoint::load_layer(folder_, 2)) << "decoded, it can be read";
    try {
      (void)checkpoint::load_stored_layer(folder_, 2);
      ADD_FAILURE() << "it was taken; expected: " << want;
    } catch (lm::problem const& refused) {
      EXPECT_NE(
          std::string(refused.what()).find(want + ". Load the layer as bf16 or float instead"),
          std::string::npos)
          << refused.what();
    }
  };
  a_checkpoint low("deepseek_v3", 200, 150);
  in_fp8<float>(low, 64);
  std::string const v3 = "tensor model.layers.2.mlp.", first = "experts.0.gate_proj.weight";
  refusal(low, v3 + first +
                   " has a scale for each 64 x 128; as stored, fp8 experts have one for "
                   "each 128 x 128");

  a_checkpoint other("deepseek_v3", 200, 150);
  in_fp8<float>(other);
  for (char const* name : {"experts.5.up_proj.weight", "experts.0.gate_proj.weight"}) {
    other.tensors.find("model.layers.2.mlp." + std::string(name))->kind = "F8_E5M2";
    refusal(other, v3 + name + " is F8_E5M2; as stored, fp8 experts are all F8_E4M3");
  }

  a_checkpoint mixed("deepseek_v3", 200, 150);
  in_fp8<float>(mixed);
  std::string const shared = "model.layers.2.mlp.shared_experts.down_proj.weight";
  mixed.tensors.remove(shared);
  mixed.tensors.remove(shared + "_scale_inv");
  mixed.tensors.add(shared, {200, 150}, std::vector<bf16>(200 * 150));
  refusal(mixed, "tensor " + shared + " is BF16; as stored, fp8 experts are all F8_E4M3");

  // DeepSeek-V4's own: routed experts in fp4, the shared one in fp8.
  a_checkpoint four("deepseek_v4", 96, 32);
  in_mxfp4(four);
  for (char const* part : {"w1", "w3", "w2"}) {
    std::string const name = std::string("layers.2.ffn.shared_experts.") + part;
    std::vector<std::uint64_t> const shape =
        part[1] == '2' ? std::vector<std::uint64_t>{96, 32} : std::vector<std::uint64_t>{32, 96};
    for (char const* tail : {".weight", ".scale"}) four.tensors.remove(name + tail);
    four.tensors.add(name + ".weight", shape, std::vector<std::uint8_t>(96 * 32), "F8_E4M3");
    four.tensors.add(name + ".scale", {1, 1}, std::vector<std::uint8_t>{120}, "F8_E8M0");
  }
  refusal(four,
          "tensor layers.2.ffn.shared_experts.w1.weight is F8_E4M3; as stored, mxfp4 experts "
          "are all two numbers a byte");

  a_checkpoint scaled("deepseek_v4", 96, 32);
  in_mxfp4(scaled);
  std::string const scale = "layers.2.ffn.experts.7.w2.scale";
  scaled.tensors.remove(scale);
  scaled.tensors.add(scale, {96, 1}, std::vector<float>(96, 0.3f));
  refusal(scaled, "tensor " + scale + " is F32; as stored, mxfp4 experts have scales of F8_E8M0");

  a_checkpoint half("gpt_oss", 64, 96);
  std::string const down = "model.layers.2.mlp.experts.down_proj";
  in_gpt_oss_blocks(half);
  for (char const* tail : {"_blocks", "_scales"}) half.tensors.remove(down + tail);
  half.tensors.add(down, {8, 96, 64}, std::vector<bf16>(8 * 96 * 64));
  refusal(half, "tensor " + down + " is BF16; as stored, mxfp4 experts are all two numbers a byte");
}

}  // namespace examples_checkpoint_formats_test
}  // namespace shunt::test
