// An activation of your own in the layer: here softsign(gate) · up, with its two derivatives.
//
// test:
#include <cmath>
#include <cstdio>
#include <vector>

#include "shunt/layer.hpp"
#include "support/numbers.hpp"

using example::numbers;
using shunt::index_t, shunt::view;

/// gate / (1 + |gate|) · up. math::fma and math::product keep its bits equal on every instruction set.
struct softsign_glu {
  static constexpr bool gated = true;
  SHUNT_HD float value(float gate, float up) const noexcept { return slopes(gate, up).value; }
  SHUNT_HD shunt::slopes_of_pair slopes(float gate, float up) const noexcept {
    float const inverse = 1.0f / (1.0f + (gate < 0.0f ? -gate : gate));
    float const soft = shunt::math::product(gate, inverse);
    return {.value = shunt::math::product(soft, up),
            .gate = shunt::math::product(shunt::math::product(inverse, inverse), up),
            .up = soft};
  }
};

int main() {
  // The derivatives, against differences of the value.
  softsign_glu const act;
  float const gate_at = 0.7f, up_at = -1.3f, step = 1e-2f;
  float const by_gate =
      (act.value(gate_at + step, up_at) - act.value(gate_at - step, up_at)) / (2 * step);
  if (std::fabs(by_gate - act.slopes(gate_at, up_at).gate) > 1e-3f) {
    return std::fprintf(stderr, "the derivative is wrong\n"), 1;
  }

  constexpr index_t T = 64, H = 32, I = 48, E = 4;
  std::vector<float> const x = numbers(1, T * H, 1.0f), gate = numbers(2, E * H, 0.2f),
                           up = numbers(3, E * 2 * I * H, 0.1f), down = numbers(4, E * H * I, 0.1f);
  std::vector<float> y(T * H);
  shunt::moe_weights<float> const weights{.gate = view(gate.data(), E, H),
                                          .up = view(up.data(), E, 2 * I, H),
                                          .down = view(down.data(), E, H, I)};
  shunt::layer_options<softsign_glu> const options{.top_k = 2};
  shunt::on_host const on;
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, T, weights, options));
  shunt::status const done =
      shunt::moe_layer(on, view(x.data(), T, H), weights, view(y.data(), T, H), work, options);
  if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;
  std::printf("y[0] = %.5f %.5f %.5f ...\n", double(y[0]), double(y[1]), double(y[2]));
  return 0;
}
