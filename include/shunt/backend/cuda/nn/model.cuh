#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/angle.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

SHUNT_KERNEL void fill_normal_values(view<float, 1, space::device> values, std::uint64_t seed,
                                     offset_t first, double deviation) {
  for (offset_t i = grid_thread(); i < values.extent(0); i += grid_threads()) {
    values[i] = nn::detail::normal_at(seed, static_cast<std::uint64_t>(first + i), deviation);
  }
}
SHUNT_KERNEL void fill_values(view<float, 1, space::device> values, float value) {
  for (offset_t i = grid_thread(); i < values.extent(0); i += grid_threads()) values[i] = value;
}

SHUNT_KERNEL void split_rows_of_tokens(view<index_t const, 2, space::device> tokens,
                                       offset_t length, index_t* input, index_t* target,
                                       std::uint8_t* valid) {
  offset_t const items = tokens.extent(0) * length;
  for (offset_t t = grid_thread(); t < items; t += grid_threads()) {
    index_t const id = tokens(t / length, t % length);
    input[t] = id;
    if (target != nullptr) target[t] = tokens(t / length, t % length + 1);
    valid[t] = id >= 0 ? 1 : 0;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct model_backend<on_cuda> {
  static status fill_normal(on_cuda const& on, view<float, 1, space::device> values,
                            std::uint64_t seed, offset_t first, double deviation) noexcept {
    return cuda::launch_threads(on, "model_init", values.extent(0), cuda::fill_normal_values,
                                values, seed, first, deviation);
  }
  static status fill(on_cuda const& on, view<float, 1, space::device> values,
                     float value) noexcept {
    return cuda::launch_threads(on, "model_init", values.extent(0), cuda::fill_values, values,
                                value);
  }
  static status split_tokens(on_cuda const& on, view<index_t const, 2, space::device> tokens,
                             offset_t length, index_t* input, index_t* target,
                             std::uint8_t* valid) noexcept {
    return cuda::launch_threads(on, "model", tokens.extent(0) * length, cuda::split_rows_of_tokens,
                                tokens, length, input, target, valid);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
