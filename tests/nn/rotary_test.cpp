#include "shunt/nn/rotary.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_nn.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_rotary_test {

using test::expect_error;
using test::guarded;

struct table {
  guarded<float> cosine, sine;
  nn::rotary_table<> is;
  table(std::size_t positions, std::size_t pairs)
      : cosine(positions * pairs), sine(positions * pairs) {
    is = {cosine.as(positions, pairs), sine.as(positions, pairs)};
  }
};

TEST(Angle, MatchesTheLibraryFunctions) {
  test::rng d(1);
  for (int i = 0; i < 20000; ++i) {
    double const x = d.uniform(-1e5, 1e5), y = d.uniform(-300, 300);
    auto const turn = nn::detail::sine_cosine_of(x);
    EXPECT_NEAR(turn.sine, std::sin(x), 3e-16 + 2e-16);
    EXPECT_NEAR(turn.cosine, std::cos(x), 3e-16 + 2e-16);
    EXPECT_NEAR(nn::detail::exponential_of(y) / std::exp(y), 1.0, 1e-15);
    EXPECT_NEAR(nn::detail::logarithm_of(std::exp(y)), y, 1e-15 * (1 + std::abs(y)));
  }
  EXPECT_EQ(nn::detail::power_of(0.5, 10), 0x1p-10);
  EXPECT_EQ(nn::detail::power_of(0.9, 0), 1.0);
}

TEST(Rotary, TableHoldsTheAngles) {
  for (double base : {10000.0, 500000.0, 2.0}) {
    table t(301, 24), again(301, 24);
    ASSERT_TRUE(nn::rotary_fill(on_host{.threads = 2}, t.is, base).ok());
    ASSERT_TRUE(nn::rotary_fill(on_host{.threads = 1}, again.is, base).ok());
    EXPECT_TRUE(test::same_bits(t.cosine, again.cosine));
    EXPECT_TRUE(test::same_bits(t.sine, again.sine));
    for (int p : {0, 1, 7, 300}) {
      for (int i : {0, 1, 12, 23}) {
        double const angle = p * std::pow(base, -i / 24.0);
        EXPECT_NEAR(t.is.cosine(p, i), std::cos(angle), 4e-8);
        EXPECT_NEAR(t.is.sine(p, i), std::sin(angle), 4e-8);
      }
    }
    table later(10, 24);  // a table that starts at position 150
    ASSERT_TRUE(nn::rotary_fill(on_host{}, later.is, base, 150).ok());
    for (int i = 0; i < 24; ++i) EXPECT_EQ(later.is.cosine(3, i), t.is.cosine(153, i));
  }
}

template <class T> class RotaryOf : public testing::Test {};
TYPED_TEST_SUITE(RotaryOf, test::storage_types);

TYPED_TEST(RotaryOf, TurnsPairsAsTheFormulaSays) {
  using T = TypeParam;
  struct {
    std::size_t batch, length, heads, width, pairs;
  } const sizes[] = {{2, 5, 3, 8, 4},   {1, 1, 1, 2, 1},  {1, 0, 2, 8, 4},
                     {1, 9, 2, 70, 35}, {2, 3, 1, 40, 9}, {1, 70, 2, 64, 32}};
  for (auto s : sizes) {
    for (nn::rotary_pairs how : {nn::rotary_pairs::halves, nn::rotary_pairs::adjacent}) {
      index_t const from = 11;
      table t(s.length + 11, s.pairs);
      ASSERT_TRUE(nn::rotary_fill(on_host{}, t.is).ok());
      auto const x = test::normal_values<T>(s.batch * s.length * s.heads * s.width, 5);
      test::oracle::expected want, back;
      for (double v : test::in_double(x)) want.push_back({v, std::abs(v)});
      for (std::size_t n = 0; n < s.batch * s.length * s.heads; ++n) {
        auto const p = static_cast<double>(from + static_cast<index_t>(n / s.heads % s.length));
        for (std::size_t i = 0; i < s.pairs; ++i) {
          double const angle =
              p * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(s.pairs));
          bool const halves = how == nn::rotary_pairs::halves;
          std::size_t const at = n * s.width + (halves ? i : 2 * i);
          std::size_t const to = at + (halves ? s.pairs : 1);
          double const a = want[at].value, b = want[to].value, size = std::abs(a) + std::abs(b);
          want[at] = {a * std::cos(angle) - b * std::sin(angle), size};
          want[to] = {b * std::cos(angle) + a * std::sin(angle), size};
        }
      }
      guarded<T> first;
      for (on_host const& on : test::host_configs()) {
        guarded<T> y = x;
        status st = nn::rotary(on, y.as(s.batch, s.length, s.heads, s.width), t.is,
                               {.first_position = from, .pairs = how});
        ASSERT_TRUE(st.ok()) << st.message();
        EXPECT_TRUE(test::close(y, want, 4)) << s.width;
        if (first.size() == 0) first = y;
        EXPECT_TRUE(test::same_bits(first, y)) << test::name_of(on);
        // There and back: the rotation is orthogonal.
        st = nn::rotary_backward(on, y.as(s.batch, s.length, s.heads, s.width), t.is,
                                 {.first_position = from, .pairs = how});
        ASSERT_TRUE(st.ok()) << st.message();
        for (std::size_t i = 0; i < y.size(); ++i) {
          EXPECT_NEAR(to_float(y[i]), to_float(x[i]), 20 * test::unit_roundoff<T>());
        }
      }
    }
  }
}

TEST(Rotary, ScoresDependOnTheDistanceOnly) {
  std::size_t const width = 16;
  table t(200, 8);
  ASSERT_TRUE(nn::rotary_fill(on_host{}, t.is).ok());
  auto const q = test::normal_values<float>(width, 1), k = test::normal_values<float>(width, 2);
  auto score = [&](index_t at_q, index_t at_k) {
    guarded<float> a = q, b = k;
    EXPECT_TRUE(nn::rotary(on_host{}, a.as(1, 1, 1, width), t.is, {.first_position = at_q}).ok());
    EXPECT_TRUE(nn::rotary(on_host{}, b.as(1, 1, 1, width), t.is, {.first_position = at_k}).ok());
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
  };
  EXPECT_NEAR(score(17, 5), score(150, 138), 1e-4);
  EXPECT_GT(std::abs(score(17, 5) - score(17, 11)), 1e-3);
}

TEST(Rotary, BadArgumentsAreSentences) {
  table t(4, 4);
  ASSERT_TRUE(nn::rotary_fill(on_host{}, t.is).ok());
  guarded<float> x(1 * 5 * 1 * 8);
  expect_error(nn::rotary(on_host{}, x.as(1, 5, 1, 8), t.is),
               "rotary.first_position plus the tokens of a sequence is 5; it must be from 0 to 4");
  expect_error(nn::rotary(on_host{}, x.as(1, 4, 2, 5), t.is), "rotary.table pairs, doubled, is 8");
  expect_error(nn::rotary_fill(on_host{}, t.is, -1.0),
               "rotary_fill.base is -1; it must be above 0");
  expect_error(nn::rotary_fill(on_host{}, t.is, 1e4, -3), "rotary_fill.first_position is -3");
}

}  // namespace nn_rotary_test
}  // namespace shunt
