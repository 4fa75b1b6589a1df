#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/view.hpp"

namespace shunt {

/// Where each expert's rows stand: rows of expert e are [offset[e], offset[e+1]). offset[0] is 0, the
/// offsets never fall; empty experts are legal.
///   Shapes  offset [E+1]
template <space S = space::host> struct segments {
  view<index_t const, 1, S> offset = {};  ///< [E+1] first row of each expert, and the end
  /// Rows that one expert may be expected to have: the heights of CUDA's tiles are chosen by it, no
  /// result depends on it. 0: the rows there is room for, over these experts. (A shard has room for
  /// the rows of all experts.)
  index_t expected = 0;

  /// E: one less than there are offsets.
  [[nodiscard]] constexpr index_t experts() const noexcept {
    return offset.extent(0) > 0 ? static_cast<index_t>(offset.extent(0) - 1) : 0;
  }
};

namespace check {
inline namespace SHUNT_ABI {

/// The shape of segments: at least the one offset 0, contiguous. Their content is not read.
template <space S> [[nodiscard]] status offsets(char const* name, segments<S> s) noexcept {
  if (s.offset.extent(0) < 1) {
    return status::fail(error::bad_shape,
                        "%s: extent 0 is %lld; it must be 1 or more (experts + 1)", name,
                        static_cast<long long>(s.offset.extent(0)));
  }
  return rows(name, s.offset);
}

}  // namespace SHUNT_ABI
}  // namespace check
}  // namespace shunt
