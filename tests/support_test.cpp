// The testers, tested: each helper must notice one wrong element.
#include <gtest/gtest.h>

#include <limits>

#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace support_test {

TEST(Compare, NoticesOneWrongValue) {
  auto good = normal_values<float>(1000, 1);
  auto const expected = in_double(good);
  ASSERT_TRUE(close(good, expected, 1.0));
  good[737] += 1e-3f;
  EXPECT_FALSE(close(good, expected, 1.0));
}

TEST(Compare, NoticesNan) {
  auto good = normal_values<bf16>(10, 2);
  auto const expected = in_double(good);
  ASSERT_TRUE(close(good, expected, 1.0));
  good[9] = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());
  EXPECT_FALSE(close(good, expected, 1.0));
  EXPECT_FALSE(all_finite(good));
}

TEST(Compare, NoticesMissingValues) {
  auto const good = normal_values<float>(10, 3);
  auto expected = in_double(good);
  expected.push_back(0.0);
  EXPECT_FALSE(close(good, expected, 1e9));
}

TEST(Compare, AllowsWhatTheMagnitudeCanLoseAndNoMore) {
  guarded<float> sum(std::vector<float>{1.0f});
  EXPECT_TRUE(close(sum, std::vector<expectation>{{1.0 + 0x1p-12, 0x1p12}}, 1.0));
  EXPECT_FALSE(close(sum, std::vector<expectation>{{1.0 + 0x1p-12, 0x1p8}}, 1.0));
}

TEST(Compare, NotFlatSeesAFlatOracle) {
  EXPECT_FALSE(not_flat(std::vector<double>(100, 0.25)));
  EXPECT_TRUE(not_flat(std::vector<double>{0.25, 0.26}));
}

TEST(SameBits, NoticesOneBit) {
  auto a = normal_values<fp16>(100, 4);
  auto b = a;
  ASSERT_TRUE(same_bits(a, b));
  b[99].bits ^= 1u;
  EXPECT_FALSE(same_bits(a, b));
}

TEST(SameBits, TellsZeroFromMinusZero) {
  guarded<float> a(std::vector<float>{0.0f}), b(std::vector<float>{-0.0f});
  EXPECT_FALSE(same_bits(a, b));
}

TEST(Guarded, StartsUntouched) {
  guarded<float> x(5);
  EXPECT_FALSE(all_finite(x));
  EXPECT_EQ(x.as(5).extent(0), 5);
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(GuardedDeathTest, OneTooFarIsACrash) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  guarded<float> x(7);
  EXPECT_DEATH(
      {
        float volatile* past = x.data() + 7;
        *past = 1.0f;
      },
      "");
}
#endif

TEST(Shapes, ChosenExpertsAreDistinctAndSkewed) {
  shape const s{200, 8, 8, 16, 4};
  for (skew how : skews) {
    auto const ids = chosen_experts(s, how, 5);
    ASSERT_EQ(ids.size(), 800u);
    std::vector<int> load(16);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ASSERT_LT(ids[i], 16);
      ++load[static_cast<std::size_t>(ids[i])];
      for (std::size_t j = i / 4 * 4; j < i; ++j) EXPECT_NE(ids[i], ids[j]);
    }
    if (how == skew::one_hot) { EXPECT_EQ(load[8], 200); }
    if (how == skew::half_empty) { EXPECT_EQ(load[1], 0); }
  }
}

TEST(Worlds, RunWhatTheyName) {
  for (on_host const& on : host_configs()) {
    ASSERT_TRUE(check::policy(on).ok());
    if (on.instructions != isa::best) { EXPECT_EQ(instructions_of(on), on.instructions); }
  }
}

}  // namespace support_test
}  // namespace shunt::test
