#include "shunt/nn/cross_entropy.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_nn.hpp"
#include "support/random.hpp"

namespace shunt {
namespace nn_cross_entropy_test {

using test::expect_error;
using test::guarded;
namespace oracle = test::oracle;

struct sizes {
  std::size_t tokens, vocabulary, width;
};
constexpr sizes cases[] = {{0, 5, 4},    {1, 1, 1},     {1, 2, 3},     {17, 33, 20},
                           {256, 7, 12}, {257, 40, 16}, {600, 65, 24}, {3, 1000, 8}};

guarded<index_t> some_targets(sizes const& s) {
  test::rng d(s.tokens + 1);
  guarded<index_t> target(s.tokens);
  for (index_t& t : target) {
    t = static_cast<index_t>(d.below(static_cast<std::int64_t>(s.vocabulary)));
    if (d.below(6) == 0) t = -1;
  }
  if (s.tokens > 0) target[0] = 0;
  return target;
}

template <class T> class CrossEntropyOf : public testing::Test {};
using types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(CrossEntropyOf, types);

TYPED_TEST(CrossEntropyOf, LossAndGradientsMatchTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (sizes s : cases) {
    auto const x = test::normal_values<T>(s.tokens * s.width, 1);
    auto const w = test::normal_values<T>(s.vocabulary * s.width, 2, 0.5);
    auto const target = some_targets(s);
    auto const dx = test::in_double(x), dw = test::in_double(w);
    auto const z = oracle::values_of(oracle::linear(dx, dw, s.tokens, s.vocabulary, s.width));
    auto const want = oracle::cross_entropy(z, {target.begin(), target.end()});
    // d_x = d_z · W, d_w = d_zᵀ · x; the softmax's own error is that of the logits, a few roundings.
    auto d_x = oracle::linear(want.d_z, oracle::transposed(dw, s.vocabulary, s.width), s.tokens,
                              s.width, s.vocabulary);
    auto d_w =
        oracle::linear(oracle::transposed(want.d_z, s.tokens, s.vocabulary),
                       oracle::transposed(dx, s.tokens, s.width), s.vocabulary, s.width, s.tokens);
    if (s.tokens > 1) { ASSERT_TRUE(test::not_flat(want.loss)); }
    guarded<T> first_dx;
    guarded<float> first_dw, first_loss;
    for (on_host const& on : test::host_configs()) {
      guarded<float> mean(1), loss(s.tokens), got_dw(s.vocabulary * s.width);
      guarded<T> got_dx(s.tokens * s.width);
      guarded<std::byte> bytes(nn::cross_entropy_scratch_bytes(
          static_cast<offset_t>(s.tokens), static_cast<offset_t>(s.vocabulary)));
      status const st = nn::cross_entropy(on, x.as(s.tokens, s.width), w.as(s.vocabulary, s.width),
                                          target.as(s.tokens),
                                          {.mean = mean.as(1),
                                           .loss = loss.as(s.tokens),
                                           .d_x = got_dx.as(s.tokens, s.width),
                                           .d_weight = got_dw.as(s.vocabulary, s.width)},
                                          bytes);
      ASSERT_TRUE(st.ok()) << st.message();
      EXPECT_NEAR(mean[0], want.mean, 2e-6 * (1 + std::abs(want.mean)));
      for (std::size_t t = 0; t < s.tokens; ++t) {
        EXPECT_NEAR(loss[t], want.loss[t], 4e-6 * (1 + std::abs(want.loss[t])));
      }
      EXPECT_TRUE(test::close(got_dx, d_x, 64)) << s.tokens << " " << s.vocabulary;
      EXPECT_TRUE(test::close(got_dw, d_w, 64)) << s.tokens << " " << s.vocabulary;
      if (first_dw.size() == 0) {
        first_dx = got_dx;
        first_dw = got_dw;
        first_loss = loss;
      }
      EXPECT_TRUE(test::same_bits(first_dx, got_dx)) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(first_dw, got_dw)) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(first_loss, loss)) << test::name_of(on);

      // The mean alone, without gradients, is the same number.
      guarded<float> again(1);
      ASSERT_TRUE(nn::cross_entropy(on, x.as(s.tokens, s.width), w.as(s.vocabulary, s.width),
                                    target.as(s.tokens), {.mean = again.as(1)}, bytes)
                      .ok());
      EXPECT_TRUE(test::same_bits(mean, again));
    }
  }
}

