#pragma once
#include "shunt/backend/cuda/gemm/driver.cuh"
#include "shunt/route/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

SHUNT_KERNEL void add_bias(view<float, 2, space::device> logits,
                           view<float const, 1, space::device> bias) {
  offset_t const experts = logits.extent(1), all = logits.extent(0) * experts;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    float& to = logits(i / experts, i % experts);
    to = __fadd_rn(to, bias[i % experts]);
  }
}

/// Sums of columns over all tokens, in ascending order: a thread has one column.
SHUNT_KERNEL void sum_columns(view<float const, 2, space::device> d,
                              view<float, 1, space::device> to, bool add) {
  for (offset_t e = grid_thread(); e < d.extent(1); e += grid_threads()) {
    float sum = add ? to[e] : 0.0f;
    for (offset_t t = 0; t < d.extent(0); ++t) sum = __fadd_rn(sum, d(t, e));
    to[e] = sum;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct gate_projection_backend<on_cuda> {
  /// On CUDA cores whatever the policy says: a router that chose otherwise than the host's would make a
  /// larger difference than any rounding, and this product is a small one.
  template <class X, class W>
  static status run(on_cuda const& on, gate_logits_call<X, W, space::device> const& c) noexcept {
    constexpr char const* who = "gate_logits";
    on_cuda const exact{on.stream, arithmetic::exact};
    status const done =
        cuda::dense_product(exact, who, gemm_kind::forward, c.x, c.w, c.logits, false);
    if (!done.ok() || !c.bias) return done;
    return cuda::launch_threads(on, who, c.logits.extent(0) * c.logits.extent(1), cuda::add_bias,
                                c.logits, c.bias);
  }
  template <class X, class W, class Dx>
  static status run(on_cuda const& on,
                    gate_backward_call<X, W, Dx, space::device> const& c) noexcept {
    constexpr char const* who = "gate_logits_backward";
    status done;
    if (c.d_x) {
      done = cuda::dense_product(on, who, gemm_kind::dgrad, c.d_logits, c.w, c.d_x, c.add_x);
    }
    if (done.ok() && c.d_w) {
      done = cuda::dense_wgrad(on, who, c.d_logits, c.x, c.d_w, c.add_weights);
    }
    if (!done.ok() || !c.d_bias) return done;
    return cuda::launch_threads(on, who, c.d_bias.extent(0), cuda::sum_columns, c.d_logits,
                                c.d_bias, c.add_weights);
  }
};

}  // namespace shunt::detail
