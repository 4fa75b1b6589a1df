// A transformer block whose feed-forward is a mixture of experts: forward, backward, and where the
// time went.
//
// test:
#include <cstdio>
#include <vector>

#include "shunt/nn/block.hpp"
#include "shunt/nn/stage_clock.hpp"
#include "support/numbers.hpp"

namespace nn = shunt::nn;
using example::numbers;

static int failed(shunt::status const& s) { return std::fprintf(stderr, "%s\n", s.message()), 1; }

// ½·|y|²
static double loss(std::vector<float> const& y) {
  double sum = 0;
  for (float v : y) sum += 0.5 * double(v) * double(v);
  return sum;
}

// x becomes x - step · d_x; returns |d_x|².
static double take_step(double step, std::vector<float> const& d_x, std::vector<float>& x) {
  double slope = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    slope += double(d_x[i]) * double(d_x[i]);
    x[i] -= static_cast<float>(step) * d_x[i];
  }
  return slope;
}

static void print(nn::stage_clock const& clock) {
  for (auto const& stage : clock) {
    std::printf("%-18s %8.3f ms\n", stage.name, 1e3 * stage.seconds);
  }
}

// Where the tokens stand: cosines and sines, filled once.
struct rotary_memory {
  std::vector<float> cosine, sine;
  nn::rotary_table<> table;

  rotary_memory(shunt::index_t length, shunt::index_t head)
      : cosine(static_cast<std::size_t>(length * head / 2)),
        sine(cosine.size()),
        table{{cosine.data(), {{length, head / 2}}}, {sine.data(), {{length, head / 2}}}} {}
};

int main() {
  // Two sequences of 64 tokens; 4 heads of 16 share 2 key/value heads; 8 experts, 2 for each token.
  constexpr shunt::index_t batch = 2, length = 64, width = 64, heads = 4, kv_heads = 2, head = 16;
  constexpr shunt::index_t experts = 8, intermediate = 96, rows = (heads + 2 * kv_heads) * head;
  using matrix = shunt::view<float const, 2>;
  using matrices = shunt::view<float const, 3>;

  std::vector<float> const ones(width, 1.0f),
      qkv = numbers(1, rows * width, 0.2f), out = numbers(2, width * width, 0.2f),
      gate = numbers(3, experts * width, 0.2f),
      up = numbers(4, experts * 2 * intermediate * width, 0.2f),
      down = numbers(5, experts * width * intermediate, 0.2f);
  nn::block_weights<float> const weights{
      .attention_norm = ones,
      .qkv = matrix(qkv.data(), {{rows, width}}),
      .out = matrix(out.data(), {{width, width}}),
      .feed_norm = ones,
      .experts = {.gate = matrix(gate.data(), {{experts, width}}),
                  .gate_bias = {},
                  .choice_bias = {},
                  .up = matrices(up.data(), {{experts, 2 * intermediate, width}}),
                  .down = matrices(down.data(), {{experts, width, intermediate}})}};

  nn::stage_clock clock;
  nn::block_options<> options{.heads = heads, .kv_heads = kv_heads};
  options.layer.top_k = 2;
  options.layer.route.gates = shunt::gate_kind::renormalized;
  options.hook = clock.hook();

  rotary_memory const rotary(length, head);
  nn::rotary_table<> const& table = rotary.table;
  shunt::on_host const on;
  if (auto s = nn::rotary_fill(on, table); !s.ok()) return failed(s);

  // What backward needs is kept in the caller's memory; scratch is the caller's too.
  std::vector<std::byte> kept(nn::block_saved_bytes(batch, length, weights, options));
  std::vector<std::byte> work(nn::block_scratch_bytes(on, batch, length, weights, options));
  shunt::arena<> memory(kept);
  auto const saved = nn::carve_block_saved(memory, batch, length, weights, options);

  std::vector<float> x = numbers(6, batch * length * width, 1.0f), y(x.size());
  auto const shaped = [](auto& v) {
    return shunt::view<float, 3>(v.data(), {{batch, length, width}});
  };
  clock.start();
  if (auto s = nn::block(on, shaped(x), weights, table, shaped(y), saved, work, options); !s.ok()) {
    return failed(s);
  }
  std::printf("y[0] = %.4f %.4f %.4f ...\n", double(y[0]), double(y[1]), double(y[2]));

  // Backward from the loss ½·|y|², whose gradient to y is y.
  std::vector<float> d_x(x.size()), d_norms(2 * width), d_qkv(qkv.size()), d_out(out.size());
  std::vector<float> d_gate(gate.size()), d_up(up.size()), d_down(down.size());
  nn::block_gradients<> gradients{.attention_norm = {d_norms.data(), {{width}}},
                                  .qkv = {d_qkv.data(), {{rows, width}}},
                                  .out = {d_out.data(), {{width, width}}},
                                  .feed_norm = {d_norms.data() + width, {{width}}}};
  gradients.experts.gate = {d_gate.data(), {{experts, width}}};
  gradients.experts.up = shunt::view<float, 3>(d_up.data(), {{experts, 2 * intermediate, width}});
  gradients.experts.down = shunt::view<float, 3>(d_down.data(), {{experts, width, intermediate}});
  work.resize(nn::block_backward_scratch_bytes(on, batch, length, weights, options));
  if (auto s = nn::block_backward(on, shaped(x), weights, table, saved, shaped(y), shaped(d_x),
                                  gradients, work, options);
      !s.ok()) {
    return failed(s);
  }

  // Is it the gradient? A small step along it must change the loss by its squared length.
  double const before = loss(y), step = 1e-3, slope = take_step(step, d_x, x);
  work.resize(nn::block_scratch_bytes(on, batch, length, weights, options));
  if (auto s = nn::block(on, shaped(x), weights, table, shaped(y), saved, work, options); !s.ok()) {
    return failed(s);
  }
  double const fell = (before - loss(y)) / step;
  std::printf("the loss falls by %.1f per unit step; the gradient says %.1f\n", fell, slope);
  print(clock);
  return fell > 0.9 * slope && fell < 1.1 * slope ? 0 : 1;
}
