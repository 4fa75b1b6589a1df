#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <type_traits>

#include "shunt/core/numeric.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/view.hpp"

namespace shunt {

/// The element type of a view, an mdspan-like object or a contiguous container.
template <class V> using element_t = typename std::remove_cvref_t<V>::value_type;

/// V can be read as a rank-Rank array of memory that policy P can reach.
template <class V, class P, int Rank>
concept input = execution<P> && requires { typename element_t<V>; } &&
                std::constructible_from<view<element_t<V> const, Rank, P::memory>, V&>;

/// V can be written as a rank-Rank array of memory that policy P can reach.
template <class V, class P, int Rank>
concept output = execution<P> && requires { typename element_t<V>; } &&
                 std::constructible_from<view<element_t<V>, Rank, P::memory>, V&>;

/// The one view type that a backend takes, for any argument of the caller.
template <class P, int Rank, class V>
  requires input<V, P, Rank>
[[nodiscard]] constexpr auto as_input(V& v) noexcept {
  return view<element_t<V> const, Rank, P::memory>(v);
}
/// The same, of memory that is written.
template <class P, int Rank, class V>
  requires output<V, P, Rank>
[[nodiscard]] constexpr auto as_output(V& v) noexcept {
  return view<element_t<V>, Rank, P::memory>(v);
}

}  // namespace shunt
