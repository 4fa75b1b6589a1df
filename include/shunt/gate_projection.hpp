#pragma once
/// The gate projection: tokens to logits, and back.
#include <type_traits>

#include "shunt/backend/host/route/projection.hpp"
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/check.hpp"

namespace shunt {

namespace check {
inline namespace SHUNT_ABI {
/// x [T,H], w [E,H] and something [T,E].
template <class X, class W, class L, space S>
[[nodiscard]] status projection(char const* name, view<X, 2, S> x, view<W, 2, S> w,
                                char const* logits_name, view<L, 2, S> logits,
                                view<float const, 1, S> bias) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  offset_t const tokens = x.extent(0), hidden = x.extent(1), experts = w.extent(0);
  return first_of(between(name, tokens, 0, most),
                  extent("gate.w", 1, w.extent(1), hidden, "hidden"),
                  between("gate.w: extent 0 (experts)", experts, 1, most),
                  between("gate.x: extent 1 (hidden)", hidden, 1, most),
                  extent(logits_name, 0, logits.extent(0), tokens, "tokens"),
                  extent(logits_name, 1, logits.extent(1), experts, "experts"), rows("gate.x", x),
                  rows("gate.w", w), rows(logits_name, logits),
                  optional_row("gate.bias", bias, experts, "experts"));
}
}  // namespace SHUNT_ABI
}  // namespace check

/// logits = x·wᵀ (+ bias): always float. The bias (gpt-oss) is part of
/// the projection: it moves gates as well as choices, and has a gradient.
/// Shapes   x [T,H] · w [E,H] · bias [E] or none → logits [T,E]
/// Types    x, w float, bf16 or fp16; bias and logits float
/// Order    each logit one chain of fma over H in ascending order from 0, then + bias
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     2·T·E·H
template <execution P, input<P, 2> X, input<P, 2> W>
[[nodiscard]] status gate_logits(
    P const& on, X x, W w, std::type_identity_t<view<float, 2, P::memory>> logits,
    std::type_identity_t<view<float const, 1, P::memory>> bias = {}) noexcept {
  auto const in = as_input<P, 2>(x);
  auto const weight = as_input<P, 2>(w);
  if (status bad = first_of(
          check::policy(on),
          check::projection("gate.x: extent 0 (tokens)", in, weight, "gate.logits", logits, bias),
          check::apart("gate.logits", logits, "x", in),
          check::apart("gate.logits", logits, "w", weight),
          check::apart("gate.logits", logits, "bias", bias));
      !bad.ok()) {
    return bad;
  }
  return detail::gate_projection_backend<P>::run(
      on,
      detail::gate_logits_call<element_t<X>, element_t<W>, P::memory>{in, weight, logits, bias});
}

/// What gate_logits_backward writes; each is optional.
template <class Dx, space S = space::host> struct gate_gradients {
  view<Dx, 2, S> x;        ///< [T,H]
  view<float, 2, S> w;     ///< [E,H]
  view<float, 1, S> bias;  ///< [E]
  bool add_x = false;      ///< onto what x holds (the experts' share of the same tokens' gradient)
  bool add_weights = false;  ///< w and bias: onto what they hold
};

/// The gradients of gate_logits.
/// Shapes   d_logits [T,E] · x [T,H] · w [E,H] → d.x [T,H] · d.w [E,H] · d.bias [E]
/// Types    d_logits, d.w, d.bias float; x, w, d.x float, bf16 or fp16
/// Order    chains of fma: d.x over E, d.w and d.bias over T, each in ascending order
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     4·T·E·H
template <execution P, input<P, 2> X, input<P, 2> W, class Dx>
[[nodiscard]] status gate_logits_backward(
    P const& on, std::type_identity_t<view<float const, 2, P::memory>> d_logits, X x, W w,
    gate_gradients<Dx, P::memory> const& d) noexcept {
  auto const in = as_input<P, 2>(x);
  auto const weight = as_input<P, 2>(w);
  if (status bad = first_of(
          check::policy(on),
          check::projection("gate.x: extent 0 (tokens)", in, weight, "gate.d_logits", d_logits, {}),
          check::optional_rows("gate.d.x", d.x, in.extent(0), "tokens", in.extent(1), "hidden"),
          check::optional_rows("gate.d.w", d.w, weight.extent(0), "experts", in.extent(1),
                               "hidden"),
          check::optional_row("gate.d.bias", d.bias, weight.extent(0), "experts"),
          check::apart("gate.d.x", d.x, "d_logits", d_logits),
          check::apart("gate.d.x", d.x, "x", in), check::apart("gate.d.x", d.x, "w", weight),
          check::apart("gate.d.w", d.w, "x", in), check::apart("gate.d.w", d.w, "w", weight),
          check::apart("gate.d.w", d.w, "d_logits", d_logits),
          check::apart("gate.d.bias", d.bias, "d_logits", d_logits));
      !bad.ok()) {
    return bad;
  }
  return detail::gate_projection_backend<P>::run(
      on, detail::gate_backward_call<element_t<X>, element_t<W>, Dx, P::memory>{
              d_logits, in, weight, d.x, d.w, d.bias, d.add_x, d.add_weights});
}

}  // namespace shunt
