#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

template <class T, class W> struct rms_norm_args {
  T const* x;
  offset_t x_row;
  T const* add;  // null: no residual
  offset_t add_row;
  T* sum;
  offset_t sum_row;
  W const* weight;
  T* y;
  offset_t y_row;
  float* inverse;  // null: not wanted
  offset_t inverse_step;
  offset_t width;
  float epsilon;
};

template <class T, class W> struct rms_norm_backward_args {
  T const* x;
  offset_t x_row;
  W const* weight;
  float const* inverse;
  offset_t inverse_step;
  T const* d_y;
  offset_t d_y_row;
  T const* add;  // null: nothing is added to dx
  offset_t add_row;
  T* d_x;  // null: not wanted
  offset_t d_x_row;
  offset_t width;
};

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/norm_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

inline constexpr offset_t norm_block = 64;  // tokens whose share of dw is one partial row: fixed

inline float* carve_norm_backward(arena<>& a, offset_t tokens, offset_t width) noexcept {
  return a.take<float>((tokens + norm_block - 1) / norm_block * width);
}

template <class T, class W>
void rms_norm(on_host const& on, rms_norm_args<T, W> const& a, offset_t tokens) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::rms_norm_rows<T, W>);
  parallel_ranges(on, tokens, 16,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

/// out[c] (+)= the sum of the rows of `partial`, in their order.
inline void add_partials(on_host const& on, float const* partial, offset_t rows, offset_t width,
                         view<float, 1> out, bool accumulate) noexcept {
  auto* const sum = SHUNT_ISA_PICK(on, nn::sum_partials);
  parallel_ranges(on, width, 256, [&](offset_t first, offset_t last, int) {
    sum(partial, rows, width, out.data(), accumulate, first, last);
  });
}

template <class T, class W>
void rms_norm_backward(on_host const& on, rms_norm_backward_args<T, W> const& a, offset_t tokens,
                       view<float, 1> d_weight, bool accumulate, float* partial) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::rms_norm_backward_rows<T, W>);
  bool const wanted = d_weight.data() != nullptr;
  parallel_ranges(on, tokens, norm_block, [&](offset_t first, offset_t last, int) {
    kernel(a, first, last, wanted ? partial + first / norm_block * a.width : nullptr);
  });
  if (wanted) {
    add_partials(on, partial, (tokens + norm_block - 1) / norm_block, a.width, d_weight,
                 accumulate);
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
