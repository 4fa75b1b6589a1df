#pragma once
#include "shunt/backend/cuda/dispatch.cuh"
#include "shunt/combine/options.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// What one token's d_y gives to what stands beside the rows: a warp has one token. d_residual comes
/// last: it may be d_y itself.
template <class T>
SHUNT_KERNEL void token_gradients(matrix<T const> d_y, device_plan plan, matrix<float const> gate,
                                  combine_gradients<T, space::device> o) {
  offset_t const hidden = d_y.extent(1);
  for (offset_t t = grid_warp(); t < plan.tokens; t += grid_warps()) {
    bool const real = is_valid(o.valid, t);
    T const* const from = row_at(d_y, t);
    if (o.d_shared_gate) {
      float const dot = real ? row_dot(from, row_at(o.shared, t), hidden) : 0.0f;
      if (lane_of_thread() == 0) o.d_shared_gate[t] = dot;
    }
    float const beside = o.shared_gate ? o.shared_gate[t] : 1.0f;
    for (offset_t c = lane_of_thread(); c < hidden; c += warp_lanes) {
      float const g = to_float(from[c]);
      if (o.d_shared) row_at(o.d_shared, t)[c] = from_float<T>(real ? __fmul_rn(beside, g) : 0.0f);
      if (o.d_x) {
        T* const to = row_at(o.d_x, t) + c;
        float sum = 0;
        for (offset_t k = 0; real && k < plan.top_k; ++k) {
          if (row_of(plan, t * plan.top_k + k) >= 0 || !is_identity(o.zero, t, k)) continue;
          sum = __fmaf_rn(gate ? gate(t, k) : 1.0f, g, sum);
        }
        if (o.accumulate) sum = __fmaf_rn(1.0f, to_float(*to), sum);
        *to = from_float<T>(sum);
      }
      if (o.d_residual) row_at(o.d_residual, t)[c] = from_float<T>(real ? g : 0.0f);
    }
  }
}

template <class T, class R>
status combine_gradient(on_cuda const& on, matrix<T const> d_y, device_plan const& plan,
                        matrix<float const> gate, matrix<R const> rows, matrix<R> d_rows,
                        combine_gradients<T, space::device> const& o) noexcept {
  constexpr char const* who = "combine_backward";
  if (d_rows) {
    status const done = scale<T, R>(on, who, d_y, plan, gate, o.valid, d_rows);
    if (!done.ok()) return done;
  }
  if (o.d_gate) {
    status const done = launch_warps(on, who, plan.slot_row.extent(0), row_dots<R, T>, rows, d_y,
                                     plan, o.zero, o.valid, o.d_gate);
    if (!done.ok()) return done;
  }
  if (!o.d_shared_gate && !o.d_shared && !o.d_x && !o.d_residual) return {};
  return launch_warps(on, who, plan.tokens, token_gradients<T>, d_y, plan, gate, o);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct combine_backend<on_cuda> {
  template <class T, int Rank> using memory = view<T, Rank, space::device>;
  using plan_type = dispatch_plan<space::device>;

  template <class R, class Y>
  static status forward(on_cuda const& on, memory<R const, 2> rows, plan_type const& plan,
                        memory<float const, 2> gate, memory<Y, 2> y,
                        combine_options<Y, space::device> const& o) noexcept {
    return cuda::sum<R, Y>(on, "combine", rows, plan, gate, o, y);
  }
  template <class T, class R>
  static status backward(on_cuda const& on, memory<T const, 2> d_y, plan_type const& plan,
                         memory<float const, 2> gate, memory<R const, 2> rows, memory<R, 2> d_rows,
                         combine_gradients<T, space::device> const& o) noexcept {
    return cuda::combine_gradient<T, R>(on, d_y, plan, gate, rows, d_rows, o);
  }
};

}  // namespace shunt::detail
