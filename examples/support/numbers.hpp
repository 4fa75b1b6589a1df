#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "shunt/core/random.hpp"
#include "shunt/core/shape.hpp"

namespace example {

/// `count` numbers in [-scale, scale), always the same.
inline std::vector<float> numbers(std::uint64_t seed, shunt::offset_t count, float scale) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * (2 * shunt::uniform_of(shunt::random_at(seed, i).word[0]) - 1);
  }
  return values;
}

}  // namespace example
