#pragma once
#include <concepts>
#include <cstddef>

#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/layer/saved.hpp"
#include "shunt/route_expert_choice.hpp"

/// What the layer carves from the caller's bytes: the same code measures and carves.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The layer's numbers, read off its weights.
struct moe_sizes {
  offset_t tokens = 0, width = 0, hidden = 0, experts = 0, local = 0, top_k = 0;  // T Hm H E L K
  offset_t up_rows = 0, intermediate = 0;                                         // 2I I
  offset_t shared_rows = 0, shared = 0;                                           // 2Is Is
  offset_t rows = 0;                                                              // R
  offset_t taken = 0;  // C where experts choose; K is then E
  bool latent = false, shared_gated = false, zero = false, gate_on_input = false;

  template <class T, class G, space S, class W, class A>
  moe_sizes(offset_t batch, moe_weights<T, G, S, W> const& w, layer_options<A, S> const& o) noexcept
      : tokens(batch),
        width(w.gate.extent(1)),
        hidden(w.down.rows()),
        experts(w.gate.extent(0)),
        local(w.up.experts()),
        top_k(o.tokens_per_expert > 0 ? w.gate.extent(0) : offset_t{o.top_k}),
        up_rows(w.up.rows()),
        intermediate(w.down.columns()),
        shared_rows(w.shared_up.rows()),
        shared(w.shared_up ? w.shared_down.columns() : 0),
        taken(o.tokens_per_expert),
        latent(bool(w.latent_down)),
        shared_gated(bool(w.shared_gate)),
        zero(o.route.zero_experts > 0 && o.zero_experts_here),
        gate_on_input(o.route.gate_on_input) {
    rows = taken > 0 ? expert_choice_rows_bound(static_cast<index_t>(local), o.tokens_per_expert)
                     : plan_rows_bound(for_plan(), plan_options<S>{.capacity = o.capacity});
  }
  /// Rows that an expert may be expected to have, of all experts that the tokens choose from, not of
  /// a shard's alone.
  [[nodiscard]] index_t expected_rows(offset_t capacity) const noexcept {
    offset_t n = taken > 0 ? taken : tokens * top_k / (experts > 0 ? experts : 1);
    if (taken == 0 && capacity > 0 && capacity < n) n = capacity;
    return static_cast<index_t>(n < 1 ? 1 : n);
  }
  [[nodiscard]] shape for_plan() const noexcept { return of_experts(local); }
  [[nodiscard]] shape for_route() const noexcept { return of_experts(experts); }

 private:
  [[nodiscard]] shape of_experts(offset_t count) const noexcept {
    return {.tokens = static_cast<index_t>(tokens),
            .experts = static_cast<index_t>(count),
            .top_k = static_cast<index_t>(top_k)};
  }
};

/// A row-major array from an arena; null where an extent is 0.
template <class T, int Rank, space S>
[[nodiscard]] view<T, Rank, S> carve(arena<S>& from, axes<Rank> extents) noexcept {
  offset_t count = 1;
  for (std::size_t d = 0; d < Rank; ++d) count *= extents[d];
  return view<T, Rank, S>(from.template take<T>(count), extents);
}
/// A piece of an arena, for a primitive's own scratch.
template <space S> [[nodiscard]] arena<S> carve_part(arena<S>& from, std::size_t bytes) noexcept {
  return {from.template take<std::byte>(static_cast<offset_t>(bytes)), bytes};
}

/// The plan of what the whole batch goes through (shared experts, projections): as if every token that
/// counts had chosen the one expert there is, row t for token t.
template <space S>
[[nodiscard]] dispatch_plan<S> carve_all_tokens(arena<S>& from, moe_sizes const& n) noexcept {
  return carve_plan(from, {.tokens = static_cast<index_t>(n.tokens), .experts = 1, .top_k = 1},
                    n.tokens);
}

