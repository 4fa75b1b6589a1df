#pragma once
#include "shunt/combine/options.hpp"
#include "shunt/core/macros.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// A slot whose expert gives the token back as it came.
template <class T, space S>
SHUNT_HD bool is_identity(zero_experts<T, S> const& z, offset_t t, offset_t k) noexcept {
  if (z.count <= 0) return false;
  offset_t const at = offset_t{z.expert(t, k)} - z.first;
  return at >= 0 && at < z.count;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
