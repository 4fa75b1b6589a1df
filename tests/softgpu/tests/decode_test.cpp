// Decoding: broken text that still parses is refused by name, and never crashes the decoder.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include "machine/program.hpp"

namespace softgpu {
namespace decode_test {

std::string read_file(char const* path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Decodes every kernel of a text; returns what was said against it.
std::string decode_all(std::string text) {
  try {
    program p(std::move(text));
    for (ptx::function const& f : p.module().functions)
      if (f.is_entry && f.has_body) p.find_kernel(f.name);
  } catch (ptx::error const& e) { return e.what(); }
  return {};
}

TEST(Decode, WhatNvccWrites) { EXPECT_EQ(decode_all(read_file(SOFTGPU_SAMPLE_PTX)), ""); }

TEST(Decode, NamesWhatItDoesNotKnow) {
  std::string const head =
      ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k() { .reg .b32 %r<4>; ";
  EXPECT_NE(decode_all(head + "frobnicate.u32 %r1, %r2; ret; }").find("frobnicate"),
            std::string::npos);
  EXPECT_NE(decode_all(head + "add.u9 %r1, %r2, %r3; ret; }").find("add"), std::string::npos);
  EXPECT_NE(decode_all(head + "bra $nowhere; ret; }").find("$nowhere"), std::string::npos);
}

// Operands exchanged, dropped or of another kind: the statements stay statements.
TEST(Decode, BrokenOperandsNeverCrash) {
  std::string const good = read_file(SOFTGPU_SAMPLE_PTX);
  std::vector<std::string> words;
  for (std::size_t at = good.find("\n{"); at < good.size();) {
    std::size_t const end = good.find_first_of(" ,;\n\t", at);
    if (end == std::string::npos) break;
    if (end > at) words.push_back(good.substr(at, end - at));
    at = end + 1;
  }
  ASSERT_GT(words.size(), 500u);
  std::mt19937 rng(7);
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string text = good;
    std::size_t const body = text.find("\n{");
    std::size_t const from = body + rng() % (text.size() - body);
    std::size_t const begin = text.find_first_of(" ,\t", from);
    if (begin == std::string::npos) continue;
    std::size_t const end = text.find_first_of(" ,;\n\t", begin + 1);
    if (end == std::string::npos) continue;
    text.replace(begin + 1, end - begin - 1, words[rng() % words.size()]);
    refused += !decode_all(std::move(text)).empty();
  }
  EXPECT_GT(refused, 500);
}

}  // namespace decode_test
}  // namespace softgpu
