#pragma once
#include "shunt/backend/cuda/gemm/driver.cuh"
#include "shunt/nn/linear.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct linear_backend<on_cuda> {
  static constexpr space S = space::device;
  using kind = shunt::detail::gemm_kind;

  template <class X, class W, class Y>
  static status forward(on_cuda const& on, view<X const, 2, S> x, view<W const, 2, S> weight,
                        view<Y, 2, S> y, bool add) noexcept {
    return cuda::dense_product(on, "linear", kind::forward, x, weight, y, add);
  }
  template <class Y, class W, class X>
  static status dgrad(on_cuda const& on, view<Y const, 2, S> d_y, view<W const, 2, S> weight,
                      view<X, 2, S> d_x, bool add) noexcept {
    return cuda::dense_product(on, "linear_dgrad", kind::dgrad, d_y, weight, d_x, add);
  }
  template <class Y, class X>
  static status wgrad(on_cuda const& on, view<Y const, 2, S> d_y, view<X const, 2, S> x,
                      view<float, 2, S> d_weight, bool add) noexcept {
    return cuda::dense_wgrad(on, "linear_wgrad", d_y, x, d_weight, add);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
