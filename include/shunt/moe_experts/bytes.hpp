#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/moe_experts/memory.hpp"

/// How many bytes moe_experts needs, from the code that carves them.
namespace shunt {
inline namespace SHUNT_ABI {

/// Bytes of a moe_experts_saved for a batch of `tokens`, each with `top_k` ids.
template <storage T, space S, any_activation A>
[[nodiscard]] std::size_t moe_experts_saved_bytes(
    index_t tokens, index_t top_k, moe_experts_weights<T, S> const& weights,
    moe_experts_options<A, S> const& options) noexcept {
  auto from = arena<S>::measuring();
  static_cast<void>(
      detail::carve_experts_saved<T>(from, detail::expert_sizes(tokens, top_k, weights, options),
                                     options.memory == memory_mode::save));
  return from.needed();
}
/// A moe_experts_saved in memory of the caller; `from.fits()` tells whether it sufficed.
template <storage T, space S, any_activation A>
[[nodiscard]] moe_experts_saved<T, S> carve_moe_experts_saved(
    arena<S>& from, index_t tokens, index_t top_k, moe_experts_weights<T, S> const& weights,
    moe_experts_options<A, S> const& options) noexcept {
  return detail::carve_experts_saved<T>(from, detail::expert_sizes(tokens, top_k, weights, options),
                                        options.memory == memory_mode::save);
}

/// Bytes of scratch that moe_experts needs for tokens of type T. With `training`, where it is given a
/// moe_experts_saved, it needs less.
template <storage T, execution P, weight_format W, any_activation A>
[[nodiscard]] std::size_t moe_experts_scratch_bytes(
    P const& on, index_t tokens, index_t top_k, moe_experts_weights<W, P::memory> const& weights,
    moe_experts_options<A, P::memory> const& options, bool training = false) noexcept {
  constexpr space S = P::memory;
  auto from = arena<S>::measuring();
  detail::expert_sizes const n(tokens, top_k, weights, options);
  if (!training) static_cast<void>(detail::carve_experts_saved<T>(from, n, false));
  static_cast<void>(detail::experts_forward_scratch<T, S>::carve(from, n));
  static_cast<void>(detail::carve_part(from, detail::plan_bytes(on, n, options)));
  return from.needed();
}
/// Bytes of scratch that moe_experts_backward needs.
template <execution P, storage T, any_activation A>
[[nodiscard]] std::size_t moe_experts_backward_scratch_bytes(
    P const&, index_t tokens, index_t top_k, moe_experts_weights<T, P::memory> const& weights,
    moe_experts_options<A, P::memory> const& options) noexcept {
  auto from = arena<P::memory>::measuring();
  static_cast<void>(detail::experts_backward_scratch<T, P::memory>::carve(
      from, detail::expert_sizes(tokens, top_k, weights, options), bool(weights.down_bias),
      options.memory));
  return from.needed();
}

}  // namespace SHUNT_ABI
}  // namespace shunt
