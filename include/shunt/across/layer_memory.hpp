#pragma once
#include "shunt/across/layer_types.hpp"
#include "shunt/across/make_plan.hpp"
#include "shunt/across/send_once.hpp"
#include "shunt/layer/memory.hpp"

/// What the layer across ranks carves from the caller's bytes: the same code measures and carves.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// Sizes of the layer on one rank: of its tokens' side (`to`: rows sent, places), and of its experts' side
/// (`here`: rows received, its own experts).
template <class T> struct across_layer_sizes {
  moe_sizes to;
  expert_sizes here;
  across_sizes plan;
  bool once = false;  // a token goes once to each rank

  template <exchange X, class G, space S, class W, class A>
  across_layer_sizes(among_ranks<X> const& among, offset_t tokens, moe_weights<T, G, S, W> const& w,
                     layer_options<A, S> const& o) noexcept
      : to(tokens, w, o),
        here(rows_received(among, tokens, o), 1,
             moe_experts_weights<W, S>{w.up, w.down, w.up_bias, w.down_bias},
             moe_experts_options<A, S>{.act = o.act, .gate_on_input = o.route.gate_on_input}),
        plan(sizes_across(among, tokens, o.top_k, o.capacity, o.drop, o.route.zero_experts)) {
    to.local = plan.places;
    to.rows = tokens * o.top_k;
    once = among.send_once && !o.route.gate_on_input && o.top_k > 1;
  }
  /// `to` without what the experts alone need.
  [[nodiscard]] moe_sizes of_tokens() const noexcept {
    moe_sizes n = to;
    n.intermediate = n.up_rows = 0;
    return n;
  }

 private:
  template <exchange X, class A, space S>
  static offset_t rows_received(among_ranks<X> const& among, offset_t tokens,
                                layer_options<A, S> const& o) noexcept {
    if (among.placement.ranks() != among.transport.ranks()) return 0;  // refused later
    offset_t const rows =
        across_rows_bound(among, static_cast<index_t>(tokens), o.top_k, o.capacity);
    constexpr offset_t most = std::numeric_limits<index_t>::max();
    return rows < 0 || rows > most ? 0 : rows;  // likewise
  }
};

/// `counts`: host memory, the same arena where `from` is the host's.
template <class T, space S, class A>
[[nodiscard]] moe_across_saved<T, S> carve_across_saved(arena<S>& from, arena<>& counts,
                                                        across_layer_sizes<T> const& n,
                                                        layer_options<A, S> const& o,
                                                        bool training) noexcept {
  bool const keep = training && o.memory == memory_mode::save;
  offset_t const ranks = n.plan.ranks;
  moe_across_saved<T, S> s;
  s.layer = carve_saved<T>(from, n.to, o, false);
  if (keep && n.to.shared > 0) {
    s.layer.shared_pre = carve<T, 2, S>(from, {{n.to.tokens, n.to.shared_rows}});
  }
  s.plan.to = s.layer.plan;
  s.plan.here = carve_plan(from, n.here.for_plan(), n.here.rows);
  s.plan.here.expected = n.here.expected;
  s.plan.send_start = carve<offset_t, 1>(counts, {{ranks + 1}});
  s.plan.recv_start = carve<offset_t, 1>(counts, {{ranks + 1}});
  if constexpr (S == space::device) {
    s.plan.send_there = carve<offset_t, 1, S>(from, {{ranks + 1}});
    s.plan.recv_there = carve<offset_t, 1, S>(from, {{ranks + 1}});
  }
  if (keep) {
    s.received = carve<T, 2, S>(from, {{n.here.rows, n.here.hidden}});
    s.pre = carve<T, 2, S>(from, {{n.here.rows, n.here.up_rows}});
  }
  return s;
}

/// What all ranks have together: counts, importance, tokens; and the loss where the caller has no place for it.
template <space S> struct load_of_all {
  view<index_t, 1, S> counts, tokens;     // [E] [1]
  view<float, 1, S> importance, z_share;  // [E] [1]
  view<float, 1, S> gathered;             // [R,E] or [R]

  static load_of_all carve(arena<S>& from, moe_sizes const& n, int ranks) noexcept {
    load_of_all l;
    l.counts = detail::carve<index_t, 1, S>(from, {{n.experts}});
    l.tokens = detail::carve<index_t, 1, S>(from, {{1}});
    l.importance = detail::carve<float, 1, S>(from, {{n.experts}});
    l.z_share = detail::carve<float, 1, S>(from, {{1}});
    l.gathered = detail::carve<float, 1, S>(from, {{n.experts * ranks}});
    return l;
  }
};

