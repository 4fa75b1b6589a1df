// What a project that uses Shunt compiles: one layer of two experts, checked against its formula.
// Exits 0 where the numbers are right.
#include <cmath>
#include <cstdio>
#include <shunt/shunt.hpp>
#include <vector>

int main() {
  constexpr shunt::index_t T = 5, H = 6, I = 7, E = 2;
  auto const waves = [](std::size_t count, float step) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(step * static_cast<float>(i + 1));
    return values;
  };
  std::vector<float> const x = waves(T * H, 0.7f), gate = waves(E * H, 1.3f),
                           up = waves(E * 2 * I * H, 0.9f), down = waves(E * H * I, 0.4f);
  std::vector<float> y(T * H);
  shunt::moe_weights<float> const weights{
      .gate = shunt::view<float const, 2>(gate.data(), {{E, H}}),
      .up = shunt::view<float const, 3>(up.data(), {{E, 2 * I, H}}),
      .down = shunt::view<float const, 3>(down.data(), {{E, H, I}})};
  shunt::layer_options<> const options{.top_k = E};  // every expert, weighed by the softmax
  shunt::on_host const on{.threads = 2};
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, T, weights, options));
  shunt::status const done =
      shunt::moe_layer(on, shunt::view<float const, 2>(x.data(), {{T, H}}), weights,
                       shunt::view<float, 2>(y.data(), {{T, H}}), work, options);
  if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;

  auto const dot = [](float const* a, auto const* b, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return sum;
  };
  double worst = 0, largest = 0;
  for (int t = 0; t < T; ++t) {
    float const* const row = &x[static_cast<std::size_t>(t * H)];
    double const z0 = dot(&gate[0], row, H), z1 = dot(&gate[H], row, H);
    double want[H] = {};
    for (int e = 0; e < E; ++e) {
      double const share = 1 / (1 + std::exp(e == 0 ? z1 - z0 : z0 - z1));
      double hidden[I];
      for (int i = 0; i < I; ++i) {
        double const g = dot(&up[static_cast<std::size_t>((e * 2 * I + i) * H)], row, H);
        hidden[i] = g / (1 + std::exp(-g)) *
                    dot(&up[static_cast<std::size_t>((e * 2 * I + I + i) * H)], row, H);
      }
      for (int h = 0; h < H; ++h) {
        want[h] += share * dot(&down[static_cast<std::size_t>((e * H + h) * I)], hidden, I);
      }
    }
    for (int h = 0; h < H; ++h) {
      worst = std::fmax(worst, std::fabs(want[h] - double(y[static_cast<std::size_t>(t * H + h)])));
      largest = std::fmax(largest, std::fabs(want[h]));
    }
  }
  bool const ok = worst <= 1e-5 * largest && largest > 0.1;
  std::printf("shunt %d.%d.%d on %s: largest %.3f, off by %.1e: %s\n", SHUNT_VERSION / 10000,
              SHUNT_VERSION / 100 % 100, SHUNT_VERSION % 100,
              shunt::to_string(shunt::instructions_of(on)), largest, worst, ok ? "ok" : "wrong");
  return ok ? 0 : 1;
}
