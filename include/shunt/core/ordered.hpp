#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/macros.hpp"
#include "shunt/core/numeric.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The bits of a float in an order of unsigned numbers; every NaN is below all, -0 equals +0.
SHUNT_HD inline std::uint32_t order_of(float x) noexcept {
  if (x != x) return 0;
  auto const bits = bit_copy<std::uint32_t>(x == 0.0f ? 0.0f : x);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
