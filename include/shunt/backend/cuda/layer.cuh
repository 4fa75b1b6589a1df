#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/math.hpp"
#include "shunt/dispatch/plan.hpp"
#include "shunt/moe_experts/stages.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

SHUNT_KERNEL void plan_all_tokens(view<std::uint8_t const, 1, space::device> valid,
                                  dispatch_plan<space::device> plan) {
  offset_t const thread = grid_thread();
  if (thread < 2) plan.offset[thread] = thread == 0 ? 0 : plan.tokens;
  for (offset_t t = thread; t < plan.tokens; t += grid_threads()) {
    plan.row_slot[t] = plan.slot_row[t] = !valid || valid[t] != 0 ? static_cast<index_t>(t) : -1;
  }
}

/// gate = sigmoid(logit).
SHUNT_KERNEL void apply_sigmoid(view<float const, 1, space::device> logit,
                                view<float, 1, space::device> gate) {
  for (offset_t t = grid_thread(); t < gate.extent(0); t += grid_threads()) {
    gate[t] = math::sigmoid(logit[t]);
  }
}
/// d = d · gate · (1 - gate): from the gate's gradient to its logit's.
SHUNT_KERNEL void apply_sigmoid_backward(view<float const, 1, space::device> gate,
                                         view<float, 1, space::device> d) {
  for (offset_t t = grid_thread(); t < d.extent(0); t += grid_threads()) {
    float const slope = __fmul_rn(gate[t], __fsub_rn(1.0f, gate[t]));
    d[t] = __fmul_rn(d[t], slope);
  }
}

SHUNT_KERNEL void take_gates(view<index_t const, 2, space::device> token,
                             view<float const, 2, space::device> d_gate,
                             view<float, 2, space::device> d_choice) {
  offset_t const each = token.extent(1), all = token.extent(0) * each;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    index_t const t = token(i / each, i % each);
    d_choice(i / each, i % each) = t >= 0 ? d_gate(t, i / each) : 0.0f;
  }
}

/// to += from, or to = from, rounded: of `*in_use` rows (null: all).
template <class T, class To>
SHUNT_KERNEL void move_rows(view<T const, 2, space::device> from, view<To, 2, space::device> to,
                            index_t const* in_use, bool add) {
  offset_t const width = to.extent(1);
  offset_t const all = (in_use != nullptr ? *in_use : to.extent(0)) * width;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    float const x = to_float(from(i / width, i % width));
    To& at = to(i / width, i % width);
    at = from_float<To>(add ? __fadd_rn(to_float(at), x) : x);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct layer_backend<on_cuda> {
  template <class T, int Rank> using memory = view<T, Rank, space::device>;

  static status all_tokens(on_cuda const& on, memory<std::uint8_t const, 1> valid,
                           dispatch_plan<space::device> const& plan) noexcept {
    offset_t const threads = plan.tokens > 2 ? plan.tokens : 2;
    return cuda::launch_threads(on, "moe_layer", threads, cuda::plan_all_tokens, valid, plan);
  }
  static status apply_sigmoid(on_cuda const& on, memory<float const, 1> logit,
                              memory<float, 1> gate) noexcept {
    return cuda::launch_threads(on, "moe_layer", gate.extent(0), cuda::apply_sigmoid, logit, gate);
  }
  static status apply_sigmoid_backward(on_cuda const& on, memory<float const, 1> gate,
                                       memory<float, 1> d) noexcept {
    return cuda::launch_threads(on, "moe_layer_backward", d.extent(0), cuda::apply_sigmoid_backward,
                                gate, d);
  }
  static status gates_of_choice(on_cuda const& on, memory<index_t const, 2> token,
                                memory<float const, 2> d_gate, memory<float, 2> d_choice) noexcept {
    return cuda::launch_threads(on, "moe_layer_backward", d_choice.extent(0) * d_choice.extent(1),
                                cuda::take_gates, token, d_gate, d_choice);
  }
  template <class T>
  static status add(on_cuda const& on, memory<T const, 2> from, memory<float, 2> to,
                    segments<space::device> rows = {}) noexcept {
    index_t const* const in_use = rows.offset ? rows.offset.data() + rows.experts() : nullptr;
    return cuda::launch_threads(on, "moe_layer_backward", to.extent(0) * to.extent(1),
                                cuda::move_rows<T, float>, from, to, in_use, true);
  }
  template <class T>
  static status round(on_cuda const& on, memory<float const, 2> from, memory<T, 2> to) noexcept {
    index_t const* const all = nullptr;
    return cuda::launch_threads(on, "moe_layer_backward", to.extent(0) * to.extent(1),
                                cuda::move_rows<float, T>, from, to, all, false);
  }
};

}  // namespace shunt::detail
