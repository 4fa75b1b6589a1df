#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/layer/memory.hpp"
#include "shunt/layer/outputs.hpp"
#include "shunt/moe_experts/check.hpp"

/// The layer's argument checks: all that its stages could object to, before the first of them runs.
namespace shunt::check {
inline namespace SHUNT_ABI {

namespace detail {
[[nodiscard]] __attribute__((noinline)) inline status meaningless(char const* who, bool wrong,
                                                                  char const* what,
                                                                  char const* because) noexcept {
  if (!wrong) return {};
  return status::fail(error::bad_argument, "%s: %s means nothing %s; it must be left out", who,
                      what, because);
}
}  // namespace detail

template <class T, class G, space S, class W, class A>
[[nodiscard]] status moe_weights(char const* who, ::shunt::moe_weights<T, G, S, W> const& w,
                                 layer_options<A, S> const& o, offset_t least_local = 1) noexcept {
  using detail::meaningless, detail::stack, detail::together;
  offset_t const experts = w.gate.extent(0), width = w.gate.extent(1), local = w.up.experts();
  offset_t const hidden = w.down.rows(), wide = gated(o.act) ? 2 : 1;
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  argument const gate(who, "weights.gate"), up(who, "weights.up"), down(who, "weights.down"),
      first(who, "options.first_expert"), zero(who, "options.route.zero_experts"),
      e(who, "weights.gate: extent 0 (experts)"), h(who, "weights.gate: extent 1 (width)"),
      l(who, "weights.up: extent 0 (experts)");
  if (status bad =
          first_of(between(e, experts, 1, most), between(h, width, 1, most), rows(gate, w.gate),
                   optional_vector(who, "weights.gate_bias", w.gate_bias, experts, "experts"),
                   optional_vector(who, "weights.choice_bias", w.choice_bias, experts, "experts"),
                   between(zero, o.route.zero_experts, 0, experts - 1));
      !bad.ok()) {
    return bad;
  }
  offset_t const real = experts - o.route.zero_experts;
  if (status bad = first_of(
          between(l, local, least_local, real), between(first, o.first_expert, 0, real - local),
          expert_weights(who, w, o.act),
          together(who, "weights.latent_down", bool(w.latent_down), "latent_up", bool(w.latent_up)),
          together(who, "weights.latent_up", bool(w.latent_up), "latent_down", bool(w.latent_down)),
          w.latent_down ? status{}
                        : extent(down, 1, hidden, width, "the gate's width: there are no latents"),
          optional_matrix(who, "weights.latent_down", w.latent_down, hidden, "rows of down", width,
                          "the gate's width"),
          optional_matrix(who, "weights.latent_up", w.latent_up, width, "the gate's width", hidden,
                          "rows of down"));
      !bad.ok()) {
    return bad;
  }
  if (status bad = first_of(
          together(who, "weights.shared_up", bool(w.shared_up), "shared_down", bool(w.shared_down)),
          together(who, "weights.shared_down", bool(w.shared_down), "shared_up", bool(w.shared_up)),
          together(who, "weights.shared_gate", bool(w.shared_gate), "shared_up", bool(w.shared_up)),
          optional_vector(who, "weights.shared_gate", w.shared_gate, width, "the gate's width"),
          meaningless(who, o.route.gate_on_input && o.route.zero_experts > 0,
                      "options.route.gate_on_input", "with zero experts"));
      !bad.ok() || !w.shared_up) {
    return bad;
  }
  return first_of(stack(who, "weights.shared_down", w.shared_down, 1, width, "the gate's width",
                        w.shared_down.columns(), ""),
                  stack(who, "weights.shared_up", w.shared_up, 1, wide * w.shared_down.columns(),
                        wide == 2 ? "twice the columns of shared_down" : "columns of shared_down",
                        width, "the gate's width"),
                  check::halves(argument(who, "weights.shared_up"), w.shared_up, wide == 2));
}

template <class T, class G, space S, class W, class A>
[[nodiscard]] status layer_choice(char const* who, offset_t tokens,
                                  ::shunt::moe_weights<T, G, S, W> const& w,
                                  layer_options<A, S> const& o) noexcept {
  using detail::meaningless;
  offset_t const experts = w.gate.extent(0), top_k = o.top_k, local = w.up.experts();
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  bool const losses = o.balance_loss != 0.0f || o.z_loss != 0.0f;
  argument const capacity(who, "options.capacity"), chosen(who, "options.tokens_per_expert"),
      slots(who, "x: tokens x options.top_k"), int8(who, "options.int8_rows");
  if (status bad = first_of(
          between(capacity, o.capacity, 0, most), between(chosen, o.tokens_per_expert, 0, most),
          finite(argument(who, "options.balance_loss"), o.balance_loss),
          finite(argument(who, "options.z_loss"), o.z_loss),
          optional_vector(who, "options.valid", o.valid, tokens, "tokens of x"),
          optional_vector(who, "options.frozen", o.frozen, local, "experts of weights.up"),
          int8_rows(int8, w.up, o.int8_rows), int8_rows(int8, w.down, o.int8_rows),
          int8_rows(int8, w.shared_down, o.int8_rows));
      !bad.ok()) {
    return bad;
  }
  if (o.tokens_per_expert > 0) {
    char const* const because = "where experts choose (tokens_per_expert)";
    return first_of(
        fits_index(argument(who, "x: tokens x experts"), tokens, experts),
        fits_index(argument(who, "tokens_per_expert x experts"), o.tokens_per_expert, experts),
        extent(argument(who, "weights.up"), 0, local, experts, "experts of the gate: no shards"),
        meaningless(who, o.capacity > 0, "options.capacity", because),
        meaningless(who, bool(o.ids), "options.ids", because),
        meaningless(who, losses, "a loss on the balance or the logits", because),
        meaningless(who, o.route.zero_experts > 0, "options.route.zero_experts", because),
        meaningless(who, o.route.gates != gate_kind::raw, "a gate that is not raw", because),
        meaningless(who, o.route.groups != 1, "options.route.groups", because),
        meaningless(who, o.route.jitter != 0.0f, "options.route.jitter", because),
        meaningless(who, o.route.random_second, "options.route.random_second", because));
  }
  route_inputs<S> const inputs{w.choice_bias, o.valid, o.ids, o.token, o.draws};
  return first_of(fits_index(slots, tokens, top_k), route_rules(o.route, experts, top_k),
                  check_route_inputs(inputs, o.route, tokens, experts, top_k));
}

/// What forward writes in addition to y, but for `saved`.
template <class T, class G, space S, class W, class A>
[[nodiscard]] status layer_outputs(char const* who, offset_t tokens,
                                   ::shunt::moe_weights<T, G, S, W> const& w,
                                   moe_outputs<T, S> const& out,
                                   layer_options<A, S> const& o) noexcept {
  offset_t const experts = w.gate.extent(0), local = w.up.experts();
  if (status bad =
          first_of(optional_vector(who, "outputs.loss", out.loss, 2, "balance loss and z-loss"),
                   report(who, out.plan, local, report_in_outputs),
                   out.load.figures ? check::load(out.load, load_events<S>{}, local) : status{});
      !bad.ok() || o.tokens_per_expert > 0) {
    return bad;
  }
  route_inputs<S> const inputs{w.choice_bias, o.valid, o.ids, o.token, o.draws};
  if (status bad = check_route_outputs(out.route, inputs, o.route, tokens, experts, o.top_k);
      !bad.ok()) {
    return bad;
  }
  bool const losses = o.balance_loss != 0.0f || o.z_loss != 0.0f;
  bool const own = !out.route.counts || !out.route.importance || !out.route.tokens;
  if (losses && o.route.accumulate && own) {
    return status::fail(error::null_pointer,
                        "%s.outputs.route: counts, importance or tokens is missing; with losses "
                        "over an accumulated load all three must be the caller's",
                        who);
  }
  return {};
}

/// A moe_saved for so many tokens, as carve_moe_saved gives it with the same options.
template <class T, space S, class A>
[[nodiscard]] status layer_saved(char const* who, ::shunt::detail::moe_sizes const& n,
                                 layer_options<A, S> const& o,
                                 ::shunt::moe_saved<T, S> const& saved) noexcept {
  bool const keeps = o.memory == memory_mode::save;
  auto const has = [&](char const* what, auto const& m, offset_t extent0, char const* why0,
                       offset_t extent1, char const* why1) {
    return detail::given_argument(who, what, detail::any_view(m), {extent0, why0}, {extent1, why1});
  };
  auto const list = [&](char const* what, bool wanted, auto const& v, offset_t length,
                        char const* why) {
    return wanted ? detail::given_argument(who, what, detail::any_view(v), {length, why})
                  : status{};
  };
  argument const row(who, "saved.plan.row_slot");
  if (status bad = first_of(
          has("saved.logits", saved.logits, n.tokens, "tokens of x", n.experts, "experts"),
          has("saved.choice.gate", saved.choice.gate, n.tokens, "tokens of x", n.top_k,
              "options.top_k"),
          n.tokens_per_expert > 0
              ? has("saved.expert_choice.token", saved.expert_choice.token, n.experts, "experts",
                    n.tokens_per_expert, "options.tokens_per_expert")
              : has("saved.choice.expert", saved.choice.expert, n.tokens, "tokens of x", n.top_k,
                    "options.top_k"),
          check::plan(who, saved.plan),
          extent(row, 0, saved.plan.row_slot.extent(0), n.rows, "rows that any choice may need"),
          list("saved.d_importance", o.balance_loss != 0.0f, saved.d_importance, n.experts,
               "experts, for the balance loss"),
          list("saved.d_z", o.z_loss != 0.0f, saved.d_z, n.tokens, "tokens of x, for the z-loss"),
          list("saved.shared_gate", n.shared_gated, saved.shared_gate, n.tokens, "tokens of x"));
      !bad.ok()) {
    return bad;
  }
  return first_of(n.latent ? has("saved.latent", saved.latent, n.tokens, "tokens of x", n.hidden,
                                 "rows of down")
                           : status{},
                  n.latent ? has("saved.latent_sum", saved.latent_sum, n.tokens, "tokens of x",
                                 n.hidden, "rows of down")
                           : status{},
                  saved_pre(who, saved.pre, o.memory, n.rows, n.up_rows),
                  keeps && n.shared > 0 ? has("saved.shared_pre", saved.shared_pre, n.tokens,
                                              "tokens of x", n.shared_rows, "rows of shared_up")
                                        : status{});
}

/// [T,Hm] of the layer.
template <class V>
[[nodiscard]] status tokens_of_layer(char const* name, V const& x, offset_t tokens,
                                     offset_t width) noexcept {
  return tokens_of(name, x, tokens, width, "the gate's width");
}

template <execution P, class T, class G, class W, class A>
[[nodiscard]] status moe_layer(P const& on, view<T const, 2, P::memory> x,
                               ::shunt::moe_weights<T, G, P::memory, W> const& w,
                               view<T, 2, P::memory> y, moe_outputs<T, P::memory> const& out,
                               layer_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_layer";
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = x.extent(0), width = w.gate.extent(1);
  if (status bad = first_of(
          policy(on), between("moe_layer.x: extent 0 (tokens)", tokens, 0, most),
          moe_weights(who, w, o), tokens_of_layer("moe_layer.x", x, tokens, width),
          tokens_of_layer("moe_layer.y", y, tokens, width), layer_choice(who, tokens, w, o),
          layer_outputs(who, tokens, w, out, o), apart("moe_layer.y", y, "x", x),
          apart("moe_layer.y", y, "weights.gate", w.gate));
      !bad.ok() || out.saved == nullptr) {
    return bad;
  }
  if constexpr (!std::same_as<W, T>) return check::inference_only(who);
  return layer_saved(who, ::shunt::detail::moe_sizes(tokens, w, o), o, *out.saved);
}

template <class T, class G, space S, class A>
[[nodiscard]] status layer_gradients(::shunt::moe_weights<T, G, S> const& w,
                                     moe_gradients<S> const& g,
                                     layer_options<A, S> const& o) noexcept {
  using detail::stack, detail::together;
  constexpr char const* who = "moe_layer_backward";
  offset_t const experts = w.gate.extent(0), width = w.gate.extent(1);
  offset_t const hidden = w.down.rows();
  auto const like = [&](char const* what, expert_gradient<S> const& m,
                        expert_matrix<T, S> const& of) {
    if (!m) return status{};
    return first_of(stack(who, what, m, of.experts(), of.rows(), "rows of the weights",
                          of.columns(), "columns of the weights"),
                    check::gradients(who, m, wgrad_options<S>{}));
  };
  if (status bad = first_of(
          expert_gradients(who, g, w), like("gradients.shared_up", g.shared_up, w.shared_up),
          like("gradients.shared_down", g.shared_down, w.shared_down),
          optional_matrix(who, "gradients.gate", g.gate, experts, "experts", width,
                          "the gate's width"),
          optional_vector(who, "gradients.gate_bias", g.gate_bias, experts, "experts"),
          optional_vector(who, "gradients.shared_gate", g.shared_gate, width, "the gate's width"),
          optional_matrix(who, "gradients.latent_down", g.latent_down, hidden, "rows of down",
                          width, "the gate's width"),
          optional_matrix(who, "gradients.latent_up", g.latent_up, width, "the gate's width",
                          hidden, "rows of down"));
      !bad.ok()) {
    return bad;
  }
  return first_of(
      together(who, "gradients.gate_bias", bool(g.gate_bias), "gradients.gate", bool(g.gate)),
      together(who, "gradients.shared_up", bool(g.shared_up), "the weights", bool(w.shared_up)),
      together(who, "gradients.shared_gate", bool(g.shared_gate), "the weights",
               bool(w.shared_gate)),
      together(who, "gradients.latent_down", bool(g.latent_down), "the weights",
               bool(w.latent_down)),
      optional_vector(who, "options.from_losses.importance", o.from_losses.importance, experts,
                      "experts"));
}

template <execution P, class T, class G, class D, class A>
[[nodiscard]] status moe_layer_backward(P const& on, view<T const, 2, P::memory> x,
                                        ::shunt::moe_weights<T, G, P::memory> const& w,
                                        view<T const, 2, P::memory> d_y,
                                        moe_saved<T, P::memory> const& saved,
                                        view<D, 2, P::memory> d_x,
                                        moe_gradients<P::memory> const& g,
                                        layer_options<A, P::memory> const& o) noexcept {
  constexpr char const* who = "moe_layer_backward";
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = x.extent(0), width = w.gate.extent(1);
  if (status bad = first_of(
          policy(on), between("moe_layer_backward.x: extent 0 (tokens)", tokens, 0, most),
          moe_weights(who, w, o), tokens_of_layer("moe_layer_backward.x", x, tokens, width),
          tokens_of_layer("moe_layer_backward.d_y", d_y, tokens, width),
          tokens_of_layer("moe_layer_backward.d_x", d_x, tokens, width),
          layer_choice(who, tokens, w, o), apart("moe_layer_backward.d_x", d_x, "x", x),
          apart("moe_layer_backward.d_x", d_x, "d_y", d_y));
      !bad.ok()) {
    return bad;
  }
  return first_of(layer_saved(who, ::shunt::detail::moe_sizes(tokens, w, o), o, saved),
                  layer_gradients(w, g, o));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
