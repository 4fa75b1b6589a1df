// The small formats against the compiler's own halves and against definitions.
#include "machine/formats.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

namespace softgpu {
namespace formats_test {

TEST(Formats, EveryHalfDecodesAndEncodesToItself) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const raw = static_cast<std::uint16_t>(bits);
    _Float16 h;
    std::memcpy(&h, &raw, 2);
    double const x = decode<f16_format>(bits);
    if (x != x) {
      EXPECT_TRUE(static_cast<double>(h) != static_cast<double>(h));
      continue;
    }
    ASSERT_EQ(x, static_cast<double>(h)) << bits;
    ASSERT_EQ(encode<f16_format>(x), bits);
  }
}

TEST(Formats, HalvesRoundAsTheCompilerDoes) {
  std::mt19937 rng(1);
  for (int i = 0; i < 300000; ++i) {
    double const x = std::ldexp(double(rng()) - 2147483648.0, int(rng() % 60) - 60);
    auto const h = static_cast<_Float16>(x);
    std::uint16_t raw;
    std::memcpy(&raw, &h, 2);
    ASSERT_EQ(encode<f16_format>(x), raw) << x;
  }
}

TEST(Formats, Bf16IsTheUpperHalfOfAFloat) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    float const f = std::bit_cast<float>(bits << 16);
    if (f != f) continue;
    ASSERT_EQ(decode<bf16_format>(bits), static_cast<double>(f));
    ASSERT_EQ(encode<bf16_format>(f), bits);
  }
  std::mt19937 rng(2);
  for (int i = 0; i < 300000; ++i) {
    std::uint32_t const u = rng();
    float const f = std::bit_cast<float>(u);
    if (!std::isfinite(f)) continue;
    std::uint32_t const expected = (u + 0x7fff + (u >> 16 & 1)) >> 16;  // ties to even
    ASSERT_EQ(encode<bf16_format>(f), expected) << f;
    ASSERT_EQ(encode<bf16_format>(f, rounding::zero), u >> 16);
  }
}

TEST(Formats, EightBitsSaturateAndRound) {
  EXPECT_EQ(decode<e4m3_format>(0x7e), 448.0);
  EXPECT_EQ(decode<e5m2_format>(0x7b), 57344.0);
  EXPECT_EQ(encode<e4m3_format>(1e9, rounding::nearest, true), 0x7eu);
  EXPECT_EQ(encode<e4m3_format>(-1e9, rounding::nearest, true), 0xfeu);
  EXPECT_EQ(encode<e5m2_format>(HUGE_VAL, rounding::nearest, true), 0x7bu);
  EXPECT_EQ(encode<e5m2_format>(HUGE_VAL), 0x7cu);
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    if (double const x = decode<e4m3_format>(bits); x == x) {
      EXPECT_EQ(encode<e4m3_format>(x), bits);
    }
    if (double const x = decode<e5m2_format>(bits); x == x) {
      EXPECT_EQ(encode<e5m2_format>(x), bits);
    }
  }
}

TEST(Formats, FusedMultiplyAddRoundsOnce) {
  // 1 + 2^-11 is a tie in f16; a crumb far below the double's last place decides it.
  double const tie = std::ldexp(1.0, -11), crumb = std::ldexp(1.0, -24);
  EXPECT_EQ(encode<f16_format>(1.0 + tie), 0x3c00u);
  EXPECT_EQ(encode<f16_format>(fma_to_odd(crumb, 1, 1.0 + tie)), 0x3c01u);
  EXPECT_EQ(encode<bf16_format>(
                fma_to_odd(std::ldexp(1.0, -60), std::ldexp(1.0, -60), 1.0 + std::ldexp(1.0, -8))),
            0x3f81u);
  EXPECT_EQ(encode<bf16_format>(
                fma_to_odd(-std::ldexp(1.0, -60), std::ldexp(1.0, -60), 1.0 + std::ldexp(1.0, -8))),
            0x3f80u);
}

}  // namespace formats_test
}  // namespace softgpu
