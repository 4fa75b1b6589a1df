#pragma once
/// Logits to expert ids and gates, and back: the router of a mixture of experts.
#include <cstddef>

#include "shunt/backend/host/isa.hpp"
#include "shunt/backend/host/route_forward.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/route/calls.hpp"
#include "shunt/route/check.hpp"
#include "shunt/route/options.hpp"
#include "shunt/route/routing.hpp"

namespace shunt {

/// The scratch that route() and route_backward() need for T = tokens, E = experts, K = top_k of
/// `sizes`; more than needed never harms. `sequences`: where the load of sequences is wanted.
template <execution P>
[[nodiscard]] std::size_t route_bytes(P const& on, shape const& sizes,
                                      index_t sequences = 1) noexcept {
  auto work = arena<P::memory>::measuring();
  carve_for(on, work, detail::route_sizes{sizes.tokens, sizes.experts, sizes.top_k, sequences});
  return work.needed();
}

/// Chooses K experts for each token and weighs them, in one pass over the logits.
/// Shapes   logits [T,E] → expert [T,K] · gate [T,K]; optional outputs: see routing
/// Types    logits float, bf16 or fp16; all arithmetic float
/// Order    a token's bits depend on its own logits only. Row sums by 32 strided partial sums and
///          halving; importance by blocks of 32 tokens, added in order. Equal keys: the lower expert,
///          the lower group. The same bits for any thread count and instruction set.
/// Aliasing none
/// Errors   a sentence, before anything is written. Data errors are counted in `report`: NaN reads
///          as -Inf, +Inf as the largest float; -Inf masks an expert: it is never chosen (where fewer
///          than K remain the slots are -1, gate 0). Forced ids out of range or repeated become -1.
/// Cost     reads T·E, writes 2·T·K; T·E exponentials only where scores of all experts are needed.
///          Scratch: route_bytes(). Never allocates.
/// Source   Shazeer et al. 2017, GShard 2020, Switch 2021, DeepSeek-V2/V3; docs/stages/route.md
template <execution P, input<P, 2> Logits>
[[nodiscard]] status route(P const& on, Logits logits, routing<P::memory> const& out,
                           arena<P::memory> work, route_options const& options = {},
                           route_inputs<P::memory> const& with = {}) noexcept {
  auto const in = as_input<P, 2>(logits);
  offset_t const tokens = in.extent(0), experts = in.extent(1), top_k = out.expert.extent(1);
  if (status bad = check::policy(on); !bad.ok()) return bad;
  if (status bad = check::route_shapes<element_t<Logits>, P::memory>(in, out.expert, out.gate);
      !bad.ok()) {
    return bad;
  }
  if (status bad = check::route_rules(options, experts, top_k); !bad.ok()) return bad;
  if (status bad = check::route_given(with, options, tokens, experts, top_k); !bad.ok()) return bad;
  if (status bad = check::route_wanted(out, with, options, tokens, experts, top_k); !bad.ok()) {
    return bad;
  }
  if (status bad = check::route_apart(in, out); !bad.ok()) return bad;
  return run_on(on, detail::route_call<element_t<Logits>, P::memory>{in, out, work, options, with});
}

}  // namespace shunt
