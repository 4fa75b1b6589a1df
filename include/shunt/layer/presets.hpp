#pragma once
#include "shunt/layer/options.hpp"
#include "shunt/route/presets.hpp"

namespace shunt {

/// The options of a published layer: top_k, routing and activation; and, for a batch of `tokens`, what
/// depends on it: an expert's capacity, or how many tokens it chooses. A preset names its losses but not
/// their coefficients: these are left at 0.
///   auto options = layer_options_of(presets::mixtral_8x7b);
template <space S = space::host>
[[nodiscard]] constexpr layer_options<activation, S> layer_options_of(preset const& p,
                                                                      index_t tokens = 0) noexcept {
  layer_options<activation, S> o;
  o.top_k = p.sizes.top_k;
  o.route = p.route;
  o.act = p.activation;
  if (p.activation_limit > 0.0f) {
    float& limit = p.activation == activation_kind::swiglu_clamped ? o.act.b : o.act.a;
    limit = p.activation_limit;
  }
  if (p.capacity > 0.0f && tokens > 0) {
    shape sizes = p.sizes;
    sizes.tokens = tokens;
    index_t const rows = capacity_rows(sizes, static_cast<double>(p.capacity));
    (p.choice == choice_kind::expert_choice ? o.tokens_per_expert : o.capacity) = rows;
  }
  return o;
}

}  // namespace shunt
