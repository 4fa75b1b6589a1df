#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/counter.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

template <class I> SHUNT_KERNEL void advance_counters(view<I, 1, space::device> counter, I by) {
  for (offset_t i = grid_thread(); i < counter.extent(0); i += grid_threads()) {
    counter[i] = shunt::detail::advanced(counter[i], by);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {
inline namespace SHUNT_ABI {

template <> struct counter_backend<on_cuda> {
  template <class I>
  static status advance(on_cuda const& on, view<I, 1, space::device> counter, I by) noexcept {
    return cuda::launch_threads(on, "advance", counter.extent(0), cuda::advance_counters<I>,
                                counter, by);
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
