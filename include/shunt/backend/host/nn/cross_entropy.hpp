#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::cross_entropy_args;

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/cross_entropy_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

inline void cross_entropy_rows(on_host const& on, cross_entropy_args const& a, offset_t tokens,
                               bool wanted) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::cross_entropy_rows);
  float const scale = wanted ? a.share() : 0.0f;
  parallel_ranges(on, tokens, 16, [&](offset_t first, offset_t last, int) {
    kernel(a, scale, first, last, wanted);
  });
}

inline void mean_of_losses(on_host const& on, float const* loss, offset_t tokens, offset_t valid,
                           float* mean) noexcept {
  SHUNT_ISA_PICK(on, nn::mean_of_losses)(loss, tokens, valid, mean);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct cross_entropy_backend<on_host> {
  /// *valid = the targets that count, or `divisor` where it is given.
  static status count(on_host const&, view<index_t const, 1> target, offset_t vocabulary,
                      offset_t divisor, offset_t* valid) noexcept {
    *valid = divisor;
    for (offset_t t = 0; divisor == 0 && t < target.extent(0); ++t) {
      *valid += target[t] >= 0 && target[t] < vocabulary ? 1 : 0;
    }
    return {};
  }
  /// The losses of rows of logits; with `wanted`, their gradients in their place.
  static status rows(on_host const& on, cross_entropy_args const& a, offset_t tokens,
                     bool wanted) noexcept {
    host::cross_entropy_rows(on, a, tokens, wanted);
    return {};
  }
  static status mean(on_host const& on, float const* loss, offset_t tokens, offset_t const* valid,
                     float* mean) noexcept {
    host::mean_of_losses(on, loss, tokens, *valid, mean);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
