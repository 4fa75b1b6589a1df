#pragma once
#include <concepts>
#include <cstddef>

#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/layer/saved.hpp"
#include "shunt/moe_experts/memory.hpp"
#include "shunt/route_expert_choice.hpp"

/// What the layer carves from the caller's bytes: the same code measures and carves.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The sizes of the layer, read off its weights: those of its experts, and its own.
struct moe_sizes : expert_sizes {
  offset_t width = 0, experts = 0;       // Hm E
  offset_t shared_rows = 0, shared = 0;  // 2Is Is
  offset_t tokens_per_expert = 0;        // C where experts choose; K is then E
  bool latent = false, shared_gated = false, zero = false;

  template <class T, class G, space S, class W, class A>
  moe_sizes(offset_t batch, moe_weights<T, G, S, W> const& w, layer_options<A, S> const& o) noexcept
      : expert_sizes(batch, o.tokens_per_expert > 0 ? w.gate.extent(0) : offset_t{o.top_k}, w,
                     o.route.gate_on_input),
        width(w.gate.extent(1)),
        experts(w.gate.extent(0)),
        shared_rows(w.shared_up.rows()),
        shared(w.shared_up ? w.shared_down.columns() : 0),
        tokens_per_expert(o.tokens_per_expert),
        latent(bool(w.latent_down)),
        shared_gated(bool(w.shared_gate)),
        zero(o.route.zero_experts > 0 && o.zero_experts_here) {
    if (tokens_per_expert > 0) {
      rows = expert_choice_rows_bound(static_cast<index_t>(local), o.tokens_per_expert);
      expected = o.tokens_per_expert;
    } else {
      rows = plan_rows_bound(for_plan(), plan_options<S>{.capacity = o.capacity});
      expected = expected_rows(experts, o.capacity);  // of all experts, not of a shard's alone
    }
  }
  [[nodiscard]] shape for_route() const noexcept { return of_experts(experts); }
};

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
  if (n.tokens_per_expert > 0) {
    s.expert_choice.token = carve<index_t, 2, S>(from, {{n.experts, n.tokens_per_expert}});
    s.expert_choice.gate = carve<float, 2, S>(from, {{n.experts, n.tokens_per_expert}});
  } else {
    s.choice.expert = carve<index_t, 2, S>(from, {{n.tokens, n.top_k}});
  }
  s.choice.gate = carve<float, 2, S>(from, {{n.tokens, n.top_k}});
  if (o.balance_loss != 0.0f) s.d_importance = carve<float, 1, S>(from, {{n.experts}});
  if (o.z_loss != 0.0f) s.d_z = carve<float, 1, S>(from, {{n.tokens}});
  s.plan = carve_plan(from, n.for_plan(), n.rows);
  s.plan.expected = n.expected;
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
  return n.tokens_per_expert > 0 ? route_expert_choice_scratch_bytes(on, n.for_route())
                                 : route_scratch_bytes(on, n.for_route());
}

template <class T, space S> struct forward_scratch {
  dispatch_plan<S> all_tokens;
  routing<S> load;         // counts, importance, tokens, z of the losses
  view<float, 1, S> loss;  // [2]
  experts_forward_scratch<T, S> experts;
  view<T, 2, S> shared_act, shared_rows;  // [T,Is] [T,Hm]
  view<float, 2, S> latent_out;           // [T,Hm] the latent sum on the full width
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
  s.experts = experts_forward_scratch<T, S>::carve(from, n);
  if (n.shared > 0) {
    s.shared_act = carve<T, 2, S>(from, {{n.tokens, n.shared}});
    s.shared_rows = carve<T, 2, S>(from, {{n.tokens, n.width}});
  }
  if (n.latent) s.latent_out = carve<float, 2, S>(from, {{n.tokens, n.width}});
  s.route = carve_part(from, choice_bytes(on, n));
  s.plan = carve_part(
      from, n.tokens_per_expert > 0
                ? plan_from_expert_choice_scratch_bytes(on, static_cast<index_t>(n.local))
                : plan_scratch_bytes(on, n.for_plan(),
                                     plan_options<S>{.capacity = o.capacity, .drop = o.drop}));
  return s;
}

template <class T, space S> struct backward_scratch {
  dispatch_plan<S> all_tokens;
  experts_backward_scratch<T, S> experts;
  feed_scratch<T, S> shared;
  view<float, 2, S> d_gate, d_logits;  // [T,K] [T,E]
  view<float, 2, S> d_choice;          // [E,C]
  view<T, 2, S> d_sum, d_identity;     // [T,H] of the latent sum; of what zero experts passed on
  view<float, 2, S> d_latent, d_x;     // [T,H] [T,Hm]
  view<float, 2, S> d_shared_logit;    // [T,1]
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
  s.experts = experts_backward_scratch<T, S>::carve(from, n, down_bias, o.memory);
  if (n.shared > 0) {
    s.shared = feed_scratch<T, S>::carve(from, n.tokens, n.shared, n.shared_rows, recompute,
                                         n.shared_gated);
  }
  s.d_gate = carve<float, 2, S>(from, {{n.tokens, n.top_k}});
  s.d_logits = carve<float, 2, S>(from, {{n.tokens, n.experts}});
  if (n.zero) s.d_identity = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
  if (n.latent) {
    s.d_sum = carve<T, 2, S>(from, {{n.tokens, n.hidden}});
    s.d_latent = carve<float, 2, S>(from, {{n.tokens, n.hidden}});
  }
  if (rounded_d_x) s.d_x = carve<float, 2, S>(from, {{n.tokens, n.width}});
  if (n.tokens_per_expert > 0)
    s.d_choice = carve<float, 2, S>(from, {{n.experts, n.tokens_per_expert}});
  s.route = carve_part(from, choice_bytes(on, n));
  return s;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
