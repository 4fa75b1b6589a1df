#pragma once
/// Balancing without a loss: the bias that acts on the choice is moved once a step, from integer
/// counts that route() gathers over the step's micro-batches (route_options::accumulate) and that
/// the caller may add over ranks before. The bias gets no gradient.
#include <type_traits>

#include "shunt/backend/host/route/balance.hpp"
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/check.hpp"

namespace shunt {

/// b_e += step * sign(mean load - load_e); the loads are compared exactly.
/// Shapes   counts [E] · bias [E], in place
/// Types    counts index_t, bias float
/// Order    none: each expert alone
/// Aliasing none
/// Errors   a sentence, before anything is written
/// Cost     E
/// Source   Wang et al. 2024 (auxiliary-loss-free load balancing), DeepSeek-V3
template <execution P>
[[nodiscard]] status sign_step(P const& on,
                               std::type_identity_t<view<index_t const, 1, P::memory>> counts,
                               std::type_identity_t<view<float, 1, P::memory>> bias,
                               float step = 0.001f) noexcept {
  if (status bad =
          first_of(check::policy(on), check::finite("sign_step.step", step),
                   check::rows("sign_step.counts", counts),
                   check::extent("sign_step.bias", 0, bias.extent(0), counts.extent(0), "experts"),
                   check::rows("sign_step.bias", bias),
                   check::apart("sign_step.bias", bias, "counts", counts));
      !bad.ok()) {
    return bad;
  }
  return detail::route_balance_backend<P>::run(
      on, detail::sign_step_call<P::memory>{counts, bias, step});
}

/// Sets each bias to the value at which its expert would have been chosen by a share K / E of the
/// tokens, then takes the mean away. route() counted, for each token and expert, the bias that the
/// expert would have needed, cutoff - score, cutoff being the (K+1)-th best of score + bias; the
/// answer is the K/E quantile of those, interpolated inside its bin.
/// `bias` must be that which the histogram was gathered with: it gives the bins' range, from one
/// below its least to one above its largest finite value. Clear the histogram afterwards (a route()
/// without accumulate does).
/// Shapes   histogram [E,bins] · bias [E], in place
/// Types    histogram index_t, bias float
/// Order    counts are integers; the mean by 32 strided partial sums, then halving
/// Aliasing none
/// Errors   a sentence, before anything is written. An expert without entries keeps its bias.
/// Cost     E·bins
/// Source   Kimi-K3 technical report, 2.3.3 and appendix D (as described in TransformerEngine PR#3395)
template <execution P>
[[nodiscard]] status quantile_step(
    P const& on, std::type_identity_t<view<index_t const, 2, P::memory>> histogram,
    std::type_identity_t<view<float, 1, P::memory>> bias, index_t top_k) noexcept {
  if (status bad = first_of(
          check::policy(on), check::rows("quantile_step.histogram", histogram),
          check::extent("quantile_step.bias", 0, bias.extent(0), histogram.extent(0), "experts"),
          check::rows("quantile_step.bias", bias),
          check::between("quantile_step.top_k", top_k, 1, histogram.extent(0)),
          check::between("quantile_step.histogram: extent 1 (bins)", histogram.extent(1), 1,
                         1 << 24),
          check::apart("quantile_step.bias", bias, "histogram", histogram));
      !bad.ok()) {
    return bad;
  }
  return detail::route_balance_backend<P>::run(
      on, detail::quantile_step_call<P::memory>{histogram, bias, top_k});
}

}  // namespace shunt
