#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <sstream>
#include <vector>

#include "shunt/core/numeric.hpp"

namespace shunt::test {

/// One rounding of T, relative.
template <class T> [[nodiscard]] constexpr double unit_roundoff() noexcept {
  if constexpr (std::is_same_v<T, bf16>) return 0x1p-8;
  if constexpr (std::is_same_v<T, fp16>) return 0x1p-11;
  return 0x1p-24;
}

/// The smallest step of T: what rounding may lose where the result is subnormal.
template <class T> [[nodiscard]] constexpr double least_step() noexcept {
  if constexpr (std::is_same_v<T, fp16>) return 0x1p-25;
  if constexpr (std::is_same_v<T, bf16>) return 0x1p-134;
  return 0x1p-150;
}

/// An expected value and the sum of the magnitudes that went into it: what a sum can honestly lose
/// is a multiple of the second, not of the first.
struct expectation {
  double value = 0.0;
  double magnitude = 0.0;
};

/// Every stored value within `roundings` float roundings of the magnitude, plus one rounding to T of
/// the value. A NaN is never close. Says which element is the worst, and by how much.
template <class Buffer>
[[nodiscard]] testing::AssertionResult close(Buffer const& actual,
                                             std::vector<expectation> const& expected,
                                             double roundings) {
  using T = typename Buffer::value_type;
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure()
           << "sizes differ: " << actual.size() << " and " << expected.size();
  }
  std::size_t worst = 0, wrong = 0;
  double worst_ratio = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    auto const is = static_cast<double>(to_float(actual[i]));
    double const allowed = roundings * 0x1p-24 * expected[i].magnitude +
                           1.01 * unit_roundoff<T>() * std::abs(expected[i].value) +
                           least_step<T>();
    double const error = std::abs(is - expected[i].value);
    bool const good = error <= allowed;  // false for NaN
    wrong += good ? 0u : 1u;
    double const ratio = good                ? error / allowed
                         : std::isnan(error) ? std::numeric_limits<double>::infinity()
                                             : error / allowed;
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (wrong == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << wrong << " of " << expected.size() << " values are off; the worst at " << worst
         << " is " << to_float(actual[worst]) << ", expected " << expected[worst].value << " ("
         << worst_ratio << " times what is allowed)";
}

/// The same, where the magnitude is the value itself.
template <class Buffer>
[[nodiscard]] testing::AssertionResult close(Buffer const& actual,
                                             std::vector<double> const& expected,
                                             double roundings) {
  std::vector<expectation> wide;
  wide.reserve(expected.size());
  for (double v : expected) wide.push_back({v, std::abs(v)});
  return close(actual, wide, roundings);
}

/// An oracle whose output is constant proves nothing: the spread must show.
[[nodiscard]] inline testing::AssertionResult not_flat(std::vector<double> const& values) {
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (double v : values) {
    least = std::min(least, v);
    most = std::max(most, v);
  }
  if (values.size() < 2 || most - least > 1e-4) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << "the oracle is flat (" << least << " to " << most << "): this test proves nothing";
}
[[nodiscard]] inline testing::AssertionResult not_flat(std::vector<expectation> const& values) {
  std::vector<double> plain;
  plain.reserve(values.size());
  for (expectation const& v : values) plain.push_back(v.value);
  return not_flat(plain);
}

/// Nothing was left unwritten.
template <class Buffer> [[nodiscard]] bool all_finite(Buffer const& values) {
  for (auto const& v : values) {
    if (!std::isfinite(to_float(v))) return false;
  }
  return true;
}

/// Root of the summed squares of the difference over that of what is expected.
template <class Buffer>
[[nodiscard]] double relative_distance(Buffer const& got, std::vector<expectation> const& want) {
  double off = 0.0, all = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    double const d = static_cast<double>(to_float(got[i])) - want[i].value;
    off += d * d;
    all += want[i].value * want[i].value;
  }
  return std::sqrt(off / (all > 0.0 ? all : 1.0));
}

}  // namespace shunt::test
