#pragma once
#include <cstring>

#include "shunt/across/layer_memory.hpp"
#include "shunt/across/rows.hpp"
#include "shunt/layer/check.hpp"

/// Argument checks of the layer across ranks: what one rank finds wrong with its own, and the numbers that all
/// ranks must have alike.
namespace shunt::check {
inline namespace SHUNT_ABI {

/// What of a layer is different across ranks: options that are refused, and how many experts this rank has. On one
/// rank the rest is moe_layer's to check.
template <exchange X, class T, class G, space S, class W, class A>
[[nodiscard]] status layer_placed(char const* who, among_ranks<X> const& among,
                                  ::shunt::moe_weights<T, G, S, W> const& w,
                                  layer_options<A, S> const& o) noexcept {
  int const rank = among.transport.rank();
  if (status bad = placement(who, among.placement, among.transport.ranks()); !bad.ok()) return bad;
  if (S != space::host && among.send_once) {
    return status::fail(error::unsupported,
                        "%s.among.send_once is true; on a device it must be false", who);
  }
  if (o.tokens_per_expert > 0) {
    return status::fail(
        error::unsupported,
        "%s.options.tokens_per_expert is %d; across ranks it must be 0: experts that "
        "choose would have to see the tokens of all ranks",
        who, o.tokens_per_expert);
  }
  if (o.capacity > 0 && o.drop == drop_policy::by_gate) {
    return status::fail(error::unsupported,
                        "%s.options.drop is by_gate; across ranks it must be by_position or "
                        "by_choice: a rank does not see the gates of others",
                        who);
  }
  if (o.first_expert != 0 || !o.zero_experts_here) {
    return status::fail(
        error::bad_argument,
        "%s.options: first_expert is %d and zero_experts_here %s; they must be 0 and "
        "true: the placement says what lives where",
        who, o.first_expert, o.zero_experts_here ? "true" : "false");
  }
  argument const local(who, "weights.up"), all(who, "weights.gate");
  if (status bad =
          extent(all, 0, w.gate.extent(0), offset_t{among.placement.experts} + o.route.zero_experts,
                 "experts of the placement, and zero experts");
      !bad.ok()) {
    return bad;
  }
  return extent(local, 0, w.up.experts(), among.placement.on_rank(rank), "places of this rank");
}

/// What forward and backward are given alike.
template <class P, exchange X, class T, class G, class W, class A>
[[nodiscard]] status layer_across(char const* who, P const& on, among_ranks<X> const& among,
                                  view<T const, 2, P::memory> x,
                                  ::shunt::moe_weights<T, G, P::memory, W> const& w,
                                  layer_options<A, P::memory> const& o) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = x.extent(0), width = w.gate.extent(1);
  argument const t(who, "x: extent 0 (tokens)"), in(who, "x"), room(who, "rows of all ranks");
  if (status bad = first_of(policy(on), between(t, tokens, 0, most)); !bad.ok()) return bad;
  if (status bad = layer_placed(who, among, w, o); !bad.ok()) return bad;
  if (status bad = first_of(moe_weights(who, w, o, 0), tokens_of_layer(in, x, tokens, width),
                            layer_choice(who, tokens, w, o));
      !bad.ok()) {
    return bad;
  }
  return between(room, across_rows_bound(among, static_cast<index_t>(tokens), o.top_k, o.capacity),
                 0, most);
}

/// A matrix that backward leaves, where it is wanted.
template <class T, space S>
[[nodiscard]] status left_matrix(char const* who, char const* what, view<T, 2, S> m,
                                 offset_t tokens, offset_t columns) noexcept {
  if (!m) return {};
  argument const name(who, what);
  return first_of(extent(name, 0, m.extent(0), tokens, "tokens"),
                  extent(name, 1, m.extent(1), columns, "columns of the weights"), rows(name, m));
}

/// A moe_across_saved as carve_moe_across_saved gives it with the same arguments.
template <exchange X, class T, class G, space S, class W, class A>
[[nodiscard]] status saved_across(char const* who, among_ranks<X> const& among, offset_t tokens,
                                  ::shunt::moe_weights<T, G, S, W> const& w, layer_options<A, S> o,
                                  moe_across_saved<T, S> const& saved) noexcept {
  if (among.transport.ranks() == 1) {
    return layer_saved(who, ::shunt::detail::moe_sizes(tokens, w, o), o, saved.layer);
  }
  ::shunt::detail::across_layer_sizes<T> const n(among, tokens, w, o);
  bool const keeps = o.memory == memory_mode::save;
  argument const received(who, "saved.received"), pre(who, "saved.pre"),
      shared(who, "saved.layer.shared_pre");
  if (status bad = first_of(
          left_matrix(who, "saved.d_logits", saved.d_logits, tokens, n.to.experts),
          left_matrix(who, "saved.shared_d_pre", saved.shared_d_pre, tokens, n.to.shared_rows),
          left_matrix(who, "saved.shared_act", saved.shared_act, tokens, n.to.shared));
      !bad.ok()) {
    return bad;
  }
  o.memory = memory_mode::recompute;  // the pre-activations of experts are elsewhere
  if (status bad =
          first_of(layer_saved(who, n.to, o, saved.layer), across_plan(who, among, saved.plan));
      !bad.ok() || !keeps) {
    return bad;
  }
  return first_of(
      extent(received, 0, saved.received.extent(0), n.here.rows, "rows that may come"),
      extent(received, 1, saved.received.extent(1), n.here.hidden, "rows of down"),
      memory(received, saved.received),
      extent(pre, 0, saved.pre.extent(0), n.here.rows, "rows that may come"),
      extent(pre, 1, saved.pre.extent(1), n.here.up_rows, "rows of up"), memory(pre, saved.pre),
      n.to.shared > 0 ? extent(shared, 0, saved.layer.shared_pre.extent(0), n.to.tokens, "tokens")
                      : status{});
}

template <class P, exchange X, class T, class G, class W, class A>
[[nodiscard]] status layer_across_forward(P const& on, among_ranks<X> const& among,
                                          view<T const, 2, P::memory> x,
                                          ::shunt::moe_weights<T, G, P::memory, W> const& w,
                                          view<T, 2, P::memory> y,
                                          moe_across_outputs<T, P::memory> const& out,
                                          layer_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_layer_across";
  if (status bad = layer_across(who, on, among, x, w, o); !bad.ok()) return bad;
  moe_outputs<T, P::memory> const others{
      .loss = out.loss, .route = out.route, .load = out.load, .plan = out.plan};
  if (status bad = first_of(tokens_of_layer("moe_layer_across.y", y, x.extent(0), w.gate.extent(1)),
                            layer_outputs(who, x.extent(0), w, others, o),
                            apart("moe_layer_across.y", y, "x", x),
                            apart("moe_layer_across.y", y, "weights.gate", w.gate));
      !bad.ok() || out.saved == nullptr) {
    return bad;
  }
  if constexpr (!std::same_as<W, T>) return inference_only(who);
  return saved_across(who, among, x.extent(0), w, o, *out.saved);
}

template <class P, exchange X, class T, class G, class D, class A>
[[nodiscard]] status layer_across_backward(
    P const& on, among_ranks<X> const& among, view<T const, 2, P::memory> x,
    ::shunt::moe_weights<T, G, P::memory> const& w, view<T const, 2, P::memory> d_y,
    moe_across_saved<T, P::memory> const& saved, view<D, 2, P::memory> d_x,
    moe_gradients<P::memory> const& g, layer_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_layer_across_backward";
  if (status bad = layer_across(who, on, among, x, w, o); !bad.ok()) return bad;
  offset_t const tokens = x.extent(0), width = w.gate.extent(1);
  return first_of(tokens_of_layer("moe_layer_across_backward.d_y", d_y, tokens, width),
                  tokens_of_layer("moe_layer_across_backward.d_x", d_x, tokens, width),
                  apart("moe_layer_across_backward.d_x", d_x, "x", x),
                  apart("moe_layer_across_backward.d_x", d_x, "d_y", d_y),
                  saved_across(who, among, tokens, w, o, saved), layer_gradients(w, g, o));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The options of a router as one number, to be compared between ranks.
[[nodiscard]] inline std::int64_t route_number(route_options const& o) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  auto const add = [&](auto value) {
    unsigned char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    for (unsigned char b : bytes) h = (h ^ b) * 0x100000001b3u;
  };
  add(o.score), add(o.gates), add(o.scale), add(o.epsilon), add(o.groups), add(o.top_groups);
  add(o.group_by), add(o.jitter), add(o.random_second), add(o.seed), add(o.gate_on_input);
  return static_cast<std::int64_t>(h >> 1);
}
[[nodiscard]] inline std::int64_t bits_of(float x) noexcept { return bit_copy<std::int32_t>(x); }

/// What all ranks must have alike. `arithmetic`: which kind of products they run.
template <class T> struct across_agreement {
  agreed_number list[22];

  template <exchange X, class G, space S, class W, class A>
  across_agreement(int call, among_ranks<X> const& among, across_layer_sizes<T> const& n,
                   moe_weights<T, G, S, W> const& w, layer_options<A, S> const& o, bool importance,
                   int arithmetic, bool checked) noexcept
      : list{{"call (1: forward, 2: backward)", call},
             {"x: bytes of an element", sizeof(T)},
             {"weights.gate: extent 0 (experts)", n.to.experts},
             {"weights.gate: extent 1 (width)", n.to.width},
             {"weights.down: extent 1 (hidden)", n.to.hidden},
             {"weights.up: extent 1", n.here.up_rows},
             {"weights.up: bytes of an element", sizeof(W)},
             {"weights.shared_down: columns", n.to.shared},
             {"placement.experts", n.plan.experts},
             {"placement (as one number)", checked ? placement_number(among.placement) : 0},
             {"options.top_k", o.top_k},
             {"options.route.zero_experts", o.route.zero_experts},
             {"options.route (as one number)", route_number(o.route)},
             {"options.capacity", o.capacity},
             {"options.drop", static_cast<std::int64_t>(o.drop)},
             {"options.memory", static_cast<std::int64_t>(o.memory)},
             {"options.int8_rows", o.int8_rows},
             {"options.balance_loss (as bits)", bits_of(o.balance_loss)},
             {"options.z_loss (as bits)", bits_of(o.z_loss)},
             {"outputs.route.importance (1: given)", importance},
             {"the processor's arithmetic (SHUNT_ISA)", arithmetic},
             {"among.send_once (1: given)", among.send_once}} {
    static_cast<void>(w);
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