template <class T, space S, class A>
[[nodiscard]] moe_saved<T, S> carve_saved(arena<S>& from, moe_sizes const& n,
                                          layer_options<A, S> const& o, bool with_pre) noexcept {
  moe_saved<T, S> s;
  s.logits = carve<float, 2, S>(from, {{n.tokens, n.experts}});
  if (n.taken > 0) {
    s.taken.token = carve<index_t, 2, S>(from, {{n.experts, n.taken}});
    s.taken.gate = carve<float, 2, S>(from, {{n.experts, n.taken}});
  } else {
    s.choice.expert = carve<index_t, 2, S>(from, {{n.tokens, n.top_k}});
  }
  s.choice.gate = carve<float, 2, S>(from, {{n.tokens, n.top_k}});
  if (o.balance_loss != 0.0f) s.d_importance = carve<float, 1, S>(from, {{n.experts}});
  if (o.z_loss != 0.0f) s.d_z = carve<float, 1, S>(from, {{n.tokens}});
  s.plan = carve_plan(from, n.for_plan(), n.rows);
  s.plan.expected = n.expected_rows(o.capacity);
  if (n.shared_gated) s.shared_gate = carve<float, 1, S>(from, {{n.tokens}});
  if (n.latent) {
    s.latent = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
    s.latent_sum = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
  }
  if (with_pre) {
    s.pre = carve<T, 2, S>(from, {{n.rows, n.up_rows}});
    if (n.shared > 0) s.shared_pre = carve<T, 2, S>(from, {{n.tokens, n.shared_rows}});
  }
  return s;
}

/// Scratch of whichever choice is made.
template <class P>
[[nodiscard]] std::size_t choice_bytes(P const& on, moe_sizes const& n) noexcept {
  return n.taken > 0 ? route_expert_choice_scratch_bytes(on, n.for_route())
                     : route_scratch_bytes(on, n.for_route());
}

template <class T, space S> struct forward_scratch {
  dispatch_plan<S> all_tokens;
  routing<S> load;                        // counts, importance, tokens, z of the losses
  view<float, 1, S> loss;                 // [2]
  view<T, 2, S> gated_rows;               // [R,H] gate · x, where the gate acts on the input
  view<T, 2, S> act, rows;                // [R,I] [R,H]
  view<T, 2, S> shared_act, shared_rows;  // [T,Is] [T,Hm]
  view<float, 2, S> lifted;               // [T,Hm] the latent sum on the full width
  arena<S> route, plan;
};

template <class T, class P, class A>
[[nodiscard]] forward_scratch<T, P::memory> carve_forward(
    P const& on, arena<P::memory>& from, moe_sizes const& n,
    layer_options<A, P::memory> const& o) noexcept {
  constexpr space S = P::memory;
  forward_scratch<T, S> s;
  s.all_tokens = carve_all_tokens(from, n);
  if (o.balance_loss != 0.0f || o.z_loss != 0.0f) {
    s.load.counts = carve<index_t, 1, S>(from, {{n.experts}});
    s.load.importance = carve<float, 1, S>(from, {{n.experts}});
    s.load.tokens = carve<index_t, 1, S>(from, {{1}});
    s.loss = carve<float, 1, S>(from, {{2}});
  }
  if (o.z_loss != 0.0f) s.load.z = carve<float, 1, S>(from, {{n.tokens}});
  if (n.gate_on_input) s.gated_rows = carve<T, 2, S>(from, {{n.rows, n.hidden}});
  s.act = carve<T, 2, S>(from, {{n.rows, n.intermediate}});
  s.rows = carve<T, 2, S>(from, {{n.rows, n.hidden}});
  if (n.shared > 0) {
    s.shared_act = carve<T, 2, S>(from, {{n.tokens, n.shared}});
    s.shared_rows = carve<T, 2, S>(from, {{n.tokens, n.width}});
  }
  if (n.latent) s.lifted = carve<float, 2, S>(from, {{n.tokens, n.width}});
  s.route = carve_part(from, choice_bytes(on, n));
  s.plan = carve_part(
      from, n.taken > 0
                ? plan_from_expert_choice_scratch_bytes(on, static_cast<index_t>(n.local))
                : plan_scratch_bytes(on, n.for_plan(),
                                     plan_options<S>{.capacity = o.capacity, .drop = o.drop}));
  return s;
}

