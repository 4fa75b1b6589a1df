#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/layer/memory.hpp"

/// How many bytes the layer needs, from the code that carves them.
namespace shunt {
inline namespace SHUNT_ABI {

/// Bytes of a moe_saved for a batch of `tokens`.
template <storage T, storage G, space S, any_activation A>
[[nodiscard]] std::size_t moe_saved_bytes(index_t tokens, moe_weights<T, G, S> const& weights,
                                          layer_options<A, S> const& options) noexcept {
  auto from = arena<S>::measuring();
  static_cast<void>(detail::carve_saved<T>(from, detail::moe_sizes(tokens, weights, options),
                                           options, options.memory == memory_mode::save));
  return from.needed();
}
/// A moe_saved in memory of the caller; `from.fits()` tells whether it sufficed.
template <storage T, storage G, space S, any_activation A>
[[nodiscard]] moe_saved<T, S> carve_moe_saved(arena<S>& from, index_t tokens,
                                              moe_weights<T, G, S> const& weights,
                                              layer_options<A, S> const& options) noexcept {
  return detail::carve_saved<T>(from, detail::moe_sizes(tokens, weights, options), options,
                                options.memory == memory_mode::save);
}

/// Bytes of scratch that moe_layer needs. With `training`, where it is given a moe_saved, it needs
/// less.
template <execution P, storage T, storage G, weight_format W, any_activation A>
[[nodiscard]] std::size_t moe_layer_scratch_bytes(P const& on, index_t tokens,
                                                  moe_weights<T, G, P::memory, W> const& weights,
                                                  layer_options<A, P::memory> const& options,
                                                  bool training = false) noexcept {
  auto from = arena<P::memory>::measuring();
  detail::moe_sizes const n(tokens, weights, options);
  if (!training) static_cast<void>(detail::carve_saved<T>(from, n, options, false));
  static_cast<void>(detail::carve_forward<T>(on, from, n, options));
  return from.needed();
}
/// Scratch of moe_layer_backward for so many tokens.
template <execution P, storage T, storage G, any_activation A>
[[nodiscard]] std::size_t moe_layer_backward_scratch_bytes(
    P const& on, index_t tokens, moe_weights<T, G, P::memory> const& weights,
    layer_options<A, P::memory> const& options) noexcept {
  auto from = arena<P::memory>::measuring();
  static_cast<void>(detail::carve_backward<T>(on, from, detail::moe_sizes(tokens, weights, options),
                                              bool(weights.down_bias), true, options));
  return from.needed();
}

}  // namespace SHUNT_ABI
}  // namespace shunt
