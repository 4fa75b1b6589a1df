// Published 4-bit experts (compressed-tensors, GPTQ, AWQ; nvfp4 of modelopt and compressed-tensors): what
// they mean, that they stay as they are stored, and what is refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "support/stored_experts.hpp"

namespace shunt::test {
namespace examples_checkpoint_int4_test {

class CheckpointInt4 : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_checkpoint_int4." + std::to_string(::getpid()));
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string refused(a_checkpoint const& c, bool stored = false) {
    fs::remove_all(folder_);
    write_checkpoint(folder_, c.p.config, c.tensors);
    try {
      if (stored) {
        (void)checkpoint::load_stored_layer(folder_, 2);
      } else {
        (void)checkpoint::load_layer(folder_, 2);
      }
    } catch (lm::problem const& problem) { return problem.what(); }
    return "it was taken";
  }

  fs::path folder_;
};

/// A matrix [N,K] of integers, the same for a name in whatever form it is published.
struct integers {
  int N, K, group;
  std::vector<int> number, zero;
  std::vector<bf16> scale;

  integers(std::string const& name, std::vector<std::uint64_t> const& shape, int wide, bool zeros)
      : N(static_cast<int>(shape[0])), K(static_cast<int>(shape[1])), group(wide) {
    rng d(std::hash<std::string>{}(name));
    for (int i = 0; i < N * K; ++i) number.push_back(static_cast<int>(d.below(16)));
    for (int i = 0; i < N * groups(); ++i) {
      zero.push_back(zeros ? 1 + static_cast<int>(d.below(15)) : 8);
      scale.push_back(from_float<bf16>(0.002f + 0.0007f * static_cast<float>(d.below(9))));
    }
  }
  int groups() const { return (K + group - 1) / group; }
  int zero_of(int n, int g) const { return zero[static_cast<std::size_t>(n * groups() + g)]; }
  int number_of(int n, int k) const { return number[static_cast<std::size_t>(n * K + k)]; }
  bf16 scale_of(int n, int g) const { return scale[static_cast<std::size_t>(n * groups() + g)]; }
  std::vector<float> weights() const {
    std::vector<float> w;
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < K; ++k) {
        double const s = static_cast<double>(to_float(scale_of(n, k / group)));
        w.push_back(static_cast<float>((number_of(n, k) - zero_of(n, k / group)) * s));
      }
    return w;
  }
};

/// words(rows, columns, get): eight numbers get(r, i) of four bits a word, the first in the lowest bits.
std::vector<std::uint32_t> words(int rows, int columns, auto get) {
  std::vector<std::uint32_t> w;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) {
      std::uint32_t word = 0;
      for (int i = 7; i >= 0; --i) word = word << 4 | static_cast<std::uint32_t>(get(r, c, i));
      w.push_back(word);
    }
  return w;
}

enum class published_as { floats, compressed_tensors, with_zeros, gptq, gptq_v2, awq };

std::vector<std::uint64_t> extents_of(int a, int b) {
  return {static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b)};
}

void put_rows(tensor_list& t, std::string const& name, integers const& m, bool zeros) {
  t.add(name + ".weight_packed", extents_of(m.N, m.K / 8),
        words(m.N, m.K / 8, [&](int n, int c, int i) { return m.number_of(n, 8 * c + i); }), "I32");
  t.add(name + ".weight_scale", extents_of(m.N, m.groups()), m.scale);
  t.add(name + ".weight_shape", {2}, std::vector<std::int64_t>{m.N, m.K});
  if (!zeros) return;
  t.add(name + ".weight_zero_point", extents_of(m.N / 8, m.groups()),
        words(m.N / 8, m.groups(), [&](int r, int g, int i) { return m.zero_of(8 * r + i, g); }),
        "I32");
}
void put_columns(tensor_list& t, std::string const& name, integers const& m, published_as as) {
  constexpr int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  bool const awq = as == published_as::awq;
  int const less = as == published_as::gptq ? 1 : 0;
  auto const row = [&](int word, int i) { return 8 * word + (awq ? order[i] : i); };
  if (awq) {
    t.add(name + ".qweight", extents_of(m.K, m.N / 8),
          words(m.K, m.N / 8, [&](int k, int c, int i) { return m.number_of(row(c, i), k); }),
          "I32");
  } else {
    t.add(name + ".qweight", extents_of(m.K / 8, m.N),
          words(m.K / 8, m.N, [&](int r, int n, int i) { return m.number_of(n, 8 * r + i); }),
          "I32");
    std::vector<std::int32_t> group;
    for (int k = 0; k < m.K; ++k) group.push_back(k / m.group);
    t.add(name + ".g_idx", {static_cast<std::uint64_t>(m.K)}, group, "I32");
  }
  t.add(name + ".qzeros", extents_of(m.groups(), m.N / 8),
        words(m.groups(), m.N / 8,
              [&](int g, int c, int i) { return m.zero_of(row(c, i), g) - less; }),
        "I32");
  std::vector<bf16> scales;
  for (int g = 0; g < m.groups(); ++g)
    for (int n = 0; n < m.N; ++n) scales.push_back(m.scale_of(n, g));
  t.add(name + ".scales", extents_of(m.groups(), m.N), scales);
}

