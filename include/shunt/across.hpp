#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/across/exchange.hpp"
#include "shunt/across/grow.hpp"
#include "shunt/across/placement.hpp"
#include "shunt/across/plan.hpp"
#include "shunt/across/recover.hpp"
#include "shunt/across/rows.hpp"
#include "shunt/across/run_layer.hpp"
#include "shunt/across/sum.hpp"
#include "shunt/backend/host/across.hpp"
#include "shunt/layer.hpp"

/// Experts on several ranks: tokens go to where their experts are, and rows come back. A transport is a header of
/// its own: shunt/across/threads.hpp, shunt/across/processes.hpp.
namespace shunt {
inline namespace SHUNT_ABI {

/// A moe_across_saved in memory of the caller; `from.fits()` tells whether it sufficed. On one rank it is
/// moe_layer's.
template <exchange X, storage T, storage G, any_activation A>
[[nodiscard]] moe_across_saved<T> carve_moe_across_saved(arena<>& from, among_ranks<X> const& among,
                                                         index_t tokens,
                                                         moe_weights<T, G> const& weights,
                                                         layer_options<A> const& options) noexcept {
  if (among.transport.ranks() == 1) {
    moe_across_saved<T> s;
    s.layer = carve_moe_saved(from, tokens, weights, options);
    return s;
  }
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  return detail::carve_across_saved<T>(from, from, n, options, true);
}
/// Bytes of a moe_across_saved for a batch of `tokens` of this rank.
template <exchange X, storage T, storage G, any_activation A>
[[nodiscard]] std::size_t moe_across_saved_bytes(among_ranks<X> const& among, index_t tokens,
                                                 moe_weights<T, G> const& weights,
                                                 layer_options<A> const& options) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(carve_moe_across_saved(from, among, tokens, weights, options));
  return from.needed();
}
/// Bytes of scratch that moe_layer_across needs. With `training`, where outputs.saved is given, it needs
/// less.
template <exchange X, storage T, storage G, weight_format W, any_activation A>
[[nodiscard]] std::size_t moe_layer_across_scratch_bytes(
    on_host const& on, among_ranks<X> const& among, index_t tokens,
    moe_weights<T, G, space::host, W> const& weights, layer_options<A> const& options,
    bool training = false) noexcept {
  if (among.transport.ranks() == 1) {
    return moe_layer_scratch_bytes(on, tokens, weights, options, training);
  }
  auto from = arena<>::measuring();
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  using scratch = detail::across_forward_scratch<T, on_host>;
  static_cast<void>(scratch::carve(on, from, from, n, options, training));
  if (!training) static_cast<void>(detail::carve_across_saved<T>(from, from, n, options, false));
  return from.needed();
}
/// Bytes of scratch that moe_layer_across_backward needs.
template <exchange X, storage T, storage G, any_activation A>
[[nodiscard]] std::size_t moe_layer_across_backward_scratch_bytes(
    on_host const& on, among_ranks<X> const& among, index_t tokens,
    moe_weights<T, G> const& weights, layer_options<A> const& options) noexcept {
  if (among.transport.ranks() == 1) {
    return moe_layer_backward_scratch_bytes(on, tokens, weights, options);
  }
  auto from = arena<>::measuring();
  detail::across_layer_sizes<T> const n(among, tokens, weights, options);
  using scratch = detail::across_backward_scratch<T, on_host>;
  static_cast<void>(scratch::carve(on, from, from, n, bool(weights.down_bias), true, options));
  return from.needed();
}

}  // namespace SHUNT_ABI

