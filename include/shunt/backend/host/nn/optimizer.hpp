#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"
#include "shunt/nn/schedule.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::adamw_args;
using shunt::nn::detail::adamw_factors;

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/optimizer_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

inline float gradient_norm(on_host const& on, view<float const, 1> g, float* partial) noexcept {
  using shunt::nn::detail::norm_piece;
  auto* const squares = SHUNT_ISA_PICK(on, nn::sum_of_squares);
  offset_t const count = g.extent(0), pieces = shunt::nn::detail::pieces_of(count, norm_piece);
  parallel_ranges(on, count, norm_piece, [&](offset_t first, offset_t last, int) {
    partial[first / norm_piece] = squares(g.data() + first, last - first);
  });
  return SHUNT_ISA_PICK(on, nn::norm_of)(partial, pieces);
}

template <class T> void adamw(on_host const& on, adamw_args<T> const& a, offset_t count) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::adamw_range<T>);
  float const scale = a.scale();
  adamw_factors const factors = a.factors();
  if (scale < 0.0f || !factors.usable) return;
  parallel_ranges(on, count, 1 << 14, [&](offset_t first, offset_t last, int) {
    kernel(a, factors, scale, first, last);
  });
}

template <class T>
void rounded_copy(on_host const& on, view<float const, 1> from, view<T, 1> to) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::copy_range<T>);
  parallel_ranges(on, from.extent(0), 1 << 14, [&](offset_t first, offset_t last, int) {
    kernel(from.data() + first, to.data() + first, last - first);
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct optimizer_backend<on_host> {
  static status norm(on_host const& on, view<float const, 1> gradient, float* norm,
                     float* partial) noexcept {
    *norm = host::gradient_norm(on, gradient, partial);
    return {};
  }
  /// Of one piece; and the norm from those of all pieces.
  static float squares(on_host const& on, float const* x, offset_t count) noexcept {
    return SHUNT_ISA_PICK(on, nn::sum_of_squares)(x, count);
  }
  static float norm_of(on_host const& on, float const* partial, offset_t pieces) noexcept {
    return SHUNT_ISA_PICK(on, nn::norm_of)(partial, pieces);
  }
  template <class T>
  static status adamw(on_host const& on, adamw_args<T> const& a, offset_t count) noexcept {
    host::adamw(on, a, count);
    return {};
  }
  static status rate(on_host const&, cosine_schedule const& schedule, std::int64_t const* taken,
                     float* rate) noexcept {
    *rate = rate_at(schedule, *taken);
    return {};
  }
  template <class T>
  static status copy(on_host const& on, view<float const, 1> from, view<T, 1> to) noexcept {
    host::rounded_copy(on, from, to);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
