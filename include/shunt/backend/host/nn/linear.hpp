#pragma once
#include "shunt/backend/host/gemm/dense.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct linear_backend<on_host> {
  template <class X, class W, class Y>
  static status forward(on_host const& on, view<X const, 2> x, view<W const, 2> weight,
                        view<Y, 2> y, bool add) noexcept {
    host::dense(on, x, weight, y, add);
    return {};
  }
  template <class Y, class W, class X>
  static status dgrad(on_host const& on, view<Y const, 2> d_y, view<W const, 2> weight,
                      view<X, 2> d_x, bool add) noexcept {
    host::dense_dgrad(on, d_y, weight, d_x, add);
    return {};
  }
  template <class Y, class X>
  static status wgrad(on_host const& on, view<Y const, 2> d_y, view<X const, 2> x,
                      view<float, 2> d_weight, bool add) noexcept {
    host::dense_wgrad(on, d_y, x, d_weight, add);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
