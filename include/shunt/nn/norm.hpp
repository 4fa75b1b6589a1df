#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/norm.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Options of rms_norm and rms_norm_add.
struct rms_norm_options {
  float epsilon = 1e-5f;  ///< ε, above 0
};

/// Divides each token by its root mean square and scales it: y = x / sqrt(mean x² + ε) · w. Where
/// `add` is given, x is first replaced by sum = x + add (rounded to its type; may be x itself).
/// Shapes   x, y, add, sum [T,H] · weight [H] · inverse [T] (1 / rms; optional, backward needs it)
/// Types    x, y, add, sum of one storage type; weight of any storage type; arithmetic in float
/// Order    mean: 32 strided partial sums, then halves: the same bits on any thread count and ISA
/// Aliasing y and sum may be x or add, exactly; otherwise none
/// Errors   extents that differ, null pointers, epsilon not above 0
/// Cost     reads and writes each row once or twice from cache; allocates nothing
/// Source   Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019
template <execution P, input<P, 2> X, input<P, 1> W, output<P, 2> Y>
status rms_norm(P const& on, X&& x, W&& weight, Y&& y,
                std::type_identity_t<view<float, 1, P::memory>> inverse = {},
                rms_norm_options const& options = {}) noexcept;

/// The norm of x + add, which is written to sum: see rms_norm.
template <execution P, input<P, 2> X, input<P, 2> A, output<P, 2> Sum, input<P, 1> W,
          output<P, 2> Y>
status rms_norm_add(P const& on, X&& x, A&& add, Sum&& sum, W&& weight, Y&& y,
                    std::type_identity_t<view<float, 1, P::memory>> inverse = {},
                    rms_norm_options const& options = {}) noexcept;

/// Scratch that rms_norm_backward needs where dw is wanted.
[[nodiscard]] inline std::size_t rms_norm_backward_scratch_bytes(offset_t tokens,
                                                                 offset_t width) noexcept {
  auto a = arena<>::measuring();
  (void)detail::carve_norm_backward(a, tokens, width);
  return a.needed();
}

/// Options of rms_norm_backward.
template <class T, space S = space::host> struct rms_norm_backward_options {
  view<T const, 2, S> add = {};  ///< [T,H], added to d_x: the gradient that went round the norm
  bool accumulate = false;       ///< d_weight: add to it instead of overwriting
};

/// Gradients of rms_norm, r = inverse: dx = r·w·dy − x·(r³/H)·Σ(dy·w·x), dw = Σ_t dy·x·r.
/// Shapes   x, d_y, d_x [T,H] · weight, d_weight [H] (null view: not wanted) · inverse [T]
/// Types    x, d_y, d_x of one storage type; d_weight float
/// Order    dw: a chain over tokens in blocks of 64, blocks summed in order: thread count never shows
/// Aliasing d_x may be d_y or options.add, exactly; otherwise none
/// Errors   extents that differ, null pointers, arena too small (says how much)
/// Cost     reads x and d_y twice from cache; scratch rms_norm_backward_scratch_bytes()
template <execution P, input<P, 2> X, input<P, 1> W, input<P, 2> DY, output<P, 2> DX>
status rms_norm_backward(
    P const& on, X&& x, W&& weight, std::type_identity_t<view<float const, 1, P::memory>> inverse,
    DY&& d_y, DX&& d_x, std::type_identity_t<view<float, 1, P::memory>> d_weight,
    std::type_identity_t<arena<P::memory>> work,
    rms_norm_backward_options<element_t<X>, P::memory> const& options = {}) noexcept;

namespace detail {
template <class T, class W, class P>
status checked_rms_norm(P const& on, view<T const, 2, P::memory> x, view<T const, 2, P::memory> add,
                        view<T, 2, P::memory> sum, view<W const, 1, P::memory> weight,
                        view<T, 2, P::memory> y, view<float, 1, P::memory> inverse,
                        rms_norm_options const& options) noexcept {
  static_assert(storage<T> && storage<W>, "shunt::nn::rms_norm: float, bf16 or fp16 only");
  offset_t const tokens = x.extent(0), width = x.extent(1);
  bool const adds = add.data() != nullptr || sum.data() != nullptr;
  if (status bad =
          first_of(check::policy(on), check::rows("rms_norm.x", x), check::rows("rms_norm.y", y),
                   check::rows("rms_norm.weight", weight),
                   check::extent("rms_norm.y", 0, y.extent(0), tokens, "tokens"),
                   check::extent("rms_norm.y", 1, y.extent(1), width, "width of x"),
                   check::extent("rms_norm.weight", 0, weight.extent(0), width, "width of x"));
      !bad.ok()) {
    return bad;
  }
  if (inverse.data() != nullptr) {
    if (status bad =
            first_of(check::memory("rms_norm.inverse", inverse),
                     check::extent("rms_norm.inverse", 0, inverse.extent(0), tokens, "tokens"));
        !bad.ok()) {
      return bad;
    }
  }
  if (adds) {
    if (status bad = first_of(check::rows("rms_norm.add", add), check::rows("rms_norm.sum", sum),
                              check::extent("rms_norm.add", 0, add.extent(0), tokens, "tokens"),
                              check::extent("rms_norm.add", 1, add.extent(1), width, "width of x"),
                              check::extent("rms_norm.sum", 0, sum.extent(0), tokens, "tokens"),
                              check::extent("rms_norm.sum", 1, sum.extent(1), width, "width of x"));
        !bad.ok()) {
      return bad;
    }
  }
  if (!(options.epsilon > 0.0f)) {
    return status::fail(error::bad_argument, "rms_norm.epsilon is %g; it must be above 0",
                        static_cast<double>(options.epsilon));
  }
  return norm_backend<P>::forward(
      on,
      rms_norm_args<T, W>{x.data(), x.stride(0), adds ? add.data() : nullptr, add.stride(0),
                          sum.data(), sum.stride(0), weight.data(), y.data(), y.stride(0),
                          inverse.data(), inverse.stride(0), width, options.epsilon},
      tokens);
}
}  // namespace detail

