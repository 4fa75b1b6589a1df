#include "shunt/nn/optimizer.hpp"

#include <gtest/gtest.h>

#include <string>

#include "shunt/nn/schedule.hpp"
#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_optimizer_test {

using test::expect_error;
using test::guarded;

TEST(GradientNorm, MatchesTheOracleOnEveryWorld) {
  for (std::size_t n : {0u, 1u, 7u, 4095u, 4096u, 4097u, 100003u}) {
    auto const g = test::normal_values<float>(n, 1, 0.3);
    double sum = 0;
    for (float x : g) sum += double{x} * x;
    guarded<float> first;
    for (on_host const& on : test::host_configs()) {
      guarded<float> norm(1);
      guarded<std::byte> bytes(nn::gradient_norm_scratch_bytes(static_cast<offset_t>(n)));
      ASSERT_TRUE(nn::gradient_norm(on, g.as(n), norm.as(1), bytes).ok());
      EXPECT_NEAR(norm[0], std::sqrt(sum), 1e-6 * std::sqrt(sum));
      if (first.size() == 0) first = norm;
      EXPECT_TRUE(test::same_bits(first, norm)) << test::name_of(on);
    }
  }
}

template <class T> class AdamWOf : public testing::Test {};
TYPED_TEST_SUITE(AdamWOf, test::storage_types);

TYPED_TEST(AdamWOf, FollowsTheOracleOverManyStepsOnEveryWorld) {
  using T = TypeParam;
  std::size_t const n = 16411;
  double const rate = 0.01, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, decay = 0.1, clip = 1.5;
  auto const start = test::normal_values<float>(n, 1);
  std::vector<double> p = test::in_double(start), m(n, 0.0), v(n, 0.0);
  std::vector<guarded<float>> gradients;
  for (std::uint64_t step = 1; step <= 5; ++step) {
    gradients.push_back(test::normal_values<float>(n, step, step == 2 ? 1e-3 : 0.1));
    double norm = 0;
    for (float g : gradients.back()) norm += double{g} * g;
    double const scale = std::sqrt(norm) > clip ? clip / std::sqrt(norm) : 1.0;
    for (std::size_t i = 0; i < n; ++i) {
      double const g = gradients.back()[i] * scale;
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      double const mh = m[i] / (1 - std::pow(beta1, step));
      double const vh = v[i] / (1 - std::pow(beta2, step));
      p[i] -= rate * (mh / (std::sqrt(vh) + epsilon) + decay * p[i]);
    }
  }
  ASSERT_TRUE(test::not_flat(p));
  guarded<float> first;
  for (on_host const& on : test::host_configs()) {
    guarded<float> parameter = start, first_moment(n), second_moment(n), norm(1);
    guarded<T> copy(n);
    for (std::size_t i = 0; i < n; ++i) first_moment[i] = second_moment[i] = 0.0f;
    guarded<std::byte> bytes(nn::gradient_norm_scratch_bytes(n));
    for (std::int64_t step = 1; step <= 5; ++step) {
      auto const& g = gradients[static_cast<std::size_t>(step - 1)];
      ASSERT_TRUE(nn::gradient_norm(on, g.as(n), norm.as(1), bytes).ok());
      status const s = nn::adamw(on,
                                 nn::adamw_state<T>{parameter.as(n), g.as(n), first_moment.as(n),
                                                    second_moment.as(n), copy.as(n)},
                                 std::as_const(norm).as(1),
                                 {.rate = 0.01f, .weight_decay = 0.1f, .step = step, .clip = 1.5f});
      ASSERT_TRUE(s.ok()) << s.message();
    }
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(parameter[i], p[i], 3e-6 * (1 + std::abs(p[i]))) << i;
      ASSERT_EQ(to_float(copy[i]), to_float(from_float<T>(parameter[i])));
    }
    if (first.size() == 0) first = parameter;
    EXPECT_TRUE(test::same_bits(first, parameter)) << test::name_of(on);
  }
}

TEST(AdamW, DecayIsDecoupledFromTheGradient) {
  guarded<float> p(3), g(3), m(3), v(3);
  for (std::size_t i = 0; i < 3; ++i) {
    p[i] = 2.0f;
    g[i] = m[i] = v[i] = 0.0f;
  }
  ASSERT_TRUE(nn::adamw(on_host{},
                        nn::adamw_state<>{p.as(3), std::as_const(g).as(3), m.as(3), v.as(3)}, {},
                        {.rate = 0.1f, .weight_decay = 0.5f})
                  .ok());
  for (float x : p) EXPECT_FLOAT_EQ(x, 1.9f);
}

