#pragma once
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// to = from; rows of both contiguous.
template <class T>
void copy_rows(on_host const& on, view<T const, 2> from, view<T, 2> to) noexcept {
  parallel_ranges(on, from.extent(0), 64, [&](offset_t first, offset_t last, int) {
    for (offset_t t = first; t < last; ++t) {
      __builtin_memcpy(to.data() + t * to.stride(0), from.data() + t * from.stride(0),
                       static_cast<std::size_t>(from.extent(1)) * sizeof(T));
    }
  });
}

/// The same for the rows whose mark is 0 only.
template <class T>
void copy_unmarked_rows(view<std::uint8_t const, 1> mark, view<T const, 2> from,
                        view<T, 2> to) noexcept {
  for (offset_t t = 0; t < from.extent(0); ++t) {
    if (mark[t] != 0) continue;
    __builtin_memcpy(to.data() + t * to.stride(0), from.data() + t * from.stride(0),
                     static_cast<std::size_t>(from.extent(1)) * sizeof(T));
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
