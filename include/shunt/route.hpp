#pragma once
/// Logits to expert ids and gates, and back: the router of a mixture of experts.
#include <cstddef>

#include "shunt/backend/host/route/backward.hpp"
#include "shunt/backend/host/route/forward.hpp"
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/gate_projection.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/check.hpp"
#include "shunt/route/options.hpp"
#include "shunt/route/presets.hpp"
#include "shunt/route/routing.hpp"
#include "shunt/route_bias.hpp"
#include "shunt/route_expert_choice.hpp"
#include "shunt/route_losses.hpp"

namespace shunt {

/// The scratch that route() and route_backward() need for T = tokens, E = experts, K = top_k of
/// `sizes`; more than needed never harms. `sequences`: where the load of sequences is wanted.
template <execution P>
[[nodiscard]] std::size_t route_scratch_bytes(P const& on, shape const& sizes,
                                              index_t sequences = 1) noexcept {
  auto work = arena<P::memory>::measuring();
  detail::route_backend<P>::carve(
      on, work, detail::route_sizes{sizes.tokens, sizes.experts, sizes.top_k, sequences});
  return work.needed();
}

/// Chooses K experts for each token and weighs them, in one pass over the logits.
/// Shapes   logits [T,E] · inputs, each optional: see route_inputs → expert [T,K] · gate [T,K]; optional
///          outputs: see routing
/// Types    logits float, bf16 or fp16; all arithmetic float
/// Order    a token's bits depend on its own logits only. Row sums by 32 strided partial sums and
///          halving; importance by blocks of 32 tokens, added in order. Equal keys: the lower expert,
///          the lower group. The same bits for any thread count and instruction set.
/// Aliasing none
/// Errors   a sentence, before anything is written. Data errors are counted in `report`: NaN reads
///          as -Inf, +Inf as the largest float; -Inf masks an expert: it is never chosen (where fewer
///          than K remain the slots are -1, gate 0). Forced ids out of range or repeated become -1.
/// Cost     reads T·E, writes 2·T·K; T·E exponentials only where scores of all experts are needed.
///          Scratch: route_scratch_bytes(). Never allocates.
/// Source   Shazeer et al. 2017, GShard 2020, Switch 2021, DeepSeek-V2/V3; docs/stages/route.md
template <execution P, input<P, 2> Logits>
[[nodiscard]] status route(P const& on, Logits logits,
                           std::type_identity_t<route_inputs<P::memory>> const& inputs,
                           routing<P::memory> const& out,
                           std::type_identity_t<arena<P::memory>> work,
                           route_options const& options = {}) noexcept {
  auto const in = as_input<P, 2>(logits);
  offset_t const tokens = in.extent(0), experts = in.extent(1), top_k = out.expert.extent(1);
  if (status bad = check::policy(on); !bad.ok()) return bad;
  if (status bad = check::route_shapes<element_t<Logits>, P::memory>(in, out.expert, out.gate);
      !bad.ok()) {
    return bad;
  }
  if (status bad = check::route_rules(options, experts, top_k); !bad.ok()) return bad;
  if (status bad = check::check_route_inputs(inputs, options, tokens, experts, top_k); !bad.ok())
    return bad;
  if (status bad = check::check_route_outputs(out, inputs, options, tokens, experts, top_k);
      !bad.ok()) {
    return bad;
  }
  if (status bad = check::check_route_no_alias(in, out); !bad.ok()) return bad;
  return detail::route_backend<P>::run(
      on, detail::route_call<element_t<Logits>, P::memory>{in, out, work, options, inputs});
}

/// The same from the logits alone.
template <execution P, input<P, 2> Logits>
[[nodiscard]] status route(P const& on, Logits logits, routing<P::memory> const& out,
                           std::type_identity_t<arena<P::memory>> work,
                           route_options const& options = {}) noexcept {
  return route(on, logits, {}, out, work, options);
}

/// The logits' gradient from the gates' (and from the load's and z's, where a loss has them).
/// Shapes   logits [T,E] · chosen.expert [T,K] · d.gate [T,K], ... → d_logits [T,E], overwritten
/// Types    logits and d_logits float, bf16 or fp16; gradients float
/// Order    as route(): the same bits for any thread count and instruction set, batch-invariant
/// Aliasing d_logits may be logits (same type and strides); no other overlap
/// Errors   a sentence, before anything is written
/// Cost     reads T·E + 2·T·K, writes T·E. Exact for every option: renormalized gates of a softmax reach
///          the chosen logits only, raw ones all. Nothing for invalid tokens, masked (-Inf, NaN)
///          logits, empty slots, and the choice bias. Options and inputs must be those of route().
/// Source   docs/stages/route.md
template <execution P, input<P, 2> Logits, output<P, 2> DLogits>
[[nodiscard]] status route_backward(P const& on, Logits logits,
                                    std::type_identity_t<route_inputs<P::memory>> const& inputs,
                                    routing<P::memory> const& chosen,
                                    route_gradients<P::memory> const& d, DLogits d_logits,
                                    std::type_identity_t<arena<P::memory>> work,
                                    route_options const& options = {}) noexcept {
  auto const in = as_input<P, 2>(logits);
  auto const out = as_output<P, 2>(d_logits);
  offset_t const tokens = in.extent(0), experts = in.extent(1), top_k = chosen.expert.extent(1);
  if (status bad = check::policy(on); !bad.ok()) return bad;
  if (status bad = check::route_shapes<element_t<Logits>, P::memory>(in, chosen.expert, d.gate);
      !bad.ok()) {
    return bad;
  }
  if (status bad = check::route_rules(options, experts, top_k); !bad.ok()) return bad;
  if (status bad = check::check_route_inputs(inputs, options, tokens, experts, top_k); !bad.ok())
    return bad;
  if (status bad = check::route_gradients_given(d, out, in, chosen.expert); !bad.ok()) return bad;
  return detail::route_backward_backend<P>::run(
      on, detail::route_backward_call<element_t<Logits>, element_t<DLogits>, P::memory>{
              in, chosen.expert, d, out, work, options, inputs});
}

/// The same for a choice from the logits alone.
template <execution P, input<P, 2> Logits, output<P, 2> DLogits>
[[nodiscard]] status route_backward(P const& on, Logits logits, routing<P::memory> const& chosen,
                                    route_gradients<P::memory> const& d, DLogits d_logits,
                                    std::type_identity_t<arena<P::memory>> work,
                                    route_options const& options = {}) noexcept {
  return route_backward(on, logits, {}, chosen, d, d_logits, work, options);
}

}  // namespace shunt
