#include "shunt/nn/norm.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_nn.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_norm_test {

using test::expect_error;
using test::guarded;

struct size_pair {
  std::size_t tokens, width;
};
constexpr size_pair sizes[] = {{0, 8}, {1, 1}, {3, 7}, {5, 32}, {2, 517}, {130, 33}, {65, 64}};

template <class T> guarded<T> ones_around(std::size_t n, std::uint64_t seed) {
  test::rng d(seed);
  guarded<T> w(n);
  for (T& x : w) x = from_float<T>(static_cast<float>(d.uniform(0.5, 1.5)));
  return w;
}

template <class T> class NormOf : public testing::Test {};
TYPED_TEST_SUITE(NormOf, test::storage_types);

TYPED_TEST(NormOf, MatchesTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (auto [tokens, width] : sizes) {
    auto const x = test::normal_values<T>(tokens * width, 1, 3.0);
    auto const w = ones_around<T>(width, 2);
    auto const want = test::oracle::rms_norm(test::in_double(x), test::in_double(w), 1e-5);
    if (width > 1) { ASSERT_TRUE(want.y.empty() || test::not_flat(want.y)); }
    guarded<T> first;
    for (on_host const& on : test::host_configs()) {
      guarded<T> y(tokens * width);
      guarded<float> inverse(tokens);
      status const s =
          nn::rms_norm(on, x.as(tokens, width), w, y.as(tokens, width), inverse.as(tokens));
      ASSERT_TRUE(s.ok()) << s.message();
      EXPECT_TRUE(test::close(y, want.y, 8)) << tokens << " x " << width;
      EXPECT_TRUE(test::close(inverse, want.inverse, 6));
      if (on.threads == 1 && on.instructions == isa::portable) first = y;
      EXPECT_TRUE(test::same_bits(first, y)) << test::name_of(on);
    }
  }
}

TYPED_TEST(NormOf, AddedResidualIsRoundedThenNormalized) {
  using T = TypeParam;
  std::size_t const tokens = 9, width = 45;
  auto const x = test::normal_values<T>(tokens * width, 1);
  auto const add = test::normal_values<T>(tokens * width, 2);
  auto const w = ones_around<T>(width, 3);
  guarded<T> sum(tokens * width), y(tokens * width), again(tokens * width);
  guarded<float> inverse(tokens);
  status s = nn::rms_norm_add(on_host{}, x.as(tokens, width), add.as(tokens, width),
                              sum.as(tokens, width), w, y.as(tokens, width), inverse.as(tokens));
  ASSERT_TRUE(s.ok()) << s.message();
  for (std::size_t i = 0; i < sum.size(); ++i) {
    EXPECT_EQ(sum[i], from_float<T>(to_float(x[i]) + to_float(add[i])));
  }
  s = nn::rms_norm(on_host{}, sum.as(tokens, width), w, again.as(tokens, width));
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_TRUE(test::same_bits(y, again));

  // In place: the sum over x.
  guarded<T> stream = x;
  s = nn::rms_norm_add(on_host{}, stream.as(tokens, width), add.as(tokens, width),
                       stream.as(tokens, width), w, again.as(tokens, width));
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_TRUE(test::same_bits(stream, sum));
  EXPECT_TRUE(test::same_bits(y, again));
}

