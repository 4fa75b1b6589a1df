#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/across/exchange.hpp"
#include "shunt/across/layer_backward.hpp"
#include "shunt/across/placement.hpp"
#include "shunt/across/plan.hpp"
#include "shunt/across/recover.hpp"
#include "shunt/across/rows.hpp"
#include "shunt/across/sum.hpp"
#include "shunt/layer.hpp"

/// Experts on several ranks: tokens go to where their experts are, and rows come back. A transport is a header of
/// its own: shunt/across/threads.hpp, shunt/across/processes.hpp.
namespace shunt {
namespace detail {

/// What kind of products this rank runs: only those of bf16 have two (contract 2).
template <class T> [[nodiscard]] int arithmetic_of(on_host const& on) noexcept {
  return std::same_as<T, bf16> && instructions_of(on) == isa::avx512_bf16 ? 1 : 0;
}

/// moe_layer_across for views.
template <exchange X, storage T, storage G, weight_format W, any_activation A>
status run_layer_across(on_host const& on, among_ranks<X> const& among, view<T const, 2> x,
                        moe_weights<T, G, space::host, W> const& w, view<T, 2> y,
                        moe_across_outputs<T> const& outputs, arena<> work,
                        layer_options<A> const& o) noexcept {
  constexpr char const* who = "moe_layer_across";
  moe_outputs<T> out{
      .loss = outputs.loss, .route = outputs.route, .load = outputs.load, .plan = outputs.plan};
  status own = check::layer_across_forward(on, among, x, w, y, outputs, o);
  if (among.transport.ranks() == 1) {
    if (!own.ok()) return own;
    if (outputs.saved != nullptr) out.saved = &outputs.saved->layer;
    return run_layer<on_host, T, G, W, A>(on, x, w, y, out, work, o);
  }
  bool const training = outputs.saved != nullptr, checked = own.ok();
  across_layer_sizes<T> const n(among, x.extent(0), w, o);
  auto const s = across_forward_scratch<T>::carve(on, work, n, o, training);
  moe_across_saved<T> const keep =
      training ? *outputs.saved : carve_across_saved<T>(work, n, o, false);
  if (own.ok()) own = work.check("moe_layer_across.work");
  across_call<X, T, G, A, W> const call{
      {on, n.to, x, w, o, out, keep.layer, s.tokens.all_tokens}, among, n, keep, who};
  stages step(o.hook);
  rank_header header;
  header.most_rows = keep.plan.here.row_slot.extent(0);
  if (own.ok()) {
    header.tokens = call.choose(step, s);
    own = step.outcome();
  }
  across_agreement<T> const same(1, among, n, w, o, bool(out.route.importance),
                                 arithmetic_of<T>(on), checked);
  status const met = agree(who, among, s.plan.messages, own, header, same.list);
  return met.ok() ? call.forward(step, s, y) : met;
}

/// moe_layer_across_backward for views.
template <exchange X, storage T, storage G, storage D, any_activation A>
status run_layer_across_backward(on_host const& on, among_ranks<X> const& among, view<T const, 2> x,
                                 moe_weights<T, G> const& w, view<T const, 2> d_y,
                                 moe_across_saved<T> const& saved, view<D, 2> d_x,
                                 moe_gradients<> const& g, arena<> work,
                                 layer_options<A> const& o) noexcept {
  constexpr char const* who = "moe_layer_across_backward";
  status own = check::layer_across_backward(on, among, x, w, d_y, saved, d_x, g, o);
  if (among.transport.ranks() == 1) {
    if (!own.ok()) return own;
    return run_layer_backward<on_host, T, G, D, A>(on, x, w, d_y, saved.layer, d_x, g, work, o);
  }
  bool const checked = own.ok();
  across_layer_sizes<T> const n(among, x.extent(0), w, o);
  auto const s =
      across_backward_scratch<T>::carve(on, work, n, bool(w.down_bias), !std::same_as<D, float>, o);
  if (own.ok()) own = work.check("moe_layer_across_backward.work");
  across_agreement<T> const same(2, among, n, w, o, false, arithmetic_of<T>(on), checked);
  status const met = agree(who, among, s.messages, own, rank_header{}, same.list);
  if (!met.ok()) return met;
  moe_outputs<T> const none;
  across_call<X, T, G, A> const call{
      {on, n.to, x, w, o, none, saved.layer, s.tokens.all_tokens}, among, n, saved, who};
  stages step(o.hook);
  if constexpr (std::same_as<D, float>) {
    return call.backward(step, s, d_y, g, d_x);
  } else {
    status const done = call.backward(step, s, d_y, g, s.tokens.d_x);
    if (!done.ok()) return done;
    return layer_backend<on_host>::round(on, view<float const, 2>(s.tokens.d_x), d_x);
  }
}

}  // namespace detail

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
  return detail::carve_across_saved<T>(from, n, options, true);
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
  static_cast<void>(detail::across_forward_scratch<T>::carve(on, from, n, options, training));
  if (!training) static_cast<void>(detail::carve_across_saved<T>(from, n, options, false));
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
  static_cast<void>(detail::across_backward_scratch<T>::carve(on, from, n, bool(weights.down_bias),
                                                              true, options));
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
  return detail::run_layer_across<X, T, G, W, A>(on, among, as_input<on_host, 2>(x), weights,
                                                 as_output<on_host, 2>(y), outputs, work, options);
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
  return detail::run_layer_across_backward<X, T, G, D, A>(
      on, among, as_input<on_host, 2>(x), weights, as_input<on_host, 2>(d_y), saved,
      as_output<on_host, 2>(d_x), gradients, work, options);
}

}  // namespace shunt
