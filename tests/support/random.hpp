#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "shunt/core/numeric.hpp"
#include "support/guarded.hpp"

namespace shunt::test {

/// A generator of the tests' own (splitmix64): it shares nothing with the library's.
class rng {
 public:
  explicit rng(std::uint64_t seed) noexcept : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}

  std::uint64_t bits() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  /// In [0, 1).
  double uniform() noexcept { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) noexcept { return low + (high - low) * uniform(); }
  /// In [0, n).
  std::int64_t below(std::int64_t n) noexcept {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(n));
  }
  double normal() noexcept {
    double const radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  std::uint64_t state_;
};

/// `count` normal values times `scale`, rounded to T.
template <class T>
guarded<T> normal_values(std::size_t count, std::uint64_t seed, double scale = 1.0) {
  rng d(seed);
  guarded<T> values(count);
  for (T& v : values) v = from_float<T>(static_cast<float>(scale * d.normal()));
  return values;
}

/// What the library will see of stored values, in double: the oracles' input.
template <class Buffer> std::vector<double> in_double(Buffer const& stored) {
  std::vector<double> values;
  values.reserve(stored.size());
  for (auto const& v : stored) values.push_back(static_cast<double>(to_float(v)));
  return values;
}

}  // namespace shunt::test