template <class T, class P> struct across_forward_scratch {
  static constexpr space S = P::memory;
  across_plan_scratch<P> plan;
  forward_scratch<T, S> tokens;        // experts.rows: rows sent, then those returned
  experts_forward_scratch<T, S> here;  // act, rows
  view<T, 2, S> received, arrived;     // [N,H] before the experts, and what they gave in that order
  load_of_all<S> load;
  once_scratch once;

  template <class A>
  static across_forward_scratch carve(P const& on, arena<S>& from, arena<>& counts,
                                      across_layer_sizes<T> const& n, layer_options<A, S> o,
                                      bool training) noexcept {
    bool const kept = training && o.memory == memory_mode::save;
    moe_sizes of_tokens = n.of_tokens();
    of_tokens.gate_on_input = false;  // gates · x are made in the rows that are sent
    expert_sizes here = n.here;
    here.gate_on_input = false;
    o.capacity = 0;  // the plan is made of places, which have none
    across_forward_scratch s;
    s.plan = across_plan_scratch<P>::carve(on, from, counts, n.plan);
    s.tokens = carve_forward<T>(on, from, of_tokens, o);
    s.here = experts_forward_scratch<T, S>::carve(from, here);
    s.arrived = detail::carve<T, 2, S>(from, {{here.rows, here.hidden}});
    if (!kept) s.received = s.arrived;  // read before it is written
    s.load = load_of_all<S>::carve(from, n.to, n.plan.ranks);
    if (n.once) {
      s.once = once_scratch::carve(counts, n.to.tokens, n.to.top_k, n.here.rows, n.plan.ranks);
    }
    return s;
  }
};

template <class T, class P> struct across_backward_scratch {
  static constexpr space S = P::memory;
  rank_messages messages;
  backward_scratch<T, S> tokens;  // experts: d_rows or d_gated_rows, d_scale returned
  experts_backward_scratch<T, S> here;
  view<T, 2, S> sent;                 // [T·K,H] d_y, and x where it is sent again
  view<float, 1, S> gates;            // [T·K]
  view<T, 2, S> d_y, x;               // [N,H] received
  view<float, 2, S> here_gates;       // [N,1] received
  view<float, 2, S> d_rows, d_scale;  // [N,H] [N,1] in the order of arrival, and
  view<T, 2, S> d_gated_rows;         // where gates act on the input

  /// What the caller wants of the tokens' gradients goes to the caller's memory.
  void leave_in(moe_across_saved<T, S> const& to) noexcept {
    if (to.d_logits) tokens.d_logits = to.d_logits;
    if (to.shared_d_pre) tokens.shared.d_pre = to.shared_d_pre;
    if (to.shared_act) tokens.shared.act = to.shared_act;
  }

  template <class A>
  static across_backward_scratch carve(P const& on, arena<S>& from, arena<>& counts,
                                       across_layer_sizes<T> const& n, bool down_bias,
                                       bool rounded_d_x, layer_options<A, S> const& o) noexcept {
    across_backward_scratch s;
    s.messages = rank_messages::carve(counts, n.plan.ranks, 0);
    s.tokens = carve_backward<T>(on, from, n.of_tokens(), false, rounded_d_x, o);
    s.here = experts_backward_scratch<T, S>::carve(from, n.here, down_bias, o.memory);
    auto const rows = [&](auto& to, offset_t count, offset_t width) {
      using element = typename std::remove_cvref_t<decltype(to)>::value_type;
      to = detail::carve<element, 2, S>(from, {{count, width}});
    };
    if (n.to.gate_on_input) {
      s.sent = s.tokens.experts.gated_rows;
      rows(s.d_gated_rows, n.here.rows, n.here.hidden);
    } else {
      rows(s.sent, n.to.rows, n.to.hidden);
      s.gates = detail::carve<float, 1, S>(from, {{n.to.rows}});
      rows(s.here_gates, n.here.rows, 1);
      rows(s.d_rows, n.here.rows, n.here.hidden);
      rows(s.d_scale, n.here.rows, 1);
    }
    rows(s.d_y, n.here.rows, n.here.hidden);
    if (o.memory == memory_mode::recompute) rows(s.x, n.here.rows, n.here.hidden);
    return s;
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
