#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/linear.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Options of linear, linear_dgrad and linear_wgrad.
struct linear_options {
  bool accumulate = false;  ///< add to what the output holds instead of overwriting it
};

namespace detail {
/// rows [R,columns] with contiguous rows.
template <class V>
status matrix_of(char const* name, V v, offset_t rows, offset_t columns) noexcept {
  return first_of(check::rows(name, v), check::extent(name, 0, v.extent(0), rows, "rows"),
                  check::extent(name, 1, v.extent(1), columns, "columns"));
}
}  // namespace detail

/// y = x·Wᵀ.
/// Shapes   x [R,K] · weight [N,K] → y [R,N]
/// Types    each of any storage type; accumulation in float, one rounding to y's type
/// Order    each output is one chain of fma in ascending k: the same bits on any thread count and
///          ISA, independent of the other rows
/// Aliasing y overlaps nothing
/// Errors   extents that do not fit, null pointers
/// Cost     R·N·K multiply-adds; allocates nothing
template <execution P, input<P, 2> X, input<P, 2> W, output<P, 2> Y>
status linear(P const& on, X&& x_in, W&& weight_in, Y&& y_in,
              linear_options const& options = {}) noexcept {
  auto const x = as_input<P, 2>(x_in);
  auto const weight = as_input<P, 2>(weight_in);
  auto const y = as_output<P, 2>(y_in);
  if (status bad = first_of(
          check::policy(on), check::rows("linear.x", x), check::rows("linear.weight", weight),
          check::extent("linear.weight", 1, weight.extent(1), x.extent(1), "columns of x"),
          detail::matrix_of("linear.y", y, x.extent(0), weight.extent(0)),
          check::apart("linear.y", y, "linear.x", x),
          check::apart("linear.y", y, "linear.weight", weight));
      !bad.ok()) {
    return bad;
  }
  if (y.empty()) return {};
  return detail::linear_backend<P>::forward(on, x, weight, y, options.accumulate);
}

/// dx = dy·W.
/// Shapes   d_y [R,N] · weight [N,K] → d_x [R,K]
/// Order    chains of fma in ascending n; the rest as linear()
template <execution P, input<P, 2> DY, input<P, 2> W, output<P, 2> DX>
status linear_dgrad(P const& on, DY&& d_y_in, W&& weight_in, DX&& d_x_in,
                    linear_options const& options = {}) noexcept {
  auto const d_y = as_input<P, 2>(d_y_in);
  auto const weight = as_input<P, 2>(weight_in);
  auto const d_x = as_output<P, 2>(d_x_in);
  if (status bad =
          first_of(check::policy(on), check::rows("linear_dgrad.d_y", d_y),
                   check::rows("linear_dgrad.weight", weight),
                   check::extent("linear_dgrad.weight", 0, weight.extent(0), d_y.extent(1),
                                 "columns of d_y"),
                   detail::matrix_of("linear_dgrad.d_x", d_x, d_y.extent(0), weight.extent(1)),
                   check::apart("linear_dgrad.d_x", d_x, "linear_dgrad.d_y", d_y),
                   check::apart("linear_dgrad.d_x", d_x, "linear_dgrad.weight", weight));
      !bad.ok()) {
    return bad;
  }
  if (d_x.empty()) return {};
  return detail::linear_backend<P>::dgrad(on, d_y, weight, d_x, options.accumulate);
}

/// dW = dyᵀ·x.
/// Shapes   d_y [R,N] · x [R,K] → d_weight [N,K] float
/// Order    chains of fma in ascending row; the rest as linear()
template <execution P, input<P, 2> DY, input<P, 2> X>
status linear_wgrad(P const& on, DY&& d_y_in, X&& x_in,
                    std::type_identity_t<view<float, 2, P::memory>> d_weight,
                    linear_options const& options = {}) noexcept {
  auto const d_y = as_input<P, 2>(d_y_in);
  auto const x = as_input<P, 2>(x_in);
  if (status bad = first_of(
          check::policy(on), check::rows("linear_wgrad.d_y", d_y), check::rows("linear_wgrad.x", x),
          check::extent("linear_wgrad.x", 0, x.extent(0), d_y.extent(0), "rows of d_y"),
          detail::matrix_of("linear_wgrad.d_weight", d_weight, d_y.extent(1), x.extent(1)));
      !bad.ok()) {
    return bad;
  }
  if (d_weight.empty()) return {};
  return detail::linear_backend<P>::wgrad(on, d_y, x, d_weight, options.accumulate);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