TEST(AdamW, ANormThatIsNotFiniteChangesNothing) {
  guarded<float> p(2), g(2), m(2), v(2), norm(1);
  p[0] = p[1] = 1.0f;
  m[0] = m[1] = v[0] = v[1] = 0.25f;
  g[0] = 1.0f;
  g[1] = std::numeric_limits<float>::infinity();
  guarded<std::byte> bytes(nn::gradient_norm_scratch_bytes(2));
  for (float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    g[1] = bad;
    ASSERT_TRUE(nn::gradient_norm(on_host{}, std::as_const(g).as(2), norm.as(1), bytes).ok());
    ASSERT_TRUE(nn::adamw(on_host{},
                          nn::adamw_state<>{p.as(2), std::as_const(g).as(2), m.as(2), v.as(2)},
                          std::as_const(norm).as(1), {.clip = 1.0f})
                    .ok());
    EXPECT_EQ(p[0], 1.0f);
    EXPECT_EQ(m[0], 0.25f);
    EXPECT_EQ(v[1], 0.25f);
  }
}

TEST(AdamW, StepAndRateFromMemoryHaveTheBitsOfThoseByValue) {
  std::size_t const n = 100;
  for (on_host const& on : test::host_configs()) {
    auto value = test::normal_values<float>(n, 1), memory = value;
    auto const g = test::normal_values<float>(n, 2);
    guarded<float> m(n), v(n);
    for (std::size_t i = 0; i < n; ++i) m[i] = v[i] = 0.0f;
    guarded<float> m2 = m, v2 = v, rate(1);
    guarded<std::int64_t> step(1);
    nn::cosine_schedule const schedule{.peak = 0.02, .floor = 0.01, .warm_up = 3, .steps = 9};
    step[0] = 0;
    for (std::int64_t at = 1; at <= 12; ++at) {
      view<std::int64_t const, 1> const read(step.data(), {{1}});
      ASSERT_TRUE(nn::scheduled_rate(on, schedule, read, rate.as(1)).ok());
      step[0] += 1;
      ASSERT_TRUE(
          nn::adamw(on, nn::adamw_state<>{value.as(n), g.as(n), m.as(n), v.as(n)}, {},
                    {.rate = nn::rate_at(schedule, at - 1), .weight_decay = 0.1f, .step = at})
              .ok());
      ASSERT_TRUE(nn::adamw(on, nn::adamw_state<>{memory.as(n), g.as(n), m2.as(n), v2.as(n)}, {},
                            {.rate = -3.0f, .weight_decay = 0.1f, .step = -1},
                            {.step = read, .rate = std::as_const(rate).as(1)})
                      .ok());
      EXPECT_TRUE(test::same_bits(value, memory)) << test::name_of(on);
    }
    guarded<float> const before = memory;
    step[0] = 0;
    ASSERT_TRUE(nn::adamw(on, nn::adamw_state<>{memory.as(n), g.as(n), m2.as(n), v2.as(n)}, {}, {},
                          {.step = view<std::int64_t const, 1>(step.data(), {{1}})})
                    .ok());
    EXPECT_TRUE(test::same_bits(before, memory)) << "a step below 1 changed the weights";
  }
}

TEST(AdamW, BadArgumentsAreSentences) {
  guarded<float> p(4), g(3);
  nn::adamw_state<> state{p.as(4), std::as_const(g).as(3), p.as(4), p.as(4)};
  expect_error(nn::adamw(on_host{}, state, {}, {}), "adamw.gradient: extent 0 is 3; it must be 4");
  state.gradient = std::as_const(p).as(4);
  expect_error(nn::adamw(on_host{}, state, {}, {.step = 0}),
               "adamw.step is 0; it must be 1 or more");
  expect_error(nn::adamw(on_host{}, state, {}, {.beta2 = 1.0f}),
               "adamw.beta is 1; it must be from 0");
  guarded<std::int64_t> steps(2);
  expect_error(nn::adamw(on_host{}, state, {}, {}, {.step = view<std::int64_t const, 1>(steps)}),
               "adamw.scalars.step: extent 0 is 2; it must be 1 (one number)");
  expect_error(nn::scheduled_rate(on_host{}, {}, {}, p.as(1)),
               "scheduled_rate.taken: extent 0 is 0");
  for (float x : p) EXPECT_TRUE(std::isnan(x));
}

TEST(Schedule, WarmsUpThenFallsAlongACosine) {
  nn::cosine_schedule const s{.peak = 2e-3, .floor = 2e-4, .warm_up = 10, .steps = 110};
  EXPECT_FLOAT_EQ(nn::rate_at(s, 0), 2e-4f);
  EXPECT_FLOAT_EQ(nn::rate_at(s, 4), 1e-3f);
  EXPECT_FLOAT_EQ(nn::rate_at(s, 10), 2e-3f);
  EXPECT_FLOAT_EQ(nn::rate_at(s, 60), 1.1e-3f);
  EXPECT_FLOAT_EQ(nn::rate_at(s, 110), 2e-4f);
  EXPECT_FLOAT_EQ(nn::rate_at(s, 1000000), 2e-4f);
  for (int i = 10; i < 109; ++i) EXPECT_GT(nn::rate_at(s, i), nn::rate_at(s, i + 1));
  EXPECT_FLOAT_EQ(nn::rate_at({.peak = 1.0, .floor = 0.0, .warm_up = 0, .steps = 2}, 1), 0.5f);
}

}  // namespace nn_optimizer_test
}  // namespace shunt