/// The experts' matrices as integers, zero points but for compressed_tensors; or the floats they mean.
void in_int4(a_checkpoint& c, published_as as, int group, bool zeros = true) {
  if (as == published_as::compressed_tensors || as == published_as::with_zeros) {
    c.p.config["quantization_config"] = {
        {"quant_method", "compressed-tensors"},
        {"format", "pack-quantized"},
        {"config_groups",
         {{"group_0", {{"weights", {{"num_bits", 4}, {"type", "int"}, {"group_size", group}}}}}}}};
  } else if (as != published_as::floats) {
    c.p.config["quantization_config"] = {{"quant_method", as == published_as::awq ? "awq" : "gptq"},
                                         {"bits", 4},
                                         {"group_size", group}};
    if (as == published_as::gptq_v2) {
      c.p.config["quantization_config"]["checkpoint_format"] = "gptq_v2";
    }
  }
  c.each_expert_matrix([&](std::string const& name, std::vector<std::uint64_t> const& shape) {
    integers const m(name, shape, group, zeros);
    c.tensors.remove(name + ".weight");
    if (as == published_as::floats) {
      c.tensors.add(name + ".weight", shape, m.weights());
    } else if (as == published_as::compressed_tensors || as == published_as::with_zeros) {
      put_rows(c.tensors, name, m, zeros);
    } else {
      put_columns(c.tensors, name, m, as);
    }
  });
}

/// Every row of every expert, as floats.
std::vector<float> all_rows(expert_matrix<float> const& w) {
  std::vector<float> all;
  for (offset_t e = 0; e < w.experts(); ++e)
    for (offset_t n = 0; n < w.rows(); ++n) {
      all.insert(all.end(), w.row(e, n), w.row(e, n) + w.columns());
    }
  return all;
}
std::vector<float> experts_of(fs::path const& folder) {
  std::vector<float> all;
  checkpoint::load_layer(folder, 2, {.widen = true})
      .visit([&]<class T, class G>(moe_weights<T, G> const& w) {
        if constexpr (std::is_same_v<T, float>) {
          for (auto const& m : {w.up, w.down, w.shared_up, w.shared_down}) {
            std::vector<float> const rows = all_rows(m);
            all.insert(all.end(), rows.begin(), rows.end());
          }
        }
      });
  return all;
}

TEST_F(CheckpointInt4, EveryFormMeansTheSame) {
  for (bool const zeros : {false, true}) {
    a_checkpoint floats("deepseek_v3", 64, 40);
    in_int4(floats, published_as::floats, 32, zeros);
    write_checkpoint(folder_, floats.p.config, floats.tensors, 3);
    std::vector<float> const want = experts_of(folder_);
    EXPECT_GT(want.size(), 64u * 40u * 8u);
    fs::remove_all(folder_);
    for (auto const as : {published_as::compressed_tensors, published_as::with_zeros,
                          published_as::gptq, published_as::gptq_v2, published_as::awq}) {
      if (as == published_as::compressed_tensors && zeros) continue;
      a_checkpoint c("deepseek_v3", 64, 40);
      in_int4(c, as, 32, zeros);
      write_checkpoint(folder_, c.p.config, c.tensors, 3);
      EXPECT_TRUE(experts_of(folder_) == want) << static_cast<int>(as) << " " << zeros;
      fs::remove_all(folder_);
    }
  }
}

TEST_F(CheckpointInt4, AsStoredHasTheBitsOfTheDecodedWeights) {
  a_checkpoint kimi("deepseek_v3", 64, 40), gptq("mixtral", 256, 128), awq("qwen3_moe", 128, 64);
  in_int4(kimi, published_as::compressed_tensors, 32, false);
  in_int4(gptq, published_as::gptq, 128);
  in_int4(awq, published_as::awq, 128);
  has_the_bits_of_the_decoded<int4_group<32>>(kimi, folder_);
  has_the_bits_of_the_decoded<int4_group<128>>(gptq, folder_);
  has_the_bits_of_the_decoded<int4_group<128>>(awq, folder_);
}