/// moe_layer with its experts on several ranks, each with tokens of its own.
/// Shapes  x [T,Hm], T of this rank alone, 0 too · weights: gate and shared experts whole, up and down of this
///         rank's places, 0 too → y [T,Hm]
/// Types   as moe_layer
/// Order   as moe_layer over the tokens of all ranks in blocks by rank: y, gates and counts have the bits of
///         one process, whatever the ranks, the placement and its copies; bf16 where all ranks run one
///         arithmetic. Importance too where every rank but the last has a multiple of 32 tokens.
/// Aliasing y shares no memory with x or the weights.
/// Errors  those of moe_layer; capacity by gate; expert choice; ranks with other options or placements; more
///         rows than a rank has memory for: all ranks return the same sentence, which names the rank, after one
///         round, and y and reports are as they were. error::peer.
/// Cost    one all_gather of 2 KiB a rank and two exchanges of rows: 2·H·sizeof(T) bytes for each slot whose
///         expert is on another rank. The balance loss adds a chain along the ranks, the z-loss a gather. On one
///         rank it is moe_layer. Never allocates.
/// Source  GShard (Lepikhin et al., 2020)
template <exchange X, input<on_host, 2> In, storage T, storage G, weight_format W,
          output<on_host, 2> Y, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across(on_host const& on, among_ranks<X> const& among, In x,
                                      moe_weights<T, G, space::host, W> const& weights, Y y,
                                      std::type_identity_t<moe_across_outputs<T>> const& outputs,
                                      std::type_identity_t<arena<>> work,
                                      layer_options<A> const& options = {}) noexcept {
  static_assert(std::same_as<element_t<In>, T> && std::same_as<element_t<Y>, T>,
                "shunt::moe_layer_across: x and y must have the weights' storage type");
  return detail::run_layer_across<on_host, X, T, G, W, A>(on, among, as_input<on_host, 2>(x),
                                                          weights, as_output<on_host, 2>(y),
                                                          outputs, work, work, options);
}

/// The same where y is all that is wanted: inference.
template <exchange X, input<on_host, 2> In, storage T, storage G, weight_format W,
          output<on_host, 2> Y, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across(on_host const& on, among_ranks<X> const& among, In x,
                                      moe_weights<T, G, space::host, W> const& weights, Y y,
                                      std::type_identity_t<arena<>> work,
                                      layer_options<A> const& options = {}) noexcept {
  return moe_layer_across(on, among, x, weights, y, {}, work, options);
}

/// The gradients of moe_layer_across.
/// Shapes  x, d_y [T,Hm] · saved → d_x [T,Hm] · gradients as the weights
/// Types   as moe_layer_backward
/// Order   as moe_layer_backward over the tokens of all ranks: d_x and the gradients of experts have the bits of
///         one process; an expert with copies gets a part on each, to be added. Gradients of what every rank has
///         whole (gate, shared experts, latents) are those of this rank's tokens: see sum_across.
/// Aliasing none
/// Errors  as moe_layer_across. A call that returns an error has written no weight gradient.
/// Cost    H·(sizeof(T) + 4) + 8 bytes for each slot whose expert is on another rank (H·2·sizeof(T) where gates
///         act on the input); H·sizeof(T) more when recomputing. Never allocates.
template <exchange X, input<on_host, 2> In, storage T, storage G, input<on_host, 2> DY,
          output<on_host, 2> DX, any_activation A = swiglu>
[[nodiscard]] status moe_layer_across_backward(
    on_host const& on, among_ranks<X> const& among, In x, moe_weights<T, G> const& weights, DY d_y,
    std::type_identity_t<moe_across_saved<T>> const& saved, DX d_x,
    moe_gradients<> const& gradients, std::type_identity_t<arena<>> work,
    layer_options<A> const& options = {}) noexcept {
  using D = element_t<DX>;
  static_assert(std::same_as<element_t<In>, T> && std::same_as<element_t<DY>, T>,
                "shunt::moe_layer_across_backward: x and d_y must have the weights' storage type");
  static_assert(std::same_as<D, T> || std::same_as<D, float>,
                "shunt::moe_layer_across_backward: d_x must have the weights' storage type, or "
                "float");
  return detail::run_layer_across_backward<on_host, X, T, G, D, A>(
      on, among, as_input<on_host, 2>(x), weights, as_input<on_host, 2>(d_y), saved,
      as_output<on_host, 2>(d_x), gradients, work, work, options);
}

}  // namespace shunt
