// A layer that learns: gradient descent on the output of another layer. All memory is made once.
//
// test:
#include <cstdio>
#include <vector>

#include "shunt/layer.hpp"
#include "support/numbers.hpp"

using example::numbers;
using shunt::index_t, shunt::view;

constexpr index_t T = 128, H = 16, I = 24, E = 4;

/// The three weights of a layer, or their gradients.
struct parameters {
  std::vector<float> gate, up, down;

  explicit parameters(std::uint64_t seed, float scale = 0.4f)
      : gate(numbers(seed, E * H, scale)),
        up(numbers(seed + 1, E * 2 * I * H, scale)),
        down(numbers(seed + 2, E * H * I, scale)) {}
  shunt::moe_weights<float> weights() const {
    return {.gate = view(gate.data(), E, H),
            .up = view(up.data(), E, 2 * I, H),
            .down = view(down.data(), E, H, I)};
  }
  shunt::moe_gradients<> gradients() {
    return {.gate = view(gate.data(), E, H),
            .up = view(up.data(), E, 2 * I, H),
            .down = view(down.data(), E, H, I)};
  }
  void step(parameters const& d, float rate) {
    auto const move = [&](std::vector<float>& w, std::vector<float> const& by) {
      for (std::size_t i = 0; i < w.size(); ++i) w[i] -= rate * by[i];
    };
    move(gate, d.gate), move(up, d.up), move(down, d.down);
  }
};

static void must(shunt::status const& done) {
  if (!done.ok()) std::fprintf(stderr, "%s\n", done.message()), std::exit(1);
}

int main() {
  parameters const teacher(10);
  parameters student(20), d(30, 0.0f);
  std::vector<float> const x = numbers(1, T * H, 1.0f);
  std::vector<float> target(T * H), y(T * H), d_y(T * H), d_x(T * H);
  shunt::layer_options<> const options{.top_k = 2,
                                       .route = {.gates = shunt::gate_kind::renormalized}};
  shunt::on_host const on;
  auto const w = student.weights();
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, T, w, options)),
      work_backward(shunt::moe_layer_backward_scratch_bytes(on, T, w, options)),
      kept(shunt::moe_saved_bytes(T, w, options));
  shunt::arena<> from(kept);
  auto const saved = shunt::carve_moe_saved(from, T, w, options);
  auto const in = view(x.data(), T, H);
  must(shunt::moe_layer(on, in, teacher.weights(), view(target.data(), T, H), work, options));

  double first = 0.0, loss = 0.0;
  for (int step = 0; step <= 300; ++step) {
    must(shunt::moe_layer(on, in, w, view(y.data(), T, H), {.saved = &saved}, work, options));
    loss = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      float const off = y[i] - target[i];
      loss += double(off) * double(off) / double(y.size());
      d_y[i] = 2.0f * off / float(y.size());
    }
    if (step == 0) first = loss;
    if (step % 100 == 0) std::printf("step %3d   loss %.5f\n", step, loss);
    must(shunt::moe_layer_backward(on, in, w, view(std::as_const(d_y).data(), T, H), saved,
                                   view(d_x.data(), T, H), d.gradients(), work_backward, options));
    student.step(d, 3.0f);
  }
  return loss < 0.5 * first ? 0 : 1;
}
