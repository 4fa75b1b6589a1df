#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/view.hpp"

/// What a backend of advance() supplies, and the addition that all of them make.
namespace shunt::detail {
inline namespace SHUNT_ABI {

template <class P> struct counter_backend;

/// n + by, wrapping.
template <class I> SHUNT_HD constexpr I advanced(I n, I by) noexcept {
  return static_cast<I>(static_cast<std::uint64_t>(n) + static_cast<std::uint64_t>(by));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
