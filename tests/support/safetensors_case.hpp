#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "../../examples/support/checkpoint/safetensors.hpp"
#include "../../examples/support/checkpoint/write_safetensors.hpp"

namespace safetensors_case {

namespace fs = std::filesystem;

/// A test with a folder of its own, removed at its end.
class folder_of_files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_safetensors." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] fs::path place(std::string const& name) const { return folder_ / name; }

  [[nodiscard]] static std::string content(fs::path const& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  static void put(fs::path const& path, std::string const& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }

  /// The bytes of a file with this header and this much data.
  [[nodiscard]] static std::string file_of(std::string const& header, std::size_t data) {
    std::string bytes(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) {
      bytes[i] = static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
    }
    return bytes + header + std::string(data, 'x');
  }

  /// The sentence with which a file of these bytes is refused; empty where it is read.
  [[nodiscard]] std::string refusal(std::string const& bytes) const {
    put(place("hostile"), bytes);
    try {
      checkpoint::safetensors_file file(place("hostile"));
      file.verify(false);
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  }

  void write_sample(fs::path const& path) const {
    checkpoint::write_safetensors(path,
                                  {{"b.bytes", "U8", {3}, "abc"},
                                   {"weights", "F32", {2, 3}, weights_},
                                   {"none", "F32", {0, 7}, nullptr},
                                   {"step", "I64", {}, &step_}},
                                  {{"step", "41"}, {"text", "ü \"quoted\"\n"}});
  }

  float weights_[6] = {1.5f, -0.0f, std::numeric_limits<float>::infinity(), 1e-42f, 3.f, 4.f};
  std::int64_t step_ = 41;
  fs::path folder_;
};

}  // namespace safetensors_case
