#pragma once
#include <cstdint>
#include <vector>

#include "shunt/core/numeric.hpp"
#include "support/random.hpp"

namespace shunt::test {

template <class T = float>
std::vector<T> normal_vector(offset_t count, std::uint64_t seed, float scale = 2.0f) {
  rng d(seed);
  std::vector<T> v(static_cast<std::size_t>(count));
  for (T& x : v) x = from_float<T>(scale * static_cast<float>(d.normal()));
  return v;
}

}  // namespace shunt::test
