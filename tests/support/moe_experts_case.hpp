#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "shunt/moe_experts.hpp"
#include "shunt/quantize.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/oracle_layer.hpp"
#include "support/packed_formats.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

/// Experts for given ids and gates: cases, their numbers, the formulas in double, one run of the library.
namespace shunt::test {

struct experts_formula {
  char const* name = "";
  int tokens = 6, hidden = 9, intermediate = 7, experts = 5, top_k = 2;
  activation_kind activation = activation_kind::swiglu;
  bool biases = true, gate_on_input = false;
  std::vector<std::uint8_t> valid = {};
  std::vector<int> without_expert = {};  // tokens whose ids are all −1

  [[nodiscard]] shunt::activation act() const { return activation; }
  [[nodiscard]] int up_rows() const { return (is_gated(activation) ? 2 : 1) * intermediate; }
};

inline std::vector<experts_formula> experts_formulas() {
  return {
      {.name = "swiglu with biases"},
      {.name = "gelu", .intermediate = 18, .activation = activation_kind::gelu, .biases = false},
      {.name = "gate on the input",
       .tokens = 19,
       .hidden = 33,
       .top_k = 1,
       .biases = false,
       .gate_on_input = true},
      {.name = "some without an expert", .tokens = 11, .top_k = 3, .without_expert = {0, 4}},
      {.name = "padding", .tokens = 4, .hidden = 16, .valid = {1, 0, 1, 1}}};
}

/// The packed form of w, made by pack(w, bytes) in `bytes`.
template <class F, class T, class Pack>
expert_matrix<F> packed_by(expert_matrix<T> const& w, guarded<F>& bytes, Pack const& pack) {
  auto const E = static_cast<int>(w.experts()), N = static_cast<int>(w.rows()),
             K = static_cast<int>(w.columns());
  // Not a std::optional: g++ 12 takes its value for uninitialized when all of this is inlined.
  auto const at = [&](F const* to) {
    return w.has_pairs() ? expert_matrix<F>::packed(to, E, N, K, w.pairs())
                         : expert_matrix<F>::packed(to, E, N, K);
  };
  bytes = guarded<F>(static_cast<std::size_t>(at(nullptr).packed_elements()));
  fine(pack(w, bytes));
  return at(bytes.data());
}

template <class T> struct experts_numbers {
  experts_formula f;
  guarded<T> x, up, down, up_bias, down_bias, d_y;
  guarded<float> gate;
  guarded<index_t> expert;
  guarded<std::uint8_t> valid;

  explicit experts_numbers(experts_formula const& formula) : f(formula) {
    std::uint64_t seed = 11;
    auto const some = [&](int count, double scale) {
      return guarded<T>(normal_values<T>(static_cast<std::size_t>(count), ++seed * 7919, scale));
    };
    auto const fan = [](int n) { return 1.0 / std::sqrt(static_cast<double>(n)); };
    x = some(f.tokens * f.hidden, 1.0);
    d_y = some(f.tokens * f.hidden, 1.0);
    up = some(f.experts * f.up_rows() * f.hidden, 1.5 * fan(f.hidden));
    down = some(f.experts * f.hidden * f.intermediate, fan(f.intermediate));
    if (f.biases) {
      up_bias = some(f.experts * f.up_rows(), 0.5);
      down_bias = some(f.experts * f.hidden, 0.5);
    }
    auto const slots = static_cast<std::size_t>(f.tokens * f.top_k);
    gate = guarded<float>(normal_values<float>(slots, ++seed, 0.7));
    expert = guarded<index_t>(chosen_experts(
        {.tokens = f.tokens, .experts = f.experts, .top_k = f.top_k}, skew::zipf, ++seed));
    for (int t : f.without_expert) {
      for (int k = 0; k < f.top_k; ++k) expert[static_cast<std::size_t>(t * f.top_k + k)] = -1;
    }
    valid = guarded<std::uint8_t>(f.valid);
  }

  /// Those of `count` experts from `first` on (0: all).
  [[nodiscard]] moe_experts_weights<T> weights(int first = 0, int count = 0) const {
    int const all = count > 0 ? count : f.experts, N = f.up_rows();
    auto const stack = [&](guarded<T> const& of, int rows, int columns) {
      return view<T const, 3>(of.data() + first * rows * columns, {{all, rows, columns}});
    };
    moe_experts_weights<T> w;
    w.up = stack(up, N, f.hidden);
    w.down = stack(down, f.hidden, f.intermediate);
    if (is_gated(f.activation)) w.up = w.up.in_pairs({});
    if (!f.biases) return w;
    w.up_bias = view<T const, 2>(up_bias.data() + first * N, {{all, N}});
    w.down_bias = view<T const, 2>(down_bias.data() + first * f.hidden, {{all, f.hidden}});
    return w;
  }
  [[nodiscard]] moe_experts_options<activation> options() const {
    moe_experts_options<activation> o{.act = f.act(), .gate_on_input = f.gate_on_input};
    if (!f.valid.empty()) o.valid = valid.as(f.tokens);
    return o;
  }
  template <class O> [[nodiscard]] std::size_t scratch_bytes(O const& o) const {
    return moe_experts_scratch_bytes<T>(on_host{}, f.tokens, f.top_k, weights(), o);
  }

  /// y of an inference, onto `before`.
  template <class W>
  [[nodiscard]] guarded<T> infer(on_host const& on, moe_experts_weights<W> const& w,
                                 moe_experts_options<activation> const& o, float before = 0.0f,
                                 moe_experts_outputs<T> const& outputs = {}) const {
    guarded<T> y(std::vector<T>(x.size(), from_float<T>(before)));
    guarded<std::byte> work(moe_experts_scratch_bytes<T>(on, f.tokens, f.top_k, w, o));
    status const done = moe_experts(on, x.as(f.tokens, f.hidden), expert.as(f.tokens, f.top_k),
                                    gate.as(f.tokens, f.top_k), w, y.as(f.tokens, f.hidden),
                                    outputs, arena<>(work), o);
    EXPECT_TRUE(done.ok()) << done.message();
    return y;
  }
  template <class F>
  [[nodiscard]] guarded<T> infer_quantized(moe_experts_options<activation> const& o) const {
    auto const plain = weights();
    auto const quantize = [](expert_matrix<T> const& w, guarded<F>& bytes) {
      return packed_by(w, bytes, [](auto const& from, auto& to) {
        return quantize_weights(on_host{}, from, to);
      });
    };
    guarded<F> up_bytes, down_bytes;
    moe_experts_weights<F> w;
    w.up = quantize(plain.up, up_bytes);
    w.down = quantize(plain.down, down_bytes);
    return infer(on_host{}, w, o);
  }
};

/// y and the gradients of sum(d_y * y), by the tape.
struct experts_expected {
  std::vector<expectation> y, x, gate, up, down, up_bias, down_bias;
};
template <class T> experts_expected expected_of(experts_numbers<T> const& in) {
  experts_formula const& f = in.f;
  layer_formula mlp;  // what one expert is
  mlp.activation = f.activation;
  tape& way = tape::current();
  way.clear();
  auto const leaves = [](auto const& from) {
    std::vector<var> to;
    for (double v : in_double(from)) to.push_back(var::leaf(v));
    return to;
  };
  std::vector<var> const x = leaves(in.x), gate = leaves(in.gate), up = leaves(in.up),
                         down = leaves(in.down), up_bias = leaves(in.up_bias),
                         down_bias = leaves(in.down_bias);
  std::vector<var> y;
  for (int t = 0; t < f.tokens; ++t) {
    std::vector<var> sum(static_cast<std::size_t>(f.hidden), var(0.0));
    bool const counts = f.valid.empty() || f.valid[static_cast<std::size_t>(t)] != 0;
    for (int k = 0; counts && k < f.top_k; ++k) {
      auto const slot = static_cast<std::size_t>(t * f.top_k + k);
      if (in.expert[slot] < 0) continue;
      std::vector<var> row(x.begin() + t * f.hidden, x.begin() + (t + 1) * f.hidden);
      if (f.gate_on_input) {
        for (var& v : row) v = gate[slot] * v;
      }
      auto const out = layer_math::mlp(mlp, up, down, up_bias, down_bias, in.expert[slot],
                                       f.intermediate, f.hidden, row);
      for (std::size_t h = 0; h < sum.size(); ++h) {
        sum[h] = sum[h] + (f.gate_on_input ? out[h] : gate[slot] * out[h]);
      }
    }
    y.insert(y.end(), sum.begin(), sum.end());
  }
  way.start();
  auto const d_y = in_double(in.d_y);
  experts_expected r;
  for (std::size_t i = 0; i < y.size(); ++i) {
    r.y.push_back({y[i].v, y[i].m});
    if (y[i].at >= 0) way.seed(y[i].at, d_y[i]);
  }
  way.run();
  auto const back = [&](std::vector<var> const& from, std::vector<expectation>& to) {
    for (var const& v : from) to.push_back(way.gradient(v.at));
  };
  back(x, r.x), back(gate, r.gate), back(up, r.up), back(down, r.down);
  back(up_bias, r.up_bias), back(down_bias, r.down_bias);
  return r;
}

/// Forward and, where asked, backward, in memory that starts as NaN, or as `before` in the weights'
/// gradients, with exactly the bytes that the library asks for.
template <class T> struct experts_run {
  guarded<T> y;
  guarded<float> d_x, d_gate, d_up, d_down, d_up_bias, d_down_bias;
  status forward{}, backward{};

  experts_run(on_host const& on, experts_numbers<T> const& in,
              moe_experts_options<activation> const& o, bool train = true, float before = -1.0f)
      : y(in.x.size()), d_x(in.x.size()), d_gate(in.gate.size()) {
    experts_formula const& f = in.f;
    auto const like = [&](auto const& b) {
      return before < 0.0f ? guarded<float>(b.size())
                           : guarded<float>(std::vector<float>(b.size(), before));
    };
    d_up = like(in.up), d_down = like(in.down);
    d_up_bias = like(in.up_bias), d_down_bias = like(in.down_bias);
    auto const w = in.weights();
    if (!train) {
      y = in.infer(on, w, o);
      return;
    }
    auto const x = in.x.as(f.tokens, f.hidden);
    auto const gate = in.gate.as(f.tokens, f.top_k);
    guarded<std::byte> kept(moe_experts_saved_bytes(f.tokens, f.top_k, w, o));
    arena<> from(kept);
    auto const saved = carve_moe_experts_saved(from, f.tokens, f.top_k, w, o);
    guarded<std::byte> work(moe_experts_scratch_bytes<T>(on, f.tokens, f.top_k, w, o, true));
    forward = moe_experts(on, x, in.expert.as(f.tokens, f.top_k), gate, w, y.as(f.tokens, f.hidden),
                          {.saved = &saved}, arena<>(work), o);
    if (!forward.ok()) return;
    work = guarded<std::byte>(moe_experts_backward_scratch_bytes(on, f.tokens, f.top_k, w, o));
    moe_experts_gradients<> g;
    g.gate = d_gate.as(f.tokens, f.top_k);
    g.up = d_up.as(f.experts, f.up_rows(), f.hidden);
    if (is_gated(f.activation)) g.up = g.up.in_pairs({});
    g.down = d_down.as(f.experts, f.hidden, f.intermediate);
    if (f.biases) {
      g.up_bias = d_up_bias.as(f.experts, f.up_rows());
      g.down_bias = d_down_bias.as(f.experts, f.hidden);
    }
    backward = moe_experts_backward(on, x, gate, w, in.d_y.as(f.tokens, f.hidden), saved,
                                    d_x.as(f.tokens, f.hidden), g, arena<>(work), o);
  }
};

}  // namespace shunt::test
