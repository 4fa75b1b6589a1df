#pragma once
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct block_backend<on_host> {
  /// to = from; rows of both contiguous.
  template <class T>
  static status copy_rows(on_host const& on, view<T const, 2> from, view<T, 2> to) noexcept {
    host::parallel_ranges(on, from.extent(0), 64, [&](offset_t first, offset_t last, int) {
      for (offset_t t = first; t < last; ++t) copy_row(from, to, t);
    });
    return {};
  }
  /// The same for the rows whose mark is 0 only.
  template <class T>
  static status copy_unmarked_rows(on_host const&, view<std::uint8_t const, 1> mark,
                                   view<T const, 2> from, view<T, 2> to) noexcept {
    for (offset_t t = 0; t < from.extent(0); ++t) {
      if (mark[t] == 0) copy_row(from, to, t);
    }
    return {};
  }
  /// The offsets of one segment that has all rows.
  static status one_segment(on_host const&, view<index_t, 1> offset, offset_t rows) noexcept {
    offset[0] = 0;
    offset[1] = static_cast<index_t>(rows);
    return {};
  }

 private:
  template <class T>
  static void copy_row(view<T const, 2> from, view<T, 2> to, offset_t t) noexcept {
    if (from.extent(1) == 0) return;  // then there may be no memory either
    __builtin_memcpy(to.data() + t * to.stride(0), from.data() + t * from.stride(0),
                     static_cast<std::size_t>(from.extent(1)) * sizeof(T));
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
