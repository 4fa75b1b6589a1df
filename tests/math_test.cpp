// Shunt's elementary functions against the C library's in double, over all exponents; the scalar
// ones and every region's lanes give the same bits.
#include "shunt/core/math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "shunt/backend/host/simd/regions.hpp"
#include "support/host_configs.hpp"

#define SHUNT_REGION_FILE "support/math_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::test {
namespace math_test {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

double sigmoid_in_double(double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}
double softplus_in_double(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

struct function {
  char const* name;
  float (*is)(float) noexcept;
  double (*must)(double);
  double ulps;  // docs/numerics.md
};
function const functions[] = {
    {"exp", math::exp, [](double x) { return std::exp(x); }, 0.92},
    {"log", math::log, [](double x) { return std::log(x); }, 0.92},
    {"log1p", math::log1p, [](double x) { return std::log1p(x); }, 1.5},
    {"sigmoid", math::sigmoid, sigmoid_in_double, 2.41},
    {"softplus", math::softplus, softplus_in_double, 2.0},
    {"tanh", math::tanh, [](double x) { return std::tanh(x); }, 1.41},
    {"erf", math::erf, [](double x) { return std::erf(x); }, 1.25},
    {"sqrt", math::sqrt, [](double x) { return std::sqrt(x); }, 0.5001},
};

/// Distance in units in the last place of the float nearest to `must`.
double ulps(float is, double must) {
  auto const nearest = static_cast<float>(must);
  if (std::isnan(nearest)) return std::isnan(is) ? 0 : inf;
  if (std::isinf(nearest) || std::isinf(is)) return nearest == is ? 0 : inf;
  int exponent = 0;
  std::frexp(must, &exponent);
  double const unit = std::ldexp(1.0, std::max(exponent - 24, -149));
  return std::abs(static_cast<double>(is) - must) / unit;
}

/// Floats all over the range: every `step`-th bit pattern, with neighbors of the special ones.
std::vector<float> floats_everywhere(std::uint32_t step) {
  std::vector<float> values{
      0.0f,      -0.0f,     1.0f,       -1.0f,           inf,     -inf,    nan,     0.6f,   0.92f,
      4.0f,      -4.0f,     88.72f,     88.73f,          -87.33f, -87.34f, -103.9f, -104.f, 104.f,
      0x1p-126f, 0x1p-149f, -0x1p-149f, 0x1.fffffep+127f};
  std::size_t const special = values.size();
  for (std::size_t i = 0; i < special; ++i) {
    values.push_back(std::nextafterf(values[i], inf));
    values.push_back(std::nextafterf(values[i], -inf));
  }
  for (std::uint64_t bits = 0; bits < (1ull << 32); bits += step) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  // Densely where the functions do their work.
  for (int i = -400000; i <= 400000; ++i) values.push_back(static_cast<float>(i) * 0x1.0624dep-12f);
  while (values.size() % 16 != 0) values.push_back(0.5f);
  return values;
}

TEST(Math, WithinTheDocumentedUnitsInTheLastPlace) {
  auto const values = floats_everywhere(small_scale() ? 65537 : 4099);
  for (function const& f : functions) {
    double worst = 0;
    float at = 0;
    for (float x : values) {
      double const off = ulps(f.is(x), f.must(static_cast<double>(x)));
      if (off > worst) {
        worst = off;
        at = x;
      }
    }
    RecordProperty(f.name, std::to_string(worst));
    EXPECT_LE(worst, f.ulps) << f.name << " at " << at << " gives " << f.is(at) << ", must be "
                             << f.must(static_cast<double>(at));
  }
}

TEST(Math, LanesAndScalarsAreTheSameBits) {
  auto const values = floats_everywhere(small_scale() ? 65537 : 4099);
  for (int which = 0; which < 8; ++which) {
    std::vector<float> want(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) want[i] = functions[which].is(values[i]);
    for (isa set : instruction_sets()) {
      std::vector<float> got(values.size(), nan);
      on_host const on{.instructions = set};
      SHUNT_ISA_PICK(on, math_all)
      (which, values.data(), got.data(), static_cast<std::int64_t>(values.size()));
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        bool const both_nan = std::isnan(got[i]) && std::isnan(want[i]);
        bool const same =
            std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(want[i]);
        if (!same && !both_nan && wrong++ == 0) {
          ADD_FAILURE() << functions[which].name << "(" << values[i] << ") is " << got[i] << " in "
                        << to_string(set) << ", " << want[i] << " as a scalar";
        }
      }
      EXPECT_EQ(wrong, 0u);
    }
  }
}

TEST(Math, SpecialValues) {
  EXPECT_EQ(math::exp(-inf), 0.0f);
  EXPECT_EQ(math::exp(inf), inf);
  EXPECT_EQ(math::exp(0.0f), 1.0f);
  EXPECT_EQ(math::log(0.0f), -inf);
  EXPECT_EQ(math::log(inf), inf);
  EXPECT_TRUE(std::isnan(math::log(-1.0f)));
  EXPECT_EQ(math::log1p(-1.0f), -inf);
  EXPECT_EQ(math::log1p(inf), inf);
  EXPECT_EQ(math::sigmoid(inf), 1.0f);
  EXPECT_EQ(math::sigmoid(-inf), 0.0f);
  EXPECT_EQ(math::softplus(-inf), 0.0f);
  EXPECT_EQ(math::softplus(inf), inf);
  EXPECT_EQ(math::tanh(inf), 1.0f);
  EXPECT_EQ(math::tanh(-inf), -1.0f);
  EXPECT_EQ(math::erf(inf), 1.0f);
  EXPECT_EQ(math::erf(-inf), -1.0f);
  EXPECT_EQ(math::erf(0.0f), 0.0f);
  for (function const& f : functions) EXPECT_TRUE(std::isnan(f.is(nan))) << f.name;
  // The sign of zero survives the odd functions.
  EXPECT_TRUE(std::signbit(math::tanh(-0.0f)));
  EXPECT_TRUE(std::signbit(math::erf(-0.0f)));
}

TEST(Math, MaxAndMinKeepANanOnTheLeftAndIgnoreOneOnTheRight) {
  EXPECT_TRUE(std::isnan(math::max(nan, 1.0f)));
  EXPECT_TRUE(std::isnan(math::min(nan, 1.0f)));
  EXPECT_EQ(math::max(1.0f, nan), 1.0f);
  EXPECT_EQ(math::min(1.0f, nan), 1.0f);
}

// The ceilings of the bounds are not idle: a function with one coefficient off would be noticed.
TEST(Math, TheMeasureNoticesOneUnit) {
  float const x = 1.5f;
  auto const right = static_cast<float>(std::exp(1.5));
  EXPECT_LE(ulps(right, std::exp(1.5)), 0.5);
  EXPECT_GT(ulps(std::nextafterf(std::nextafterf(right, inf), inf), std::exp(1.5)), 1.4);
  EXPECT_EQ(ulps(nan, std::log(-1.0)), 0);
  EXPECT_EQ(ulps(x, std::log(-1.0)), inf);
}

}  // namespace math_test
}  // namespace shunt::test
