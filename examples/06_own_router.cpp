// Experts for a choice that is your own: here the two keys with the largest cosine to each token.
//
// test:
#include <cmath>
#include <cstdio>
#include <vector>

#include "shunt/moe_experts.hpp"
#include "support/numbers.hpp"

using example::numbers;
using shunt::index_t, shunt::view;

/// ids and gates [T,2]: the two best keys of each token, gates the softmax over both cosines.
static void route(view<float const, 2> x, view<float const, 2> keys, view<index_t, 2> ids,
                  view<float, 2> gates) {
  for (index_t t = 0; t < x.extent(0); ++t) {
    float best[2] = {-2.0f, -2.0f};
    for (index_t e = 0; e < keys.extent(0); ++e) {
      float dot = 0.0f, xx = 0.0f, kk = 0.0f;
      for (index_t h = 0; h < x.extent(1); ++h) {
        dot += x(t, h) * keys(e, h);
        xx += x(t, h) * x(t, h);
        kk += keys(e, h) * keys(e, h);
      }
      float const cosine = dot / std::sqrt(xx * kk);
      if (cosine > best[0]) {
        best[1] = best[0], ids(t, 1) = ids(t, 0);
        best[0] = cosine, ids(t, 0) = e;
      } else if (cosine > best[1]) {
        best[1] = cosine, ids(t, 1) = e;
      }
    }
    gates(t, 0) = 1.0f / (1.0f + std::exp(best[1] - best[0]));
    gates(t, 1) = 1.0f - gates(t, 0);
  }
}

int main() {
  constexpr index_t T = 256, H = 128, I = 192, E = 8, K = 2;
  std::vector<float> const x = numbers(1, T * H, 1.0f), keys = numbers(2, E * H, 1.0f),
                           up = numbers(3, E * 2 * I * H, 0.1f), down = numbers(4, E * H * I, 0.1f);
  std::vector<index_t> ids(T * K);
  std::vector<float> gates(T * K), y(T * H);
  route(view(x.data(), T, H), view(keys.data(), E, H), view(ids.data(), T, K),
        view(gates.data(), T, K));

  shunt::moe_experts_weights<float> const weights{.up = view(up.data(), E, 2 * I, H),
                                                  .down = view(down.data(), E, H, I)};
  shunt::moe_experts_options<> const options{};
  shunt::on_host const on;
  std::vector<std::byte> work(shunt::moe_experts_scratch_bytes<float>(on, T, K, weights, options));
  shunt::status const done =
      shunt::moe_experts(on, view(x.data(), T, H), view(ids.data(), T, K), view(gates.data(), T, K),
                         weights, view(y.data(), T, H), work, options);

  if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;
  std::printf("token 0 goes to experts %d and %d, gates %.3f and %.3f\n", int(ids[0]), int(ids[1]),
              double(gates[0]), double(gates[1]));
  std::printf("y[0] = %.4f %.4f %.4f ...\n", double(y[0]), double(y[1]), double(y[2]));
  return 0;
}
