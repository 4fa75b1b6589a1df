// Published weights in small types, against formulas of the tests' own; and what a file of others
// may do that the writer here never does.
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/loaded_layer.hpp"
#include "support/published_families.hpp"

namespace shunt::test {
namespace examples_checkpoint_test {

namespace fs = std::filesystem;

/// The number that sign, exponent and mantissa stand for, by the definition of the format.
double small_float(unsigned bits, int exponent_bits, int mantissa_bits, int bias) {
  double const sign = bits >> (exponent_bits + mantissa_bits) & 1u ? -1.0 : 1.0;
  int const exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  double const mantissa = (bits & ((1u << mantissa_bits) - 1)) / std::ldexp(1.0, mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(mantissa, 1 - bias)
                       : sign * std::ldexp(1.0 + mantissa, exponent - bias);
}
double e4m3(unsigned bits) { return small_float(bits, 4, 3, 7); }
double e2m1(unsigned bits) { return small_float(bits, 2, 1, 1); }
double e8m0(unsigned bits) { return std::ldexp(1.0, static_cast<int>(bits) - 127); }

/// All finite bytes of e4m3, in some order.
std::vector<std::uint8_t> some_bytes(std::size_t count, std::uint64_t seed, bool any = false) {
  rng d(seed);
  std::vector<std::uint8_t> v(count);
  for (auto& b : v) {
    do { b = static_cast<std::uint8_t>(d.below(256)); } while (!any && (b & 0x7f) == 0x7f);
  }
  return v;
}

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_checkpoint." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// Calls f(weights) with the layer's weights of type T.
  template <class T, class F> void loaded(F f, bool widen = false) const {
    auto const layer = checkpoint::load_layer(folder_, 2, {.widen = widen});
    bool called = false;
    layer.visit([&]<class W, class G>(moe_weights<W, G> const& w) {
      if constexpr (std::is_same_v<W, T>) {
        f(w);
        called = true;
      }
    });
    EXPECT_TRUE(called) << "the layer is of another type";
  }

  fs::path folder_;
};

template <class T> T weight(expert_matrix<T> const& w, int e, int n, int k) {
  return w.row(e, n)[k * w.stride(2)];
}

/// What the double rounds to, through float as the references do.
template <class T> T rounded(double v) { return from_float<T>(static_cast<float>(v)); }

constexpr int rows = 9, columns = 19, high = 4, wide = 8;  // of a matrix, of a block

/// DeepSeek-V3 in fp8: three matrices of expert 5 with their scales.
template <class Scale> struct in_fp8 {
  published_family p = published("deepseek_v3");
  layer_setup<bf16> s{p.is};
  tensor_list tensors = tensors_of(p, s);
  std::vector<std::uint8_t> gate = some_bytes(rows * columns, 1),
                            up = some_bytes(rows * columns, 2),
                            down = some_bytes(rows * columns, 3);
  std::vector<Scale> gate_scale, up_scale, down_scale;

  in_fp8(std::string const& suffix, std::string const& kind, auto scale_of) {
    p.config["quantization_config"] = {{"quant_method", "fp8"},
                                       {"weight_block_size", {high, wide}}};
    std::string const at = "model.layers.2.mlp.experts.";
    for (int e = 0; e < 8; ++e) {
      auto const put = [&](char const* part, int r, int c, std::vector<std::uint8_t> const& bytes,
                           std::vector<Scale>& scales) {
        std::string const name = at + std::to_string(e) + "." + part;
        auto const u = [](int n) { return static_cast<std::uint64_t>(n); };
        auto const down_of = (r + high - 1) / high, across = (c + wide - 1) / wide;
        scales.clear();
        for (int i = 0; i < down_of * across; ++i) scales.push_back(scale_of(i));
        tensors.remove(name + ".weight");
        tensors.add(name + ".weight", {u(r), u(c)}, bytes, "F8_E4M3");
        tensors.add(name + suffix, {u(down_of), u(across)}, scales, kind);
      };
      put("gate_proj", rows, columns, gate, gate_scale);
      put("up_proj", rows, columns, up, up_scale);
      put("down_proj", columns, rows, down, down_scale);
    }
  }
  template <class T, class F> void check(moe_weights<T, F> const& w, auto meaning) const {
    ASSERT_EQ(w.up.rows(), 2 * rows);
    for (int n = 0; n < 2 * rows; ++n) {
      for (int k = 0; k < columns; ++k) {
        auto const& bytes = n < rows ? gate : up;
        auto const& scales = n < rows ? gate_scale : up_scale;
        auto const i = static_cast<std::size_t>(n % rows * columns + k);
        auto const b = static_cast<std::size_t>(n % rows / high * 3 + k / wide);
        EXPECT_EQ(weight(w.up, 5, n, k), rounded<T>(e4m3(bytes[i]) * meaning(scales[b])));
      }
    }
    for (int n = 0; n < columns; ++n) {
      for (int k = 0; k < rows; ++k) {
        auto const i = static_cast<std::size_t>(n * rows + k);
        auto const b = static_cast<std::size_t>(n / high * 2 + k / wide);
        EXPECT_EQ(weight(w.down, 5, n, k), rounded<T>(e4m3(down[i]) * meaning(down_scale[b])));
      }
    }
  }
};

TEST_F(Checkpoint, Fp8WithFloatScalesOfBlocks) {
  in_fp8<float> const f(".weight_scale_inv", "F32",
                        [](int i) { return 0.001f * static_cast<float>(i * i + 1); });
  auto const meaning = [](float s) { return static_cast<double>(s); };
  write_checkpoint(folder_, f.p.config, f.tensors);
  loaded<bf16>([&](auto const& w) { f.check(w, meaning); });
  loaded<float>([&](auto const& w) { f.check(w, meaning); }, true);
}

TEST_F(Checkpoint, Fp8WithScalesThatArePowersOfTwo) {
  in_fp8<std::uint8_t> const f(".scale", "F8_E8M0",
                               [](int i) { return static_cast<std::uint8_t>(120 + i); });
  auto const meaning = [](std::uint8_t s) { return e8m0(s); };
  write_checkpoint(folder_, f.p.config, f.tensors);
  loaded<bf16>([&](auto const& w) { f.check(w, meaning); });
}

TEST_F(Checkpoint, GptOssInMxfp4) {
  published_family p = published("gpt_oss");
  p.is.f.width = 64;
  p.is.f.intermediate = 32;
  p.config["hidden_size"] = 64;
  p.config["intermediate_size"] = 32;
  p.config["quantization_config"] = {{"quant_method", "mxfp4"}};
  layer_setup<bf16> s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const at = "model.layers.2.mlp.experts.";
  auto const blocks = some_bytes(8 * 64 * 2 * 16, 4, true), scales = some_bytes(8 * 64 * 2, 5);
  auto const down = some_bytes(8 * 64 * 1 * 16, 6, true), down_scales = some_bytes(8 * 64, 7);
  tensors.remove(at + "gate_up_proj");
  tensors.remove(at + "down_proj");
  tensors.add(at + "gate_up_proj_blocks", {8, 64, 2, 16}, blocks);
  tensors.add(at + "gate_up_proj_scales", {8, 64, 2}, scales);
  tensors.add(at + "down_proj_blocks", {8, 64, 1, 16}, down);
  tensors.add(at + "down_proj_scales", {8, 64, 1}, down_scales);
  write_checkpoint(folder_, p.config, tensors);

  auto const check = [&]<class T, class G>(moe_weights<T, G> const& w) {
    EXPECT_EQ(w.up.pairs().block, 1) << "rows of gate and up alternate";
    for (int e = 0; e < 8; ++e) {
      for (int n = 0; n < 64; ++n) {
        for (int k = 0; k < 64; ++k) {
          auto const row = static_cast<std::size_t>(e * 64 + n), c = static_cast<std::size_t>(k);
          unsigned const two = blocks[row * 32 + c / 2];
          double const number = e2m1(c % 2 == 0 ? two & 15u : two >> 4);
          // Beyond float's range and bf16's the same: infinite, or 0.
          EXPECT_EQ(weight(w.up, e, n, k), rounded<T>(number * e8m0(scales[row * 2 + c / 32])));
          if (k >= 32) continue;
          unsigned const other = down[row * 16 + c / 2];
          EXPECT_EQ(
              weight(w.down, e, n, k),
              rounded<T>(e2m1(c % 2 == 0 ? other & 15u : other >> 4) * e8m0(down_scales[row])));
        }
      }
    }
  };
  loaded<bf16>(check);
  loaded<float>(check, true);
}

TEST_F(Checkpoint, DeepSeekV4InFp4) {
  published_family p = published("deepseek_v4");
  p.is.f.width = 32;
  p.is.f.intermediate = 64;
  p.is.f.shared = 64;
  p.config["hidden_size"] = 32;
  p.config["moe_intermediate_size"] = 64;
  layer_setup<bf16> s(p.is);
  tensor_list tensors = tensors_of(p, s);
  auto const bytes = some_bytes(64 * 16, 8, true), scales = some_bytes(64, 9);
  for (int e = 0; e < 8; ++e) {
    for (char const* part : {"w1", "w3", "w2"}) {
      std::string const name = "layers.2.ffn.experts." + std::to_string(e) + "." + part;
      bool const down = std::string(part) == "w2";
      tensors.remove(name + ".weight");
      std::vector<std::uint64_t> const shape =
          down ? std::vector<std::uint64_t>{32, 32} : std::vector<std::uint64_t>{64, 16};
      tensors.add(name + ".weight", shape, bytes, "I8");
      tensors.add(name + ".scale", {shape[0], shape[1] / 16}, scales, "F8_E8M0");
    }
  }
  write_checkpoint(folder_, p.config, tensors);
  loaded<bf16>([&](auto const& w) {
    for (int n = 0; n < 128; ++n) {
      for (int k = 0; k < 32; ++k) {
        auto const row = static_cast<std::size_t>(n % 64), c = static_cast<std::size_t>(k);
        unsigned const two = bytes[row * 16 + c / 2];
        EXPECT_EQ(weight(w.up, 3, n, k),
                  rounded<bf16>(e2m1(c % 2 == 0 ? two & 15u : two >> 4) * e8m0(scales[row])));
      }
    }
  });
}

TEST_F(Checkpoint, AScaleThatIsNoNumberGivesNone) {
  // 1 in every place; of 32 the scales are the largest, the smallest and none.
  std::vector<std::byte> const ones(48, std::byte{0x22});
  std::vector<std::byte> const powers = {std::byte{254}, std::byte{0}, std::byte{255}};
  checkpoint::tensor const numbers{"numbers", "I8", {48}, ones.data(), 48};
  checkpoint::tensor const scales{"scales", "F8_E8M0", {3}, powers.data(), 3};
  std::vector<float> to(96);
  checkpoint::decode({&numbers, &scales, 1, 96, 1, 32, true}, to.data());
  EXPECT_EQ(to[31], 0x1p127f);
  EXPECT_EQ(to[32], 0x1p-127f);
  EXPECT_TRUE(std::isnan(to[64]));
}

TEST_F(Checkpoint, RowsThatAreNoBlocksOf32AreRefused) {
  published_family p = published("gpt_oss");
  layer_setup<bf16> s(p.is);
  tensor_list tensors = tensors_of(p, s);
  std::string const at = "model.layers.2.mlp.experts.";
  tensors.add(at + "gate_up_proj_blocks", {8, 18, 1, 16}, some_bytes(8 * 18 * 16, 1));
  tensors.add(at + "gate_up_proj_scales", {8, 18, 1}, some_bytes(8 * 18, 1));
  write_checkpoint(folder_, p.config, tensors);
  try {
    (void)checkpoint::load_layer(folder_, 2);
    FAIL() << "it was read";
  } catch (lm::problem const& refused) {
    EXPECT_NE(std::string(refused.what()).find("blocks of 32, but a row has 19 numbers"),
              std::string::npos)
        << refused.what();
  }
}

TEST_F(Checkpoint, WhatIsNotAlignedIsCopied) {
  published_family const p = published("qwen3_moe");
  layer_setup<float> s(p.is);
  write_checkpoint(folder_, p.config, tensors_of(p, s));
  // One blank more in the header, and every tensor stands at an odd address.
  fs::path const path = folder_ / "model.safetensors";
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.insert(8 + static_cast<std::size_t>(length), 1, ' ');
  ++length;
  std::memcpy(bytes.data(), &length, 8);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_EQ(checkpoint::load_layer(folder_, 2).used().bytes_in_place(), 0u);
  loaded<float>([&](auto const& w) {
    for (int e = 0; e < 8; ++e) {
      for (int n = 0; n < 18; ++n) {
        for (int k = 0; k < 19; ++k) {
          EXPECT_EQ(weight(w.up, e, n, k), s.up[static_cast<std::size_t>((e * 18 + n) * 19 + k)]);
        }
      }
    }
  });
}

}  // namespace examples_checkpoint_test
}  // namespace shunt::test
