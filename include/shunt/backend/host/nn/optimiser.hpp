#pragma once
#include "shunt/backend/host/nn/angle.hpp"
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

template <class T> struct adamw_args {
  float const* gradient;
  float *parameter, *first_moment, *second_moment;
  T* copy;  // null: none
  float scale, beta1, beta2, rest1, rest2, unbias1, unbias2, epsilon, rate, keep;
};

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/optimiser_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

inline constexpr offset_t norm_piece = 4096;  // elements of one partial sum of squares: fixed

inline float* carve_gradient_norm(arena<>& a, offset_t count) noexcept {
  return a.take<float>((count + norm_piece - 1) / norm_piece);
}

inline float gradient_norm(on_host const& on, view<float const, 1> g, float* partial) noexcept {
  auto* const squares = SHUNT_ISA_PICK(on, nn::sum_of_squares);
  offset_t const count = g.extent(0), pieces = (count + norm_piece - 1) / norm_piece;
  parallel_ranges(on, count, norm_piece, [&](offset_t first, offset_t last, int) {
    partial[first / norm_piece] = squares(g.data() + first, last - first);
  });
  return SHUNT_ISA_PICK(on, nn::norm_of)(partial, pieces);
}

template <class T> void adamw(on_host const& on, adamw_args<T> const& a, offset_t count) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::adamw_range<T>);
  parallel_ranges(on, count, 1 << 14,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

template <class T>
void rounded_copy(on_host const& on, view<float const, 1> from, view<T, 1> to) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::copy_range<T>);
  parallel_ranges(on, from.extent(0), 1 << 14, [&](offset_t first, offset_t last, int) {
    kernel(from.data() + first, to.data() + first, last - first);
  });
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
