#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/angle.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::rotary_args;

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/rotary_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

template <class T>
void rotate(on_host const& on, rotary_args<T> const& a, offset_t tokens) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::rotate_tokens<T>);
  parallel_ranges(on, tokens, 32,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

/// `step`: of the logarithm of the frequency, from one pair to the next; `length`: rows of a sequence.
inline void rotary_table(on_host const& on, view<float, 2> cosine, view<float, 2> sine, double step,
                         shunt::nn::detail::first_positions const& begin,
                         offset_t length) noexcept {
  parallel_ranges(on, cosine.extent(0), 64, [&](offset_t first, offset_t last, int) {
    for (offset_t i = 0; i < cosine.extent(1); ++i) {
      double const frequency = shunt::nn::detail::exponential_of(step * static_cast<double>(i));
      for (offset_t p = first; p < last; ++p) {
        offset_t const position = begin.of(p / length) + p % length;
        auto const turn =
            shunt::nn::detail::sine_cosine_of(static_cast<double>(position) * frequency);
        cosine(p, i) = static_cast<float>(turn.cosine);
        sine(p, i) = static_cast<float>(turn.sine);
      }
    }
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct rotary_backend<on_host> {
  static status table(on_host const& on, view<float, 2> cosine, view<float, 2> sine, double step,
                      first_positions const& first, offset_t length) noexcept {
    host::rotary_table(on, cosine, sine, step, first, length);
    return {};
  }
  template <class T>
  static status rotate(on_host const& on, rotary_args<T> const& a, offset_t tokens) noexcept {
    host::rotate(on, a, tokens);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
