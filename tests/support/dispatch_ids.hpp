#pragma once
#include <cstdint>
#include <vector>

#include "shunt/core/view.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace shunt::test {

/// Extents as the size of a buffer.
inline std::size_t buffer_size(offset_t a, offset_t b) { return static_cast<std::size_t>(a * b); }

/// Ids with gaps (-1).
inline std::vector<index_t> ids_with_gaps(shape const& s, skew how, std::uint64_t seed) {
  std::vector<index_t> ids = chosen_experts(s, how, seed);
  for (std::size_t i = 3; i < ids.size(); i += 7) ids[i] = -1;
  return ids;
}

}  // namespace shunt::test
