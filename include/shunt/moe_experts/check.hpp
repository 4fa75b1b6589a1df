#pragma once
#include <concepts>
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/dispatch/check.hpp"
#include "shunt/experts/check.hpp"
#include "shunt/moe_experts/memory.hpp"

/// The argument checks of experts: all that the stages could object to, before the first of them runs.
namespace shunt::check {
inline namespace SHUNT_ABI {

namespace detail {
template <class Element, space S>
[[nodiscard]] status stack(char const* who, char const* what,
                           basic_expert_matrix<Element, S> const& m, offset_t experts,
                           offset_t rows, char const* why_rows, offset_t columns,
                           char const* why_columns) noexcept {
  argument const name(who, what);
  return first_of(check::experts(name, m, experts), extent(name, 1, m.rows(), rows, why_rows),
                  extent(name, 2, m.columns(), columns, why_columns));
}
/// One is given, the other not.
[[nodiscard]] __attribute__((noinline)) inline status together(char const* who, char const* what,
                                                               bool has, char const* with,
                                                               bool needs) noexcept {
  if (!has || needs) return {};
  return status::fail(error::null_pointer, "%s.%s is given without %s; both must be given", who,
                      what, with);
}
}  // namespace detail

/// up, down and their biases fit each other. W has the members of moe_experts_weights.
template <class Weights, class A>
[[nodiscard]] status expert_weights(char const* who, Weights const& w, A const& act) noexcept {
  offset_t const local = w.up.experts(), hidden = w.down.rows(), wide = gated(act) ? 2 : 1;
  return first_of(
      detail::stack(who, "weights.down", w.down, local, hidden, "", w.down.columns(), ""),
      detail::stack(who, "weights.up", w.up, local, wide * w.down.columns(),
                    wide == 2 ? "twice the columns of down" : "the columns of down", hidden,
                    "rows of down"),
      check::halves(argument(who, "weights.up"), w.up, wide == 2),
      check::bias(argument(who, "weights.up_bias"), w.up_bias, local, w.up.rows()),
      check::bias(argument(who, "weights.down_bias"), w.down_bias, local, hidden));
}

/// Gradients have the extents of their weights; G has the members of moe_experts_gradients.
template <class G, class Weights>
[[nodiscard]] status expert_gradients(char const* who, G const& g, Weights const& w) noexcept {
  auto const like = [&](char const* what, auto const& m, auto const& of) {
    if (!m) return status{};
    return first_of(detail::stack(who, what, m, of.experts(), of.rows(), "rows of the weights",
                                  of.columns(), "columns of the weights"),
                    gradients(who, m, {}));
  };
  offset_t const local = w.up.experts();
  if (status bad =
          first_of(like("gradients.up", g.up, w.up), like("gradients.down", g.down, w.down),
                   optional_matrix(who, "gradients.up_bias", g.up_bias, local, "experts",
                                   w.up.rows(), "rows of up"),
                   optional_matrix(who, "gradients.down_bias", g.down_bias, local, "experts",
                                   w.down.rows(), "rows of down"));
      !bad.ok()) {
    return bad;
  }
  // Bias gradients come out of the products that make the weights'.
  return first_of(
      detail::together(who, "gradients.up_bias", bool(g.up_bias), "gradients.up", bool(g.up)),
      detail::together(who, "gradients.down_bias", bool(g.down_bias), "gradients.down",
                       bool(g.down)));
}

/// Rows for each token of x; of that width, for the reason `why`.
template <class V>
[[nodiscard]] status tokens_of(char const* name, V const& x, offset_t tokens, offset_t width,
                               char const* why) noexcept {
  return first_of(extent(name, 0, x.extent(0), tokens, "tokens of x"),
                  extent(name, 1, x.extent(1), width, why), rows(name, x));
}
/// [T,H] of the experts.
template <class V>
[[nodiscard]] status tokens_of_experts(char const* who, char const* what, V const& x,
                                       offset_t tokens, offset_t hidden) noexcept {
  return tokens_of(argument(who, what), x, tokens, hidden, "rows of down");
}

/// The ids that go with the gates.
template <space S>
[[nodiscard]] status expert_ids(char const* who, view<index_t const, 2, S> expert,
                                view<float const, 2, S> gate) noexcept {
  argument const name(who, "expert");
  return first_of(extent(name, 0, expert.extent(0), gate.extent(0), "tokens of x"),
                  extent(name, 1, expert.extent(1), gate.extent(1), "extent 1 of gate"),
                  rows(name, expert));
}

/// What forward and backward are given alike.
template <execution P, class T, class W, class A>
[[nodiscard]] status experts_inputs(char const* who, P const& on, view<T const, 2, P::memory> x,
                                    view<float const, 2, P::memory> gate,
                                    moe_experts_weights<W, P::memory> const& w,
                                    moe_experts_options<A, P::memory> const& o) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = x.extent(0), top_k = gate.extent(1), local = w.up.experts();
  argument const t(who, "x: extent 0 (tokens)"), k(who, "gate: extent 1 (top_k)"),
      l(who, "weights.up: extent 0 (experts)"), g(who, "gate"), first(who, "options.first_expert"),
      global(who, "options.global_experts"), capacity(who, "options.capacity"),
      slots(who, "x: tokens x top_k"), int8(who, "options.int8_rows");
  if (status bad = first_of(
          policy(on), between(t, tokens, 0, most), between(k, top_k, 1, most),
          between(l, local, 1, most), expert_weights(who, w, o.act),
          tokens_of_experts(who, "x", x, tokens, w.down.rows()),
          extent(g, 0, gate.extent(0), tokens, "tokens of x"), rows(g, gate),
          fits_index(slots, tokens, top_k), between(first, o.first_expert, 0, most - local),
          between(global, o.global_experts, 0, most), between(capacity, o.capacity, 0, most));
      !bad.ok()) {
    return bad;
  }
  if (tokens > 1 && gate.stride(0) != top_k) {
    return status::fail(error::bad_shape,
                        "%s.gate: axis 0 has stride %lld; it must be %lld (contiguous)", who,
                        static_cast<long long>(gate.stride(0)), static_cast<long long>(top_k));
  }
  return first_of(optional_vector(who, "options.valid", o.valid, tokens, "tokens of x"),
                  optional_vector(who, "options.frozen", o.frozen, local, "experts of weights.up"),
                  int8_rows(int8, w.up, o.int8_rows), int8_rows(int8, w.down, o.int8_rows));
}

/// outputs.saved with weights in a weight format.
[[nodiscard]] inline status inference_only(char const* who) noexcept {
  return status::fail(error::bad_argument,
                      "%s.outputs.saved is given; with experts' weights of another type than the "
                      "tokens' there is no backward, and it must be null",
                      who);
}

/// The rows before the activation that a forward saved; none where backward recomputes them.
template <class T, space S>
[[nodiscard]] status saved_pre(char const* who, view<T, 2, S> pre, memory_mode mode, offset_t rows,
                               offset_t up_rows) noexcept {
  if (mode == memory_mode::recompute) return {};
  return detail::given_argument(who, "saved.pre", detail::any_view(pre), {rows, "rows of the plan"},
                                {up_rows, "rows of up"});
}

/// A moe_experts_saved as carve_moe_experts_saved gives it with the same options.
template <class T, space S>
[[nodiscard]] status experts_saved(char const* who, ::shunt::detail::expert_sizes const& n,
                                   memory_mode mode,
                                   ::shunt::moe_experts_saved<T, S> const& saved) noexcept {
  argument const row(who, "saved.plan.row_slot"), of_tokens(who, "saved.plan.tokens"),
      of_slots(who, "saved.plan.top_k");
  return first_of(check::plan(who, saved.plan),
                  extent(of_tokens, 0, saved.plan.tokens, n.tokens, "tokens of x"),
                  extent(of_slots, 0, saved.plan.top_k, n.top_k, "extent 1 of gate"),
                  extent(row, 0, saved.plan.row_slot.extent(0), n.rows, "rows of any choice"),
                  saved_pre(who, saved.pre, mode, n.rows, n.up_rows));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
