#pragma once
#include "shunt/backend/host/nn/angle.hpp"
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

template <class T> struct rotary_args {
  T* x;
  offset_t batch_step, token_step, head_step;
  offset_t length, heads, pairs, first_position;
  float const *cosine, *sine;
  offset_t cosine_row, sine_row;
  float turn;
  bool adjacent;
};

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/rotary_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

template <class T>
void rotate(on_host const& on, rotary_args<T> const& a, offset_t tokens) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::rotate_tokens<T>);
  parallel_ranges(on, tokens, 32,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

inline void rotary_table(on_host const& on, view<float, 2> cosine, view<float, 2> sine, double base,
                         offset_t first_position) noexcept {
  offset_t const pairs = cosine.extent(1);
  double const step = -logarithm_of(base) / static_cast<double>(pairs);
  parallel_ranges(on, cosine.extent(0), 64, [&](offset_t first, offset_t last, int) {
    for (offset_t i = 0; i < pairs; ++i) {
      double const frequency = exponential_of(step * static_cast<double>(i));
      for (offset_t p = first; p < last; ++p) {
        sine_cosine const turn =
            sine_cosine_of(static_cast<double>(first_position + p) * frequency);
        cosine(p, i) = static_cast<float>(turn.cosine);
        sine(p, i) = static_cast<float>(turn.sine);
      }
    }
  });
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