template <execution P, input<P, 2> X, input<P, 1> W, output<P, 2> Y>
status rms_norm(P const& on, X&& x, W&& weight, Y&& y,
                std::type_identity_t<view<float, 1, P::memory>> inverse,
                rms_norm_options const& options) noexcept {
  using type = element_t<X>;
  return detail::checked_rms_norm<type, element_t<W>>(
      on, as_input<P, 2>(x), {}, {}, as_input<P, 1>(weight), as_output<P, 2>(y), inverse, options);
}

template <execution P, input<P, 2> X, input<P, 2> A, output<P, 2> Sum, input<P, 1> W,
          output<P, 2> Y>
status rms_norm_add(P const& on, X&& x, A&& add, Sum&& sum, W&& weight, Y&& y,
                    std::type_identity_t<view<float, 1, P::memory>> inverse,
                    rms_norm_options const& options) noexcept {
  using type = element_t<X>;
  return detail::checked_rms_norm<type, element_t<W>>(on, as_input<P, 2>(x), as_input<P, 2>(add),
                                                      as_output<P, 2>(sum), as_input<P, 1>(weight),
                                                      as_output<P, 2>(y), inverse, options);
}

template <execution P, input<P, 2> X, input<P, 1> W, input<P, 2> DY, output<P, 2> DX>
status rms_norm_backward(
    P const& on, X&& x_in, W&& weight_in,
    std::type_identity_t<view<float const, 1, P::memory>> inverse, DY&& d_y_in, DX&& d_x_in,
    std::type_identity_t<view<float, 1, P::memory>> d_weight,
    std::type_identity_t<arena<P::memory>> work,
    rms_norm_backward_options<element_t<X>, P::memory> const& options) noexcept {
  using type = element_t<X>;
  static_assert(storage<type> && storage<element_t<W>>,
                "shunt::nn::rms_norm_backward: float, bf16 or fp16 only");
  auto const x = as_input<P, 2>(x_in);
  auto const weight = as_input<P, 1>(weight_in);
  view<type const, 2, P::memory> const d_y = as_input<P, 2>(d_y_in);
  view<type, 2, P::memory> const d_x = as_output<P, 2>(d_x_in);
  offset_t const tokens = x.extent(0), width = x.extent(1);
  auto same = [&](char const* name, auto v) {
    return first_of(check::rows(name, v), check::extent(name, 0, v.extent(0), tokens, "tokens"),
                    check::extent(name, 1, v.extent(1), width, "width of x"));
  };
  if (status bad = first_of(
          check::policy(on), check::rows("rms_norm_backward.x", x),
          check::rows("rms_norm_backward.weight", weight),
          check::extent("rms_norm_backward.weight", 0, weight.extent(0), width, "width of x"),
          check::memory("rms_norm_backward.inverse", inverse),
          check::extent("rms_norm_backward.inverse", 0, inverse.extent(0), tokens, "tokens"),
          same("rms_norm_backward.d_y", d_y));
      !bad.ok()) {
    return bad;
  }
  if (d_x.data() != nullptr || !d_x.empty()) {
    if (status bad = same("rms_norm_backward.d_x", d_x); !bad.ok()) return bad;
  }
  if (options.add.data() != nullptr) {
    if (status bad = same("rms_norm_backward.add", options.add); !bad.ok()) return bad;
  }
  float* partial = nullptr;
  if (d_weight.data() != nullptr) {
    partial = detail::carve_norm_backward(work, tokens, width);
    if (status bad = first_of(
            check::rows("rms_norm_backward.d_weight", d_weight),
            check::extent("rms_norm_backward.d_weight", 0, d_weight.extent(0), width, "width of x"),
            work.check("rms_norm_backward"));
        !bad.ok()) {
      return bad;
    }
  }
  return detail::norm_backend<P>::backward(
      on,
      detail::rms_norm_backward_args<type, element_t<W>>{
          x.data(), x.stride(0), weight.data(), inverse.data(), inverse.stride(0), d_y.data(),
          d_y.stride(0), options.add.data(), options.add.stride(0), d_x.data(), d_x.stride(0),
          width},
      tokens, d_weight, options.accumulate, partial);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
