// Storage types: every bit pattern, every rounding, against tables computed here in double.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/random.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"

#define SHUNT_REGION_FILE "support/convert_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::test {
namespace numeric_test {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// The value that a pattern of a format with `e` exponent and `m` mantissa bits stands for.
double meaning(unsigned bits, int e, int m) {
  double const sign = ((bits >> (e + m)) & 1u) != 0 ? -1.0 : 1.0;
  int const exponent = static_cast<int>((bits >> m) & ((1u << e) - 1));
  double const mantissa = static_cast<double>(bits & ((1u << m) - 1)) / std::ldexp(1.0, m);
  int const bias = (1 << (e - 1)) - 1;
  return sign * (exponent == 0 ? std::ldexp(mantissa, 1 - bias)
                               : std::ldexp(1.0 + mantissa, exponent - bias));
}

template <class T, class Bits> void each_finite_pattern_survives(int e, int m, unsigned finite) {
  for (unsigned magnitude = 0; magnitude < finite; ++magnitude) {
    for (unsigned sign : {0u, 1u}) {
      unsigned const bits = magnitude | sign << (e + m);
      T const stored{static_cast<Bits>(bits)};
      ASSERT_EQ(static_cast<double>(to_float(stored)), meaning(bits, e, m)) << bits;
      ASSERT_EQ(from_float<T>(to_float(stored)), stored) << bits;
    }
  }
}

/// Between two neighbors: to the nearer one; in the middle to the even one; a float next to the
/// middle to its own side.
template <class T, class Bits> void rounds_to_nearest_even(int e, int m, unsigned finite) {
  for (unsigned low = 0; low + 1 < finite; ++low) {
    double const a = meaning(low, e, m), b = meaning(low + 1, e, m);
    auto const middle = static_cast<float>((a + b) / 2);
    if (static_cast<double>(middle) != (a + b) / 2) continue;  // not a float: bf16's subnormals
    unsigned const even = low % 2 == 0 ? low : low + 1;
    ASSERT_EQ(from_float<T>(middle).bits, even) << low;
    ASSERT_EQ(from_float<T>(-middle).bits, even | 1u << (e + m)) << low;
    ASSERT_EQ(from_float<T>(std::nextafter(middle, 0.0f)).bits, low);
    ASSERT_EQ(from_float<T>(std::nextafter(middle, inf)).bits, low + 1);
  }
}

TEST(Bf16, EveryPatternAndRounding) {
  each_finite_pattern_survives<bf16, std::uint16_t>(8, 7, 0x7f80);
  rounds_to_nearest_even<bf16, std::uint16_t>(8, 7, 0x7f80);
  EXPECT_EQ(from_float<bf16>(inf).bits, 0x7f80);
  EXPECT_EQ(from_float<bf16>(-std::numeric_limits<float>::max()).bits, 0xff80);
  EXPECT_TRUE(std::isnan(to_float(from_float<bf16>(nan))));
  EXPECT_TRUE(std::isnan(to_float(from_float<bf16>(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Fp16, EveryPatternAndRounding) {
  each_finite_pattern_survives<fp16, std::uint16_t>(5, 10, 0x7c00);
  rounds_to_nearest_even<fp16, std::uint16_t>(5, 10, 0x7c00);
  EXPECT_EQ(from_float<fp16>(65519.9f).bits, 0x7bff);
  EXPECT_EQ(from_float<fp16>(65520.0f).bits, 0x7c00);
  EXPECT_EQ(from_float<fp16>(-inf).bits, 0xfc00);
  EXPECT_EQ(to_float(fp16{0x7c00}), inf);
  EXPECT_TRUE(std::isnan(to_float(from_float<fp16>(nan))));
  EXPECT_EQ(from_float<fp16>(0x1p-25f).bits, 0);  // a tie with zero
  EXPECT_EQ(from_float<fp16>(std::nextafter(0x1p-25f, 1.0f)).bits, 1);
}

TEST(Fp8E4m3, EveryPatternRoundingAndSaturation) {
  each_finite_pattern_survives<fp8_e4m3, std::uint8_t>(4, 3, 0x7f);
  rounds_to_nearest_even<fp8_e4m3, std::uint8_t>(4, 3, 0x7f);
  EXPECT_EQ(to_float(fp8_e4m3{0x7e}), 448.0f);
  for (float big : {449.0f, 464.0f, 480.0f, 1e30f, inf}) {
    EXPECT_EQ(from_float<fp8_e4m3>(big).bits, 0x7e) << big;
    EXPECT_EQ(from_float<fp8_e4m3>(-big).bits, 0xfe) << big;
  }
  EXPECT_EQ(from_float<fp8_e4m3>(nan).bits & 0x7f, 0x7f);
  EXPECT_TRUE(std::isnan(to_float(fp8_e4m3{0x7f})));
  EXPECT_TRUE(std::isnan(to_float(fp8_e4m3{0xff})));
}

TEST(Fp8E5m2, EveryPatternRoundingAndSaturation) {
  each_finite_pattern_survives<fp8_e5m2, std::uint8_t>(5, 2, 0x7c);
  rounds_to_nearest_even<fp8_e5m2, std::uint8_t>(5, 2, 0x7c);
  EXPECT_EQ(to_float(fp8_e5m2{0x7b}), 57344.0f);
  for (float big : {61439.0f, 61440.0f, 65536.0f, 1e30f}) {
    EXPECT_EQ(from_float<fp8_e5m2>(big).bits, 0x7b) << big;
  }
  EXPECT_EQ(from_float<fp8_e5m2>(-inf).bits, 0xfc);
  EXPECT_EQ(to_float(fp8_e5m2{0x7c}), inf);
  EXPECT_TRUE(std::isnan(to_float(from_float<fp8_e5m2>(nan))));
}

/// The vector code rounds as the scalar code does: random floats of every kind, and all 65536
/// patterns back.
template <class T> void vectors_agree() {
  std::size_t const count = 1 << 16;
  rng d(7);
  guarded<float> wide(count), back(count);
  guarded<T> narrow(count), patterns(count);
  for (std::size_t i = 0; i < count; ++i) {
    wide[i] = std::bit_cast<float>(static_cast<std::uint32_t>(d.bits()));
    patterns[i].bits = static_cast<std::uint16_t>(i);
  }
  for (isa which : instruction_sets()) {
    on_host const on{.instructions = which};
    narrow.wipe();
    back.wipe();
    SHUNT_ISA_PICK(on, narrow_all<T>)(wide.data(), narrow.data(), count);
    SHUNT_ISA_PICK(on, widen_all<T>)(patterns.data(), back.data(), count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(narrow[i], from_float<T>(wide[i])) << to_string(which) << " " << wide[i];
      ASSERT_EQ(std::bit_cast<std::uint32_t>(back[i]),
                std::bit_cast<std::uint32_t>(to_float(patterns[i])))
          << to_string(which) << " " << i;
    }
  }
}

TEST(Bf16, VectorsAgreeWithScalars) { vectors_agree<bf16>(); }
TEST(Fp16, VectorsAgreeWithScalars) { vectors_agree<fp16>(); }

TEST(Random, KnownAnswersOfPhilox) {
  // Salmon et al.'s reference vectors (Random123, kat_vectors: philox4x32, ten rounds).
  random_words const zero = random_at(0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  random_words const ones = random_at(~0ull, ~0ull, ~0ull);
  EXPECT_EQ(ones.word[0], 0x408f276du);
  EXPECT_EQ(ones.word[1], 0x41c83b0eu);
  EXPECT_EQ(ones.word[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.word[3], 0x6d5451fdu);
}

TEST(Random, UniformStaysBelowOne) {
  EXPECT_EQ(uniform_of(0), 0.0f);
  EXPECT_LT(uniform_of(~0u), 1.0f);
  EXPECT_EQ(uniform_of(0x80000000u), 0.5f);
}

}  // namespace numeric_test
}  // namespace shunt::test
