#pragma once
#include "shunt/core/compiler.hpp"

#include <cstdint>

namespace shunt {

using index_t = std::int32_t;   ///< a count of tokens, experts, rows or columns
using offset_t = std::int64_t;  ///< an address, a product of counts: never narrower than 64 bits

/// Which memory a pointer may be followed in: that of the host or of a CUDA device.
enum class space { host, device };

/// The letters of the docs, in words: T tokens, H hidden, I intermediate, E experts, K top_k.
struct shape {
  /// T, H, I, E and K, in this order.
  index_t tokens = 0, hidden = 0, intermediate = 0, experts = 0, top_k = 0;
};

}  // namespace shunt
