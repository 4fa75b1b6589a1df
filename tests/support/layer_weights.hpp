#pragma once
#include "shunt/layer.hpp"

namespace shunt::test {

/// The layer's weights, with those of the experts of another type.
template <class W, class T, class G, class V>
[[nodiscard]] moe_weights<T, G, space::host, W> with_experts(
    moe_weights<T, G, space::host, V> const& w, expert_matrix<W> const& up,
    expert_matrix<W> const& down, expert_matrix<W> const& shared_up,
    expert_matrix<W> const& shared_down) {
  return {.gate = w.gate,
          .gate_bias = w.gate_bias,
          .choice_bias = w.choice_bias,
          .up = up,
          .down = down,
          .up_bias = w.up_bias,
          .down_bias = w.down_bias,
          .shared_up = shared_up,
          .shared_down = shared_down,
          .shared_gate = w.shared_gate,
          .latent_down = w.latent_down,
          .latent_up = w.latent_up};
}

}  // namespace shunt::test