TEST(CrossEntropy, NothingValidIsAZeroLossAndZeroGradients) {
  guarded<float> const x = test::normal_values<float>(12, 1), w = test::normal_values<float>(20, 2);
  guarded<index_t> target(3);
  for (index_t& t : target) t = -1;
  guarded<float> mean(1), d_x(12), d_w(20);
  guarded<std::byte> bytes(nn::cross_entropy_scratch_bytes(3, 5));
  ASSERT_TRUE(nn::cross_entropy(on_host{}, x.as(3, 4), w.as(5, 4), std::as_const(target).as(3),
                                {.mean = mean.as(1), .d_x = d_x.as(3, 4), .d_weight = d_w.as(5, 4)},
                                bytes)
                  .ok());
  EXPECT_EQ(mean[0], 0.0f);
  for (float v : d_x) EXPECT_EQ(v, 0.0f);
  for (float v : d_w) EXPECT_EQ(v, 0.0f);
}

TEST(CrossEntropy, MicroBatchesWithOneDivisorAddUpToTheWhole) {
  std::size_t const tokens = 300, vocabulary = 20, width = 8;
  auto const x = test::normal_values<float>(tokens * width, 1);
  auto const w = test::normal_values<float>(vocabulary * width, 2);
  auto const target = some_targets({tokens, vocabulary, width});
  offset_t valid = 0;
  for (index_t t : target) valid += t >= 0 ? 1 : 0;
  guarded<std::byte> bytes(nn::cross_entropy_scratch_bytes(tokens, vocabulary));
  guarded<float> whole(1), part(1), d_whole(vocabulary * width), d_parts(vocabulary * width);
  ASSERT_TRUE(
      nn::cross_entropy(on_host{}, x.as(tokens, width), w.as(vocabulary, width), target.as(tokens),
                        {.mean = whole.as(1), .d_weight = d_whole.as(vocabulary, width)}, bytes)
          .ok());
  double sum = 0;
  for (offset_t first : {0, 100, 200}) {
    ASSERT_TRUE(nn::cross_entropy(on_host{}, x.as(tokens, width).slice(first, 100),
                                  w.as(vocabulary, width), target.as(tokens).slice(first, 100),
                                  {.mean = part.as(1), .d_weight = d_parts.as(vocabulary, width)},
                                  bytes, {.accumulate = first > 0, .divisor = valid})
                    .ok());
    sum += part[0];
  }
  EXPECT_NEAR(sum, whole[0], 1e-5);
  for (std::size_t i = 0; i < d_whole.size(); ++i) EXPECT_NEAR(d_parts[i], d_whole[i], 1e-6);
}

TEST(CrossEntropy, HugeLogitsStayFinite) {
  guarded<float> x(2), w(3);
  x[0] = 1e4f;
  x[1] = -1e4f;
  w[0] = 1.0f;
  w[1] = 0.0f;
  w[2] = -1.0f;
  guarded<index_t> target(2);
  target[0] = 0;
  target[1] = 0;
  guarded<float> mean(1), loss(2), d_x(2);
  guarded<std::byte> bytes(nn::cross_entropy_scratch_bytes(2, 3));
  ASSERT_TRUE(nn::cross_entropy(on_host{}, x.as(2, 1), w.as(3, 1), std::as_const(target).as(2),
                                {.mean = mean.as(1), .loss = loss.as(2), .d_x = d_x.as(2, 1)},
                                bytes)
                  .ok());
  EXPECT_EQ(loss[0], 0.0f);
  EXPECT_FLOAT_EQ(loss[1], 2e4f);
  EXPECT_FLOAT_EQ(d_x[1], -1.0f);
}

TEST(CrossEntropy, BadArgumentsAreSentences) {
  guarded<float> x(12), w(20), mean(1);
  guarded<index_t> target(3);
  target[0] = 4;
  target[1] = -7;
  target[2] = 5;
  guarded<std::byte> bytes(nn::cross_entropy_scratch_bytes(3, 5));
  auto const t = std::as_const(target).as(3);
  expect_error(nn::cross_entropy(on_host{}, x.as(3, 4), w.as(5, 4), t, {.mean = mean.as(1)}, bytes),
               "cross_entropy.target: entry 2 is 5; it must be below 5");
  target[2] = 0;
  expect_error(
      nn::cross_entropy(on_host{}, x.as(3, 4), w.as(5, 4), t, {.mean = mean.as(1)}, arena<>{}),
      "cross_entropy: the arena has 0 bytes; it must have");
  expect_error(nn::cross_entropy(on_host{}, x.as(3, 4), w.as(4, 5), t, {.mean = mean.as(1)}, bytes),
               "cross_entropy.weight: extent 1 is 5; it must be 4");
  expect_error(nn::cross_entropy(on_host{}, x.as(3, 4), w.as(5, 4), t, {}, bytes),
               "cross_entropy.mean: extent 0 is 0; it must be 1");
  EXPECT_TRUE(std::isnan(mean[0]));
}

}  // namespace nn_cross_entropy_test
}  // namespace shunt
