#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// to = from, where `mark` (null: everywhere) is 0. A warp has one row.
template <int V, class T>
SHUNT_KERNEL void copy_tokens(view<std::uint8_t const, 1, space::device> mark,
                              view<T const, 2, space::device> from, view<T, 2, space::device> to) {
  for (offset_t t = grid_warp(); t < from.extent(0); t += grid_warps()) {
    if (mark && mark[t] != 0) continue;
#pragma unroll 4
    for (offset_t c = lane_of_thread() * V; c < from.extent(1); c += warp_lanes * V) {
      auto const* const word = reinterpret_cast<pack<T, V> const*>(&from(t, c));
      *reinterpret_cast<pack<T, V>*>(&to(t, c)) = *word;
    }
  }
}

SHUNT_KERNEL void write_segment(view<index_t, 1, space::device> offset, index_t rows) {
  if (grid_thread() < 2) offset[grid_thread()] = grid_thread() == 0 ? 0 : rows;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct block_backend<on_cuda> {
  template <class T>
  static status copy_rows(on_cuda const& on, view<T const, 2, space::device> from,
                          view<T, 2, space::device> to) noexcept {
    return copy_unmarked_rows<T>(on, {}, from, to);
  }
  template <class T>
  static status copy_unmarked_rows(on_cuda const& on,
                                   view<std::uint8_t const, 1, space::device> mark,
                                   view<T const, 2, space::device> from,
                                   view<T, 2, space::device> to) noexcept {
    return cuda::with_width(cuda::row_width()(from)(to).elements(), [&](auto v) {
      return cuda::launch_warps(on, "block", from.extent(0), cuda::copy_tokens<v.value, T>, mark,
                                from, to);
    });
  }
  static status one_segment(on_cuda const& on, view<index_t, 1, space::device> offset,
                            offset_t rows) noexcept {
    return cuda::launch(on, "block", 1, cuda::warp_lanes, cuda::write_segment, offset,
                        static_cast<index_t>(rows));
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
