// The weights of experts in five forms: plain, packed (the same bits), int8, fp8 and mxfp4; what each
// takes in memory and how far its output lies from the plain one.
//
// test:
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "shunt/moe_experts.hpp"
#include "shunt/quantize.hpp"
#include "support/numbers.hpp"

using example::numbers;
using shunt::index_t, shunt::view;

constexpr index_t T = 48, H = 128, I = 256, E = 8, K = 2;

/// y [T,H] with weights of any form.
template <class W> std::vector<float> output(shunt::moe_experts_weights<W> const& weights) {
  std::vector<float> const x = numbers(1, T * H, 1.0f), gates(T * K, 0.5f);
  std::vector<index_t> ids(T * K);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<index_t>(i * 5 % E);
  std::vector<float> y(T * H);
  shunt::moe_experts_options<> const options{};
  shunt::on_host const on;
  std::vector<std::byte> work(shunt::moe_experts_scratch_bytes<float>(on, T, K, weights, options));
  shunt::status const done =
      shunt::moe_experts(on, view(x.data(), T, H), view(ids.data(), T, K), view(gates.data(), T, K),
                         weights, view(y.data(), T, H), work, options);
  if (!done.ok()) std::fprintf(stderr, "%s\n", done.message()), std::exit(1);
  return y;
}

/// w [E,N,K] in memory of the form W, made once: pairs of gate and up rows where it has them.
template <class W> struct stored_weights {
  std::vector<W> memory;
  shunt::expert_matrix<W> matrix;

  stored_weights(shunt::expert_matrix<float> const& w, bool pairs) {
    auto const at = [&](W const* p) {
      return pairs ? shunt::expert_matrix<W>::packed(p, w.experts(), w.rows(), w.columns(),
                                                     shunt::pair_layout{})
                   : shunt::expert_matrix<W>::packed(p, w.experts(), w.rows(), w.columns());
    };
    memory.resize(static_cast<std::size_t>(at(nullptr).packed_elements()));
    shunt::on_host const on;
    auto const from = pairs ? w.in_pairs({}) : w;
    shunt::status done;
    if constexpr (std::same_as<W, float>) {
      done = pack_weights(on, from, memory);
    } else {
      done = quantize_weights(on, from, memory);
    }
    if (!done.ok()) std::fprintf(stderr, "%s\n", done.message()), std::exit(1);
    matrix = at(memory.data());
  }
};

template <class W>
double show(char const* name, shunt::moe_experts_weights<float> const& plain,
            std::vector<float> const& want) {
  stored_weights<W> const up(plain.up, true), down(plain.down, false);
  std::vector<float> const y =
      output(shunt::moe_experts_weights<W>{up.matrix, down.matrix, {}, {}});
  double worst = 0.0, peak = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    worst = std::max(worst, std::fabs(double(y[i]) - double(want[i])));
    peak = std::max(peak, std::fabs(double(want[i])));
  }
  std::printf("%-8s %8zu bytes   off by %.4f of the largest output\n", name,
              (up.memory.size() + down.memory.size()) * sizeof(W), worst / peak);
  return worst / peak;
}

int main() {
  std::vector<float> const up = numbers(3, E * 2 * I * H, 0.1f), down = numbers(4, E * H * I, 0.1f);
  shunt::moe_experts_weights<float> const plain{.up = view(up.data(), E, 2 * I, H),
                                                .down = view(down.data(), E, H, I)};
  std::vector<float> const want = output(plain);
  std::printf("%-8s %8zu bytes\n", "plain", (up.size() + down.size()) * sizeof(float));
  bool const good = show<float>("packed", plain, want) == 0.0 &&
                    show<shunt::int8_channel>("int8", plain, want) < 0.02 &&
                    show<shunt::fp8_block>("fp8", plain, want) < 0.1 &&
                    show<shunt::mxfp4>("mxfp4", plain, want) < 0.3;
  return good ? 0 : 1;
}
