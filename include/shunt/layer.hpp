#pragma once
#include "shunt/layer/options.hpp"
#include "shunt/layer/saved.hpp"
#include "shunt/layer/weights.hpp"

namespace shunt {

/// Bytes of moe_saved for a batch of `tokens`.
template <class T, class G, space S, class A>
[[nodiscard]] std::size_t moe_saved_bytes(index_t tokens, moe_weights<T, G, S> const& weights,
                                          layer_options<A, S> const& options = {}) noexcept;
template <class T, class G, space S, class A>
[[nodiscard]] moe_saved<T, S> carve_moe_saved(arena<S>& from, index_t tokens,
                                              moe_weights<T, G, S> const& weights,
                                              layer_options<A, S> const& options = {}) noexcept;

/// Bytes of scratch that moe_layer needs; with `training` where it is given a moe_saved.
template <class T, class G, space S, class A>
[[nodiscard]] std::size_t moe_layer_scratch_bytes(index_t tokens,
                                                  moe_weights<T, G, S> const& weights,
                                                  layer_options<A, S> const& options,
                                                  bool training) noexcept;
template <class T, class G, space S, class A>
[[nodiscard]] std::size_t moe_layer_backward_scratch_bytes(
    index_t tokens, moe_weights<T, G, S> const& weights,
    layer_options<A, S> const& options) noexcept;

/// y = sum of the chosen experts, weighted by their gates, + shared experts + residual.
template <execution P, class X, class T, class G, class Y, class A = swiglu>
status moe_layer(P const& on, X const& x, moe_weights<T, G, P::memory> const& weights, Y const& y,
                 arena<P::memory> work, layer_options<A, P::memory> const& options = {},
                 moe_saved<T, P::memory> const* saved = nullptr) noexcept;

/// The gradients of moe_layer: d_x from d_y, and those of the weights.
template <execution P, class X, class T, class G, class DY, class DX, class A = swiglu>
status moe_layer_backward(P const& on, X const& x, moe_weights<T, G, P::memory> const& weights,
                          DY const& d_y, moe_saved<T, P::memory> const& saved, DX const& d_x,
                          moe_gradients<P::memory> const& gradients, arena<P::memory> work,
                          layer_options<A, P::memory> const& options = {}) noexcept;

}  // namespace shunt
