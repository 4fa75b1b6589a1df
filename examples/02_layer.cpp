// A mixture-of-experts layer: 256 tokens, each to 2 of 8 SwiGLU experts.
//
// test:
#include <cstdio>
#include <vector>

#include "shunt/layer.hpp"
#include "support/numbers.hpp"

using example::numbers;

int main() {
  constexpr shunt::index_t tokens = 256, hidden = 128, intermediate = 192, experts = 8;
  std::vector<float> const x = numbers(1, tokens * hidden, 1.0f);
  std::vector<float> const gate = numbers(2, experts * hidden, 0.2f);
  std::vector<float> const up = numbers(3, experts * 2 * intermediate * hidden, 0.1f);
  std::vector<float> const down = numbers(4, experts * hidden * intermediate, 0.1f);
  std::vector<float> y(x.size());

  // The layer in 20 lines. Views say where things lie; nothing is copied, nothing is owned.
  using matrix = shunt::view<float const, 2>;
  using matrices = shunt::view<float const, 3>;
  shunt::moe_weights<float> const weights{
      .gate = matrix(gate.data(), {{experts, hidden}}),
      .up = matrices(up.data(), {{experts, 2 * intermediate, hidden}}),  // gate half, linear half
      .down = matrices(down.data(), {{experts, hidden, intermediate}})};
  shunt::load_figures load;
  shunt::layer_options<> const options{.top_k = 2,
                                       .route = {.gates = shunt::gate_kind::renormalized}};
  shunt::on_host const on;  // all cores, the best instruction set
  std::vector<std::byte> scratch(shunt::moe_layer_scratch_bytes(on, tokens, weights, options));
  shunt::status const done =
      shunt::moe_layer(on, matrix(x.data(), {{tokens, hidden}}), weights,
                       shunt::view<float, 2>(y.data(), {{tokens, hidden}}),
                       {.load = {.figures = {&load, {{1}}}}}, scratch, options);

  if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;
  std::printf("y[0] = %.4f %.4f %.4f ...\n", double(y[0]), double(y[1]), double(y[2]));
  std::printf("%lld slots, utilization %.2f, entropy %.2f bits of 3\n",
              static_cast<long long>(load.slots), double(load.utilization), double(load.entropy));
  return 0;
}