/// Backward through one stack of experts, routed or shared: of `rows` rows.
template <class T, space S> struct feed_scratch {
  view<float, 2, S> d_act;    // [rows,I]; on a device it stays in the product that makes it, and
  view<float, 2, S> parts;    // [rows,ceil(I/32)] the shares of d_scale take its place
  view<T, 2, S> act, d_pre;   // [rows,I] gate · activation, [rows,2I]
  view<float, 1, S> d_scale;  // [rows]
  view<T, 2, S> pre;          // [rows,2I], recomputed

  static feed_scratch carve(arena<S>& from, offset_t rows, offset_t intermediate, offset_t up_rows,
                            bool recompute, bool scaled) noexcept {
    feed_scratch s;
    if constexpr (S == space::host)
      s.d_act = detail::carve<float, 2, S>(from, {{rows, intermediate}});
    // One pass reads d_act and writes act: of one type, in one place.
    if constexpr (S == space::host && std::same_as<T, float>) {
      s.act = s.d_act;
    } else {
      s.act = detail::carve<T, 2, S>(from, {{rows, intermediate}});
    }
    if (S != space::host && scaled) {
      s.parts = detail::carve<float, 2, S>(from, {{rows, (intermediate + 31) / 32}});
    }
    s.d_pre = detail::carve<T, 2, S>(from, {{rows, up_rows}});
    if (scaled) s.d_scale = detail::carve<float, 1, S>(from, {{rows}});
    if (recompute) s.pre = s.d_pre;  // likewise
    return s;
  }
};

template <class T, space S> struct backward_scratch {
  dispatch_plan<S> all_tokens;
  feed_scratch<T, S> experts, shared;
  view<float, 2, S> d_gate, d_logits;  // [T,K] [T,E]
  view<float, 2, S> d_choice;          // [E,C]
  view<float, 2, S> bias_part;         // [R,1] <d_y, down_bias>
  view<float, 2, S> d_rows;            // [R,H]
  view<T, 2, S> gated_rows;            // [R,H] as in forward, and the gradient of it
  view<T, 2, S> d_gated_rows;
  view<T, 2, S> d_sum, d_identity;   // [T,H] of the latent sum; of what zero experts passed on
  view<float, 2, S> d_latent, d_x;   // [T,H] [T,Hm]
  view<float, 2, S> d_shared_logit;  // [T,1]
  arena<S> route;
};

template <class T, class P, class A>
[[nodiscard]] backward_scratch<T, P::memory> carve_backward(
    P const& on, arena<P::memory>& from, moe_sizes const& n, bool down_bias, bool rounded_d_x,
    layer_options<A, P::memory> const& o) noexcept {
  constexpr space S = P::memory;
  bool const recompute = o.memory == memory_mode::recompute;
  backward_scratch<T, S> s;
  s.all_tokens = carve_all_tokens(from, n);
  s.experts = feed_scratch<T, S>::carve(from, n.rows, n.intermediate, n.up_rows, recompute,
                                        !n.gate_on_input);
  if (n.shared > 0) {
    s.shared = feed_scratch<T, S>::carve(from, n.tokens, n.shared, n.shared_rows, recompute,
                                         n.shared_gated);
  }
  s.d_gate = carve<float, 2, S>(from, {{n.tokens, n.top_k}});
  s.d_logits = carve<float, 2, S>(from, {{n.tokens, n.experts}});
  if (n.gate_on_input) {
    s.gated_rows = carve<T, 2, S>(from, {{n.rows, n.hidden}});
    s.d_gated_rows = carve<T, 2, S>(from, {{n.rows, n.hidden}});
  } else {
    if (down_bias) s.bias_part = carve<float, 2, S>(from, {{n.rows, 1}});
    s.d_rows = carve<float, 2, S>(from, {{n.rows, n.hidden}});
  }
  if (n.zero) s.d_identity = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
  if (n.latent) {
    s.d_sum = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
    s.d_latent = carve<float, 2, S>(from, {{n.tokens, n.hidden}});
  }
  if (rounded_d_x) s.d_x = carve<float, 2, S>(from, {{n.tokens, n.width}});
  if (n.taken > 0) s.d_choice = carve<float, 2, S>(from, {{n.experts, n.taken}});
  s.route = carve_part(from, choice_bytes(on, n));
  return s;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
