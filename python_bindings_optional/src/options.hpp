#pragma once
/// Options as Python gives them: numbers and names, checked once, when they are made.
#include <nanobind/nanobind.h>

#include <string_view>

#include "shunt/layer/options.hpp"

namespace bindings {

/// layer_options without the arrays of a call.
struct layer_settings {
  shunt::layer_options<shunt::activation> options;

  /// The same for arrays in memory S.
  template <shunt::space S>
  [[nodiscard]] shunt::layer_options<shunt::activation, S> of() const noexcept {
    shunt::layer_options<shunt::activation, S> o;
    o.top_k = options.top_k;
    o.tokens_per_expert = options.tokens_per_expert;
    o.route = options.route;
    o.act = options.act;
    o.capacity = options.capacity;
    o.drop = options.drop;
    o.first_expert = options.first_expert;
    o.zero_experts_here = options.zero_experts_here;
    o.add_to_y = options.add_to_y;
    o.memory = options.memory;
    o.accumulate = options.accumulate;
    o.balance_loss = options.balance_loss;
    o.z_loss = options.z_loss;
    return o;
  }
};

/// "swiglu", or a Python activation(kind, a, b).
[[nodiscard]] shunt::activation activation_of(nanobind::handle act);

[[nodiscard]] shunt::drop_policy drop_of(char const* what, std::string_view name);

void bind_options(nanobind::module_& m);

}  // namespace bindings
