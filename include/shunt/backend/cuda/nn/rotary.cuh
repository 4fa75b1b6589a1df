#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/angle.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::rotary_args;

/// A warp has one token, its lanes the pairs of all heads.
template <class T> SHUNT_KERNEL void rotate_tokens(rotary_args<T> a, offset_t tokens) {
  for (offset_t t = grid_warp(); t < tokens; t += grid_warps()) {
    offset_t const batch = t / a.length, place = t % a.length;
    offset_t const position = a.first.of(batch) + place;
    if (position < 0 || position >= a.positions) continue;
    float const* const cosine = a.cosine + position * a.cosine_row;
    float const* const sine = a.sine + position * a.sine_row;
    T* const token = a.x + batch * a.batch_step + place * a.token_step;
    offset_t h = 0, i = lane_of_thread();  // head and pair, without a division
    for (; i >= a.pairs; i -= a.pairs) ++h;
    while (h < a.heads) {
      T* const one = token + h * a.head_step + (a.adjacent ? 2 * i : i);
      T* const other = one + (a.adjacent ? 1 : a.pairs);
      float const c = cosine[i], s = __fmul_rn(sine[i], a.turn);
      float const p = to_float(*one), q = to_float(*other);
      *one = from_float<T>(__fmaf_rn(p, c, -__fmul_rn(q, s)));
      *other = from_float<T>(__fmaf_rn(q, c, __fmul_rn(p, s)));
      for (i += warp_lanes; i >= a.pairs; i -= a.pairs) ++h;
    }
  }
}

SHUNT_KERNEL void fill_rotary_table(view<float, 2, space::device> cosine,
                                    view<float, 2, space::device> sine, double step,
                                    nn::detail::first_positions first, offset_t length) {
  offset_t const pairs = cosine.extent(1), items = cosine.extent(0) * pairs;
  for (offset_t item = grid_thread(); item < items; item += grid_threads()) {
    offset_t const p = item / pairs, i = item % pairs;
    offset_t const position = first.of(p / length) + p % length;
    double const frequency = nn::detail::exponential_of(step * static_cast<double>(i));
    auto const turn = nn::detail::sine_cosine_of(static_cast<double>(position) * frequency);
    cosine(p, i) = static_cast<float>(turn.cosine);
    sine(p, i) = static_cast<float>(turn.sine);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct rotary_backend<on_cuda> {
  static status table(on_cuda const& on, view<float, 2, space::device> cosine,
                      view<float, 2, space::device> sine, double step, first_positions const& first,
                      offset_t length) noexcept {
    return cuda::launch_threads(on, "rotary_fill", cosine.size(), cuda::fill_rotary_table, cosine,
                                sine, step, first, length);
  }
  template <class T>
  static status rotate(on_cuda const& on, rotary_args<T> const& a, offset_t tokens) noexcept {
    return cuda::launch_warps(on, "rotary", tokens, cuda::rotate_tokens<T>, a, tokens);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
