#pragma once
#include "shunt/backend/host/gemm/dense.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/route/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

inline void add_bias(on_host const& on, view<float, 2> logits, view<float const, 1> bias) noexcept {
  parallel_ranges(on, logits.extent(0), 64, [&](std::int64_t first, std::int64_t last, int) {
    for (std::int64_t t = first; t < last; ++t) {
      for (std::int64_t e = 0; e < logits.extent(1); ++e) logits(t, e) = logits(t, e) + bias[e];
    }
  });
}

/// Sums of columns over all tokens, in ascending order.
inline void sum_columns(on_host const& on, view<float const, 2> d, view<float, 1> to,
                        bool add) noexcept {
  parallel_ranges(on, d.extent(1), 128, [&](std::int64_t first, std::int64_t last, int) {
    if (!add) {
      for (std::int64_t e = first; e < last; ++e) to[e] = 0.0f;
    }
    for (std::int64_t t = 0; t < d.extent(0); ++t) {
      for (std::int64_t e = first; e < last; ++e) to[e] = to[e] + d(t, e);
    }
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct gate_projection_backend<on_host> {
  template <class X, class W>
  static status run(on_host const& on, gate_logits_call<X, W, space::host> const& c) noexcept {
    host::dense<X, W, float>(on, c.x, c.w, c.logits);
    if (c.bias) host::add_bias(on, c.logits, c.bias);
    return {};
  }
  template <class X, class W, class Dx>
  static status run(on_host const& on,
                    gate_backward_call<X, W, Dx, space::host> const& c) noexcept {
    if (c.d_x) host::dense_dgrad<float, W, Dx>(on, c.d_logits, c.w, c.d_x, c.add_x);
    if (c.d_w) host::dense_wgrad<float, X>(on, c.d_logits, c.x, c.d_w, c.add_weights);
    if (c.d_bias) host::sum_columns(on, c.d_logits, c.d_bias, c.add_weights);
    return {};
  }
};

}  // namespace shunt::detail
