#pragma once
#include "shunt/layer/saved.hpp"
#include "shunt/route.hpp"
#include "shunt/stats.hpp"

namespace shunt {

/// What moe_layer writes in addition to y. Each member is optional.
///   moe_layer(on, x, weights, y, {.saved = &saved}, work, options)
template <storage T, space S = space::host> struct moe_outputs {
  /// For backward, from carve_moe_saved; null: inference. Its memory is written, not its views.
  moe_saved<T, S> const* saved = nullptr;
  view<float, 1, S> loss =
      {};  ///< [2] balance loss and z-loss, each where its coefficient is not 0
  /// What route() writes: counts, importance, tokens, histogram, recorded ids, report. `expert` and
  /// `gate` are ignored: the layer has its own; and `z` where there is a z-loss.
  routing<S> route = {};
  load_report<S> load = {};  ///< figures of the load that this call's plan puts on the experts
  plan_report<S> plan = {};  ///< wanted and kept slots, drops
};

}  // namespace shunt
