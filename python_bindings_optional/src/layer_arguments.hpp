#pragma once
/// What the layer's calls read from Python alike, in one process and across ranks.
#include <string>

#include "layer.hpp"
#include "policy.hpp"
#include "shunt/layer.hpp"

namespace bindings {

using options_type = shunt::layer_options<shunt::activation, S>;

[[nodiscard]] inline saved_key key_of(element type, shunt::detail::moe_sizes const& n,
                                      options_type const& o) {
  return {type,
          n.tokens,
          n.width,
          n.hidden,
          n.experts,
          n.local,
          n.top_k,
          n.up_rows,
          n.intermediate,
          n.shared_rows,
          n.shared,
          n.rows,
          n.tokens_per_expert,
          n.latent,
          n.shared_gated,
          o.memory == shunt::memory_mode::recompute,
          o.balance_loss != 0.0f,
          o.z_loss != 0.0f};
}

/// x as one of the weights' tokens; the weights where this backend can reach them.
[[nodiscard]] inline array tokens_of(nb::handle x, char const* name, weights const& w) {
  if (w.where() != here) {
    value_error(here == place::host
                    ? "the weights lie in device memory; they must lie in host memory"
                    : "the weights lie in host memory; they must lie in device memory");
  }
  if (here == place::cuda && w.device() >= 0 && w.device() != called().device) {
    value_error("the weights lie on CUDA device " + std::to_string(w.device()) +
                "; they must lie on device " + std::to_string(called().device) +
                ", as the call does");
  }
  return {x, name, 2, {w.type()}, access::read, here};
}

template <class F> void with_types(weights const& w, F&& f) {
  with_storage(w.type(), [&]<class T>() {
    if constexpr (std::is_same_v<T, float>) {
      f.template operator()<float, float>();
    } else if (w.wide_gate()) {
      f.template operator()<T, float>();
    } else {
      f.template operator()<T, T>();
    }
  });
}

/// Where the weights' gradients go: a tuple in the order of shunt.Gradients' fields.
struct gradient_arrays {
  array gate, gate_bias;
  matrices up, down;
  array up_bias, down_bias;
  matrices shared_up, shared_down;
  array shared_gate, latent_down, latent_up;

  gradient_arrays(nb::handle given, weights const& w) {
    if (given.is_none()) return;
    if (!nb::isinstance<nb::tuple>(given) || nb::len(given) != 11) {
      throw nb::type_error("gradients must be a shunt.Gradients");
    }
    auto const plain = [&](int at, char const* name, int rank) {
      return optional(given[at], name, rank, {element::f32}, access::write, here);
    };
    auto const stack = [&](int at, char const* name, matrices const& of) {
      matrices m(given[at], name, {element::f32}, access::write, here, nb::none());
      m.set_pairs(of.pairs());  // the rows lie as the weights' do
      return m;
    };
    gate = plain(0, "gradients.gate", 2);
    gate_bias = plain(1, "gradients.gate_bias", 1);
    up = stack(2, "gradients.up", w.up);
    down = stack(3, "gradients.down", w.down);
    up_bias = plain(4, "gradients.up_bias", 2);
    down_bias = plain(5, "gradients.down_bias", 2);
    shared_up = stack(6, "gradients.shared_up", w.shared_up);
    shared_down = stack(7, "gradients.shared_down", w.shared_down);
    shared_gate = plain(8, "gradients.shared_gate", 1);
    latent_down = plain(9, "gradients.latent_down", 2);
    latent_up = plain(10, "gradients.latent_up", 2);
  }

  [[nodiscard]] shunt::moe_gradients<S> views() const noexcept {
    return {
        gate.as<float, 2, S>(),        gate_bias.as<float, 1, S>(), up.as<float, S>(),
        down.as<float, S>(),           up_bias.as<float, 2, S>(),   down_bias.as<float, 2, S>(),
        shared_up.as<float, S>(),      shared_down.as<float, S>(),  shared_gate.as<float, 1, S>(),
        latent_down.as<float, 2, S>(), latent_up.as<float, 2, S>()};
  }
  void written_in(apart& arrays) const {
    arrays.writes(gate, gate_bias, up_bias, down_bias, shared_gate, latent_down, latent_up);
    for (matrices const* m : {&up, &down, &shared_up, &shared_down}) {
      m->each_array([&](array const& a) { arrays.writes(a); });
    }
  }
};

}  // namespace bindings