/// As modelopt publishes it, or compressed-tensors.
void in_nvfp4(a_checkpoint& c, bool modelopt) {
  c.p.config["quantization_config"] = {
      {"quant_method", modelopt ? "modelopt" : "compressed-tensors"},
      {modelopt ? "quant_algo" : "format", modelopt ? "NVFP4" : "nvfp4-pack-quantized"}};
  c.each_expert_matrix([&](std::string const& name, std::vector<std::uint64_t> const& shape) {
    rng d(std::hash<std::string>{}(name));
    std::uint64_t const N = shape[0], K = shape[1];
    std::vector<std::uint8_t> scales;
    for (std::uint64_t i = 0; i < N * K / 16; ++i) {
      scales.push_back(static_cast<std::uint8_t>(0x30 + d.below(0x20)));
    }
    c.tensors.remove(name + ".weight");
    c.tensors.add(name + (modelopt ? ".weight" : ".weight_packed"), {N, K / 2},
                  numbers(N * K / 2, d));
    c.tensors.add(name + ".weight_scale", {N, K / 16}, scales, "F8_E4M3");
    std::vector<float> const all{modelopt ? 0.0078125f : 128.0f};
    std::vector<std::uint64_t> const one =
        modelopt ? std::vector<std::uint64_t>{} : std::vector<std::uint64_t>{1};
    c.tensors.add(name + (modelopt ? ".weight_scale_2" : ".weight_global_scale"), one, all);
    c.tensors.add(name + (modelopt ? ".input_scale" : ".input_global_scale"), one, all);
  });
}

TEST_F(CheckpointInt4, Nvfp4OfBothKindsMeansTheSame) {
  std::vector<float> first;
  for (bool const modelopt : {true, false}) {
    a_checkpoint c("deepseek_v3", 64, 48);
    in_nvfp4(c, modelopt);
    has_the_bits_of_the_decoded<nvfp4>(c, folder_);
    write_checkpoint(folder_, c.p.config, c.tensors, 3);
    std::vector<float> const all = experts_of(folder_);
    fs::remove_all(folder_);
    if (modelopt) first = all;
    EXPECT_TRUE(all == first);
    EXPECT_GT(all.size(), 64u * 48u * 8u);
  }
  // One weight by its definition: the first of an expert's first matrix.
  constexpr float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  rng d(std::hash<std::string>{}("model.layers.2.mlp.experts.0.gate_proj"));
  std::uint8_t scale = 0;
  for (int i = 0; i < 48 * 64 / 16; ++i) {
    auto const drawn = static_cast<std::uint8_t>(0x30 + d.below(0x20));
    if (i == 0) scale = drawn;
  }
  std::uint8_t const bits = numbers(1, d)[0];
  float const e4m3 = std::ldexp(static_cast<float>(8 + scale % 8), scale / 8 - 10);
  EXPECT_EQ(first[0], (bits & 8 ? -1.0f : 1.0f) * e2m1[bits & 7] * e4m3 * 0.0078125f);
}

TEST_F(CheckpointInt4, WhatCannotBeReadIsNamed) {
  std::string const base = "model.layers.2.mlp.experts.3.up_proj";
  a_checkpoint order("deepseek_v3", 64, 40);
  in_int4(order, published_as::gptq, 32);
  order.tensors.remove(base + ".g_idx");
  order.tensors.add(base + ".g_idx", {64}, std::vector<std::int32_t>(64, 1), "I32");
  EXPECT_NE(refused(order).find("tensor " + base +
                                ".g_idx puts column 0 into group 1; only columns in order"),
            std::string::npos)
      << refused(order);

  a_checkpoint shape("deepseek_v3", 64, 40);
  in_int4(shape, published_as::compressed_tensors, 32, false);
  shape.tensors.remove(base + ".weight_shape");
  shape.tensors.add(base + ".weight_shape", {2}, std::vector<std::int64_t>{40, 63});
  EXPECT_NE(refused(shape).find(".weight_shape says 63 columns; they must be 64"),
            std::string::npos)
      << refused(shape);

  a_checkpoint missing("deepseek_v3", 64, 40);
  in_int4(missing, published_as::awq, 32);
  missing.tensors.remove(base + ".qzeros");
  EXPECT_NE(refused(missing).find("there is no tensor " + base + ".qzeros; it must be"),
            std::string::npos)
      << refused(missing);

  a_checkpoint wide("deepseek_v3", 64, 40);
  in_int4(wide, published_as::awq, 64);
  EXPECT_EQ(refused(wide), "it was taken");
  EXPECT_NE(refused(wide, true).find("is in other groups than 32 or 128"), std::string::npos)
      << refused(wide, true);
}

}  // namespace examples_checkpoint_int4_test
}  // namespace shunt::test
