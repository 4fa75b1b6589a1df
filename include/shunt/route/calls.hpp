#pragma once
#include <cstdint>

#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"
#include "shunt/route/options.hpp"
#include "shunt/route/routing.hpp"

/// A checked call, as one value: what the public functions hand to the backend of the policy. A
/// backend supplies `run_on(policy, call)` for each, found by the types of both.
namespace shunt::detail {

struct route_sizes {
  offset_t tokens, experts, top_k, sequences;
};

template <class T, space S> struct route_call {
  view<T const, 2, S> logits;
  routing<S> out;
  arena<S> work;
  route_options options;
  route_inputs<S> with;
};

template <class T, class G, space S> struct route_backward_call {
  view<T const, 2, S> logits;
  view<index_t const, 2, S> expert;
  route_gradients<S> d;
  view<G, 2, S> d_logits;
  arena<S> work;
  route_options options;
  route_inputs<S> with;
};

/// Sequences that the outputs ask for; 1 where none does.
template <space S> [[nodiscard]] constexpr offset_t sequences_of(routing<S> const& out) noexcept {
  return out.sequence_importance ? out.sequence_importance.extent(0)
         : out.sequence_counts   ? out.sequence_counts.extent(0)
         : out.sequence_tokens   ? out.sequence_tokens.extent(0)
                                 : 1;
}

}  // namespace shunt::detail
