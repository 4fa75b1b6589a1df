#pragma once
#include <concepts>
#include <cstddef>

#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/moe_experts/options.hpp"

/// What the experts' call carves from the caller's bytes: the same code measures and carves.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The sizes of the experts of one call.
struct expert_sizes {
  offset_t tokens = 0, hidden = 0, local = 0, top_k = 0;  // T H L K
  offset_t up_rows = 0, intermediate = 0;                 // 2I I
  offset_t rows = 0;                                      // R
  index_t expected = 0;                                   // rows of an expert, for tile sizes
  bool gate_on_input = false;

  template <class W, space S, class A>
  expert_sizes(offset_t batch, offset_t k, moe_experts_weights<W, S> const& w,
               moe_experts_options<A, S> const& o) noexcept
      : expert_sizes(batch, k, w, o.gate_on_input) {
    rows = plan_rows_bound(for_plan(), plan_options<S>{.capacity = o.capacity});
    expected = expected_rows(o.global_experts > 0 ? o.global_experts : local, o.capacity);
  }
  /// Rows that an expert has on average when the tokens choose from `experts`.
  [[nodiscard]] index_t expected_rows(offset_t experts, offset_t capacity) const noexcept {
    offset_t n = tokens * top_k / (experts > 0 ? experts : 1);
    if (capacity > 0 && capacity < n) n = capacity;
    return static_cast<index_t>(n < 1 ? 1 : n);
  }
  [[nodiscard]] shape for_plan() const noexcept { return of_experts(local); }

 protected:
  /// All but the rows, which depend on who chooses. Weights has the members of moe_experts_weights.
  template <class Weights>
  expert_sizes(offset_t batch, offset_t k, Weights const& w, bool on_input) noexcept
      : tokens(batch),
        hidden(w.down.rows()),
        local(w.up.experts()),
        top_k(k),
        up_rows(w.up.rows()),
        intermediate(w.down.columns()),
        gate_on_input(on_input) {}

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

template <class T, space S>
[[nodiscard]] moe_experts_saved<T, S> carve_experts_saved(arena<S>& from, expert_sizes const& n,
                                                          bool with_pre) noexcept {
  moe_experts_saved<T, S> s;
  s.plan = carve_plan(from, n.for_plan(), n.rows);
  s.plan.expected = n.expected;
  if (with_pre) s.pre = carve<T, 2, S>(from, {{n.rows, n.up_rows}});
  return s;
}

/// Scratch of the plan.
template <class P, class A>
[[nodiscard]] std::size_t plan_bytes(P const& on, expert_sizes const& n,
                                     moe_experts_options<A, P::memory> const& o) noexcept {
  return plan_scratch_bytes(on, n.for_plan(),
                            plan_options<P::memory>{.capacity = o.capacity, .drop = o.drop});
}

template <class T, space S> struct experts_forward_scratch {
  view<T, 2, S> gated_rows;  // [R,H] gate · x, where the gate acts on the input
  view<T, 2, S> act, rows;   // [R,I] [R,H]

  static experts_forward_scratch carve(arena<S>& from, expert_sizes const& n) noexcept {
    experts_forward_scratch s;
    if (n.gate_on_input) s.gated_rows = detail::carve<T, 2, S>(from, {{n.rows, n.hidden}});
    s.act = detail::carve<T, 2, S>(from, {{n.rows, n.intermediate}});
    s.rows = detail::carve<T, 2, S>(from, {{n.rows, n.hidden}});
    return s;
  }
};

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

template <class T, space S> struct experts_backward_scratch {
  feed_scratch<T, S> feed;
  view<float, 2, S> d_rows;     // [R,H]
  view<float, 2, S> bias_part;  // [R,1] <d_y, down_bias>
  view<T, 2, S> gated_rows;     // [R,H] as in forward, and the gradient of it
  view<T, 2, S> d_gated_rows;

  static experts_backward_scratch carve(arena<S>& from, expert_sizes const& n, bool down_bias,
                                        memory_mode memory) noexcept {
    experts_backward_scratch s;
    s.feed = feed_scratch<T, S>::carve(from, n.rows, n.intermediate, n.up_rows,
                                       memory == memory_mode::recompute, !n.gate_on_input);
    if (n.gate_on_input) {
      s.gated_rows = detail::carve<T, 2, S>(from, {{n.rows, n.hidden}});
      s.d_gated_rows = detail::carve<T, 2, S>(from, {{n.rows, n.hidden}});
    } else {
      if (down_bias) s.bias_part = detail::carve<float, 2, S>(from, {{n.rows, 1}});
      s.d_rows = detail::carve<float, 2, S>(from, {{n.rows, n.hidden}});
    }
    return s;
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
