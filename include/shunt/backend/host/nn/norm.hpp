#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::rms_norm_args;
using shunt::nn::detail::rms_norm_backward_args;

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/norm_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

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
  using shunt::nn::detail::norm_block;
  bool const wanted = d_weight.data() != nullptr;
  parallel_ranges(on, tokens, norm_block, [&](offset_t first, offset_t last, int) {
    kernel(a, first, last, wanted ? partial + first / norm_block * a.width : nullptr);
  });
  if (wanted) {
    add_partials(on, partial, shunt::nn::detail::pieces_of(tokens, norm_block), a.width, d_weight,
                 accumulate);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct norm_backend<on_host> {
  template <class T, class W>
  static status forward(on_host const& on, rms_norm_args<T, W> const& a, offset_t tokens) noexcept {
    host::rms_norm(on, a, tokens);
    return {};
  }
  template <class T, class W>
  static status backward(on_host const& on, rms_norm_backward_args<T, W> const& a, offset_t tokens,
                         view<float, 1> d_weight, bool accumulate, float* partial) noexcept {
    host::rms_norm_backward(on, a, tokens, d_weight, accumulate, partial);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
