#pragma once
#include <concepts>
#include <cstdint>

#include "shunt/across/layer_backward.hpp"
#include "shunt/layer.hpp"

/// The layer across ranks for views: checks, agreement, the call.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// Which part of a call runs: all of it, what comes before the ranks' messages are read, or what comes after.
enum class across_phase : std::uint8_t { whole, begin, finish };

/// moe_layer_across for views. `counts`: host memory, the same arena where `work` is the host's.
template <execution P, exchange X, storage T, storage G, weight_format W, any_activation A>
status run_layer_across(P const& on, among_ranks<X> const& among, view<T const, 2, P::memory> x,
                        moe_weights<T, G, P::memory, W> const& w, view<T, 2, P::memory> y,
                        moe_across_outputs<T, P::memory> const& outputs, arena<P::memory>& work,
                        arena<>& counts, layer_options<A, P::memory> const& o,
                        across_phase phase = across_phase::whole) noexcept {
  constexpr char const* who = "moe_layer_across";
  constexpr space S = P::memory;
  using ranks = across_backend<P>;
  moe_outputs<T, S> out{
      .loss = outputs.loss, .route = outputs.route, .load = outputs.load, .plan = outputs.plan};
  if (among.transport.ranks() == 1 && phase != across_phase::begin) {
    if (status bad = check::layer_placed(who, among, w, o); !bad.ok()) return bad;
    if (outputs.saved != nullptr) out.saved = &outputs.saved->layer;
    return run_layer<P, T, G, W, A>(on, x, w, y, out, work, o);
  }
  status own = check::layer_across_forward(on, among, x, w, y, outputs, o);
  if (among.transport.ranks() == 1) return own;
  bool const training = outputs.saved != nullptr, checked = own.ok();
  across_layer_sizes<T> const n(among, x.extent(0), w, o);
  auto const s = across_forward_scratch<T, P>::carve(on, work, counts, n, o, training);
  moe_across_saved<T, S> const keep =
      training ? *outputs.saved : carve_across_saved<T>(work, counts, n, o, false);
  if (own.ok()) own = ranks::check(who, on, among, n);
  if (own.ok()) own = work.check("moe_layer_across.work");
  if (own.ok()) own = counts.check("moe_layer_across.counts");
  across_call<P, X, T, G, A, W> const call{
      {on, n.to, x, w, o, out, keep.layer, s.tokens.all_tokens}, among, n, keep, who};
  stages step(o.hook);
  rank_header header;
  header.most_rows = keep.plan.here.row_slot.extent(0);
  if (own.ok() && phase != across_phase::finish) {
    call.choose(step, s);
    own = step.outcome();
  }
  across_agreement<T> const same(1, among, n, w, o, bool(out.route.importance),
                                 ranks::template arithmetic<T>(on), checked);
  status met;
  if (phase != across_phase::finish) {
    met = ranks::announce(who, on, among, n.plan, keep.layer.choice.expert, o.valid, s.plan, own,
                          header, same.list);
  }
  if (phase == across_phase::begin || !met.ok()) return met;
  met = ranks::conclude(who, on, among, s.plan, own, same.list);
  return met.ok() ? call.forward(step, s, y) : met;
}

/// moe_layer_across_backward for views.
template <execution P, exchange X, storage T, storage G, storage D, any_activation A>
status run_layer_across_backward(
    P const& on, among_ranks<X> const& among, view<T const, 2, P::memory> x,
    moe_weights<T, G, P::memory> const& w, view<T const, 2, P::memory> d_y,
    moe_across_saved<T, P::memory> const& saved, view<D, 2, P::memory> d_x,
    moe_gradients<P::memory> const& g, arena<P::memory>& work, arena<>& counts,
    layer_options<A, P::memory> const& o, across_phase phase = across_phase::whole) noexcept {
  constexpr char const* who = "moe_layer_across_backward";
  constexpr space S = P::memory;
  using ranks = across_backend<P>;
  if (among.transport.ranks() == 1 && phase != across_phase::begin) {
    if (status bad = check::layer_placed(who, among, w, o); !bad.ok()) return bad;
    return run_layer_backward<P, T, G, D, A>(on, x, w, d_y, saved.layer, d_x, g, work, o);
  }
  status own = check::layer_across_backward(on, among, x, w, d_y, saved, d_x, g, o);
  if (among.transport.ranks() == 1) return own;
  bool const checked = own.ok();
  across_layer_sizes<T> const n(among, x.extent(0), w, o);
  auto s = across_backward_scratch<T, P>::carve(on, work, counts, n, bool(w.down_bias),
                                                !std::same_as<D, float>, o);
  s.leave_in(saved);
  if (own.ok()) own = ranks::check(who, on, among, n);
  if (own.ok()) own = work.check("moe_layer_across_backward.work");
  if (own.ok()) own = counts.check("moe_layer_across_backward.counts");
  across_agreement<T> const same(2, among, n, w, o, false, ranks::template arithmetic<T>(on),
                                 checked);
  status met;
  if (phase != across_phase::finish) {
    met = ranks::announce(who, on, among, s.messages, own, same.list);
  }
  if (phase == across_phase::begin || !met.ok()) return met;
  met = ranks::conclude(who, on, among, s.messages, own, same.list);
  if (!met.ok()) return met;
  moe_outputs<T, S> const none;
  across_call<P, X, T, G, A> const call{
      {on, n.to, x, w, o, none, saved.layer, s.tokens.all_tokens}, among, n, saved, who};
  stages step(o.hook);
  if constexpr (std::same_as<D, float>) {
    return call.backward(step, s, d_y, g, d_x);
  } else {
    status const done = call.backward(step, s, d_y, g, s.tokens.d_x);
    if (!done.ok()) return done;
    return layer_backend<P>::round(on, view<float const, 2, S>(s.tokens.d_x), d_x);
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