TYPED_TEST(NormOf, GradientsMatchTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (auto [tokens, width] : sizes) {
    auto const x = test::normal_values<T>(tokens * width, 1, 2.0);
    auto const w = ones_around<T>(width, 2);
    auto const d_y = test::normal_values<T>(tokens * width, 3);
    auto const want = test::oracle::rms_norm_backward(test::in_double(x), test::in_double(w),
                                                      test::in_double(d_y), 1e-5);
    guarded<T> y(tokens * width), first_dx;
    guarded<float> inverse(tokens), first_dw;
    ASSERT_TRUE(
        nn::rms_norm(on_host{}, x.as(tokens, width), w, y.as(tokens, width), inverse.as(tokens))
            .ok());
    auto const r = std::as_const(inverse).as(tokens);
    for (on_host const& on : test::host_configs()) {
      guarded<T> d_x(tokens * width);
      guarded<float> d_w(width);
      guarded<std::byte> bytes(nn::rms_norm_backward_scratch_bytes(static_cast<offset_t>(tokens),
                                                                   static_cast<offset_t>(width)));
      status const s = nn::rms_norm_backward(on, x.as(tokens, width), w, r, d_y.as(tokens, width),
                                             d_x.as(tokens, width), d_w.as(width), bytes);
      ASSERT_TRUE(s.ok()) << s.message();
      EXPECT_TRUE(test::close(d_x, want.d_x, 16)) << tokens << " x " << width;
      EXPECT_TRUE(test::close(d_w, want.d_weight, 16)) << tokens << " x " << width;
      if (first_dw.size() == 0) {
        first_dx = d_x;
        first_dw = d_w;
      }
      EXPECT_TRUE(test::same_bits(first_dx, d_x)) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(first_dw, d_w)) << test::name_of(on);
    }
  }
}

TEST(Norm, GradientAddsWhatWentRoundAndAccumulatesWeights) {
  std::size_t const tokens = 70, width = 20;
  auto const x = test::normal_values<float>(tokens * width, 1);
  auto const w = ones_around<float>(width, 2);
  auto const d_y = test::normal_values<float>(tokens * width, 3);
  auto const round = test::normal_values<float>(tokens * width, 4);
  guarded<float> y(tokens * width), inverse(tokens), plain(tokens * width), d_w(width);
  ASSERT_TRUE(
      nn::rms_norm(on_host{}, x.as(tokens, width), w, y.as(tokens, width), inverse.as(tokens))
          .ok());
  auto const r = std::as_const(inverse).as(tokens);
  guarded<std::byte> bytes(nn::rms_norm_backward_scratch_bytes(tokens, width));
  ASSERT_TRUE(nn::rms_norm_backward(on_host{}, x.as(tokens, width), w, r, d_y.as(tokens, width),
                                    plain.as(tokens, width), d_w.as(width), bytes)
                  .ok());
  // The gradient in place of d_y, with the rest added, and the weights' onto themselves.
  guarded<float> stream = d_y, twice = d_w;
  ASSERT_TRUE(nn::rms_norm_backward(on_host{}, x.as(tokens, width), w, r, stream.as(tokens, width),
                                    stream.as(tokens, width), twice.as(width), bytes,
                                    {.add = round.as(tokens, width), .accumulate = true})
                  .ok());
  for (std::size_t i = 0; i < stream.size(); ++i) EXPECT_EQ(stream[i], plain[i] + round[i]);
  for (std::size_t i = 0; i < width; ++i) {
    EXPECT_NEAR(twice[i], 2 * d_w[i], 1e-5 * (1 + std::abs(d_w[i])));
  }
}

TEST(Norm, BadArgumentsAreSentences) {
  std::size_t const tokens = 4, width = 8;
  guarded<float> x(tokens * width), w(width), y(tokens * width), inverse(tokens);
  auto const vx = x.as(tokens, width);
  expect_error(nn::rms_norm(on_host{}, vx, w, y.as(width, tokens)),
               "rms_norm.y: extent 0 is 8; it must be 4");
  expect_error(nn::rms_norm(on_host{}, vx, inverse, y.as(tokens, width)),
               "rms_norm.weight: extent 0 is 4; it must be 8");
  expect_error(nn::rms_norm(on_host{}, vx, w, view<float, 2>(nullptr, {{4, 8}})),
               "rms_norm.y: the pointer");
  expect_error(nn::rms_norm(on_host{}, vx, w, y.as(tokens, width), {}, {.epsilon = 0.0f}),
               "rms_norm.epsilon is 0; it must be above 0");
  expect_error(nn::rms_norm_backward(on_host{}, vx, w, std::as_const(inverse).as(tokens), vx,
                                     y.as(tokens, width), w.as(width), arena<>{}),
               "rms_norm_backward: the arena has 0 bytes; it must have");
  for (float v : y) EXPECT_TRUE(std::isnan(v)) << "an error came after the first write";
}

}  // namespace nn_norm_test
}  // namespace shunt
