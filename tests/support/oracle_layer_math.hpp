#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "shunt/core/activation_kind.hpp"
#include "shunt/route/options.hpp"
#include "support/tape.hpp"

/// What a MoE layer is by the formulas of the published families, and the parts of one token's way through it.
/// It shares names (enumerations) with the library and no code.
namespace shunt::test {

/// What the layer is, beside its numbers.
struct layer_formula {
  int tokens = 0, width = 0, hidden = 0, intermediate = 0, experts = 0, top_k = 0;  // T Hm H I E K
  int zero_experts = 0;                                                             // the last of E
  int shared = 0;                                                                   // Is; 0: none
  bool latent = false, shared_gated = false, gate_bias = false, biases = false;
  activation_kind activation = activation_kind::swiglu;
  double limit = 1.25;    // of the clamped ones: low, so that it is met
  bool up_first = false;  // the linear half stands before the gate half ...
  int interleave = 0;     // ... 0: in halves; b: alternating in blocks of b
  score_kind score = score_kind::softmax;
  gate_kind gates = gate_kind::raw;
  double scale = 1.0, epsilon = 0.0;
  bool gate_on_input = false;
  double balance = 0.0, z = 0.0;         // coefficients of the losses
  std::vector<std::uint8_t> valid = {};  // empty: all
  std::vector<index_t> chosen = {};      // [T,K] what the gates are computed from; -1: none
  std::vector<index_t> kept = {};        // [T,K] where rows exist; -1: dropped
  std::vector<double> slot_weight = {};  // [T,K] instead of gates from scores, where given

  [[nodiscard]] int halves() const { return is_gated(activation) ? 2 : 1; }
  [[nodiscard]] int local() const { return experts - zero_experts; }
  [[nodiscard]] bool counts(int t) const {
    return valid.empty() || valid[static_cast<std::size_t>(t)] != 0;
  }
  /// Where the gate (half 0) and the linear (half 1) value of column i stand among `wide` of each.
  [[nodiscard]] int column(int half, int i, int wide) const {
    int const order = up_first ? 1 - half : half;
    if (interleave == 0) return order * wide + i;
    int const before = i / interleave * interleave;  // the last block may be shorter
    return 2 * before + order * std::min(interleave, wide - before) + i % interleave;
  }
};

/// The numbers of a layer, each a row-major array.
template <class S> struct layer_numbers {
  std::vector<S> x, gate, gate_bias, up, down, up_bias, down_bias;
  std::vector<S> shared_up, shared_down, shared_gate, latent_down, latent_up;

  /// Calls f on each array of this and of the others, in one order.
  template <class F, class... More> void each(F f, More&... more) {
    f(x, more.x...);
    f(gate, more.gate...);
    f(gate_bias, more.gate_bias...);
    f(up, more.up...);
    f(down, more.down...);
    f(up_bias, more.up_bias...);
    f(down_bias, more.down_bias...);
    f(shared_up, more.shared_up...);
    f(shared_down, more.shared_down...);
    f(shared_gate, more.shared_gate...);
    f(latent_down, more.latent_down...);
    f(latent_up, more.latent_up...);
  }
};

namespace layer_math {
using std::exp, std::log, std::log1p, std::sqrt, std::tanh, std::erf;

template <class S> S sigmoid(S const& x) { return S(1.0) / (S(1.0) + exp(S(0.0) - x)); }
template <class S> S gelu(S const& x) {
  return S(0.5) * x * (S(1.0) + erf(x * S(1.0 / std::numbers::sqrt2)));
}

/// One activated value; u is unused where there is no linear half.
template <class S> S activate(activation_kind kind, double limit, S const& g, S const& u) {
  switch (kind) {
    case activation_kind::identity: return g;
    case activation_kind::relu: return at_least(g, 0.0);
    case activation_kind::relu2: return at_least(g, 0.0) * at_least(g, 0.0);
    case activation_kind::gelu: return gelu(g);
    case activation_kind::gelu_tanh: {
      S const inner = S(std::sqrt(2.0 / std::numbers::pi)) * (g + S(0.044715) * g * g * g);
      return S(0.5) * g * (S(1.0) + tanh(inner));
    }
    case activation_kind::swiglu: return g * sigmoid(g) * u;
    case activation_kind::geglu: return gelu(g) * u;
    case activation_kind::swiglu_clamped: {
      S const a = at_most(g, limit), b = at_least(at_most(u, limit), -limit);
      return a * sigmoid(S(1.702) * a) * (b + S(1.0));
    }
    case activation_kind::swiglu_capped: {
      S const a = at_most(g, limit), b = at_least(at_most(u, limit), -limit);
      return a * sigmoid(a) * b;
    }
    case activation_kind::situ_glu:
      return S(4.0) * tanh(g * S(0.25)) * sigmoid(g) * (S(25.0) * tanh(u * S(1.0 / 25.0)));
  }
  return g;
}

template <class S> S dot(std::vector<S> const& m, std::size_t row, std::vector<S> const& v) {
  S sum(0.0);
  for (std::size_t i = 0; i < v.size(); ++i) sum = sum + m[row * v.size() + i] * v[i];
  return sum;
}

/// down · act(up · x + b1) + b2, of matrix `e` of a stack.
template <class S>
std::vector<S> mlp(layer_formula const& f, std::vector<S> const& up, std::vector<S> const& down,
                   std::vector<S> const& up_bias, std::vector<S> const& down_bias, int e, int wide,
                   int out, std::vector<S> const& x) {
  auto const E = static_cast<std::size_t>(e);
  int const rows = f.halves() * wide;
  std::vector<S> pre, act, y;
  for (int n = 0; n < rows; ++n) {
    std::size_t const row = E * static_cast<std::size_t>(rows) + static_cast<std::size_t>(n);
    S const z = dot(up, row, x);
    pre.push_back(up_bias.empty() ? z : z + up_bias[row]);
  }
  for (int i = 0; i < wide; ++i) {
    if (f.halves() == 1) {
      act.push_back(activate(f.activation, f.limit, pre[static_cast<std::size_t>(i)], S(0.0)));
    } else {
      act.push_back(activate(f.activation, f.limit,
                             pre[static_cast<std::size_t>(f.column(0, i, wide))],
                             pre[static_cast<std::size_t>(f.column(1, i, wide))]));
    }
  }
  for (int h = 0; h < out; ++h) {
    std::size_t const row = E * static_cast<std::size_t>(out) + static_cast<std::size_t>(h);
    S const z = dot(down, row, act);
    y.push_back(down_bias.empty() ? z : z + down_bias[row]);
  }
  return y;
}

inline std::size_t at(int i) { return static_cast<std::size_t>(i); }

/// The logits of one token and what follows from them.
template <class S> struct token_scores {
  std::vector<S> z, s;
  S peak{0.0}, total{0.0};  ///< the largest logit; Σ exp(z - peak)
};

template <class S>
token_scores<S> score(layer_formula const& f, layer_numbers<S> const& n, std::vector<S> const& x) {
  token_scores<S> r;
  for (int e = 0; e < f.experts; ++e) {
    S const v = dot(n.gate, at(e), x);
    r.z.push_back(n.gate_bias.empty() ? v : v + n.gate_bias[at(e)]);
  }
  double peak = plain(r.z[0]);
  for (S const& v : r.z) peak = std::max(peak, plain(v));
  r.peak = S(peak);
  for (S const& v : r.z) r.total = r.total + exp(v - r.peak);
  for (S const& v : r.z) {
    switch (f.score) {
      case score_kind::softmax: r.s.push_back(exp(v - r.peak) / r.total); break;
      case score_kind::sigmoid: r.s.push_back(sigmoid(v)); break;
      case score_kind::sqrt_softplus: r.s.push_back(sqrt(log1p(exp(v)))); break;
      case score_kind::logits: r.s.push_back(v); break;
    }
  }
  return r;
}

/// What the losses see of the batch.
template <class S> struct loss_sums {
  std::vector<S> probability;
  std::vector<double> load;
  S squares{0.0};
  double valid = 0.0, slots = 0.0;

  explicit loss_sums(int experts) : probability(at(experts), S(0.0)), load(at(experts), 0.0) {}

  void see(layer_formula const& f, token_scores<S> const& token, index_t const* chosen) {
    S all(0.0);
    for (S const& v : token.s) all = all + v;
    for (int e = 0; e < f.experts; ++e) {
      S const p = f.score == score_kind::logits ? exp(token.z[at(e)] - token.peak) / token.total
                                                : token.s[at(e)] / all;
      probability[at(e)] = probability[at(e)] + p;
    }
    S const lse = token.peak + log(token.total);
    squares = squares + lse * lse;
    valid += 1.0;
    for (int k = 0; k < f.top_k; ++k) {
      if (chosen[k] < 0) continue;
      load[at(chosen[k])] += 1.0;
      slots += 1.0;
    }
  }

  S loss(layer_formula const& f) const {
    if (!(valid > 0 && slots > 0)) return S(0.0);
    S balance(0.0);
    for (int e = 0; e < f.experts; ++e) {
      balance = balance + S(load[at(e)] / slots) * (probability[at(e)] / S(valid));
    }
    return S(f.balance * f.experts) * balance + S(f.z / valid) * squares;
  }
};

/// The gates of one token, those of slots without an expert 0.
template <class S>
std::vector<S> gates(layer_formula const& f, token_scores<S> const& token, int t) {
  index_t const* const chosen = f.chosen.data() + t * f.top_k;
  S sum(0.0), softmax_sum(0.0);
  for (int k = 0; k < f.top_k; ++k) {
    if (chosen[k] < 0) continue;
    sum = sum + token.s[at(chosen[k])];
    softmax_sum = softmax_sum + exp(token.s[at(chosen[k])] - token.peak);
  }
  std::vector<S> g;
  for (int k = 0; k < f.top_k; ++k) {
    if (chosen[k] < 0) {
      g.push_back(S(0.0));
      continue;
    }
    S const& own = token.s[at(chosen[k])];
    if (!f.slot_weight.empty()) {
      g.push_back(S(f.slot_weight[at(t * f.top_k + k)]));
    } else if (f.gates == gate_kind::raw) {
      g.push_back(S(f.scale) * own);
    } else if (f.gates == gate_kind::renormalized) {
      g.push_back(S(f.scale) * own / (sum + S(f.epsilon)));
    } else {
      g.push_back(S(f.scale) * exp(own - token.peak) / softmax_sum);
    }
  }
  return g;
}

/// The experts of one token, on what they see, weighted and summed.
template <class S>
std::vector<S> experts(layer_formula const& f, layer_numbers<S> const& n, int t,
                       std::vector<S> const& seen, std::vector<S> const& g) {
  std::vector<S> sum(at(f.hidden), S(0.0));
  for (int k = 0; k < f.top_k; ++k) {
    index_t const e = f.kept[at(t * f.top_k + k)];
    if (e < 0) continue;
    if (e >= f.local()) {
      for (int h = 0; h < f.hidden; ++h) sum[at(h)] = sum[at(h)] + g[at(k)] * seen[at(h)];
      continue;
    }
    std::vector<S> in = seen;
    if (f.gate_on_input) {
      for (S& v : in) v = g[at(k)] * v;
    }
    std::vector<S> const out =
        mlp(f, n.up, n.down, n.up_bias, n.down_bias, e, f.intermediate, f.hidden, in);
    for (int h = 0; h < f.hidden; ++h) {
      S const& v = out[at(h)];
      sum[at(h)] = sum[at(h)] + (f.gate_on_input ? v : g[at(k)] * v);
    }
  }
  return sum;
}

/// One token's output: its experts, on the latent where there is one, and the shared expert.
template <class S>
std::vector<S> output(layer_formula const& f, layer_numbers<S> const& n, int t,
                      std::vector<S> const& x, std::vector<S> const& g) {
  std::vector<S> seen = x, y;
  if (f.latent) {
    seen.clear();
    for (int h = 0; h < f.hidden; ++h) seen.push_back(dot(n.latent_down, at(h), x));
  }
  std::vector<S> const sum = experts(f, n, t, seen, g);
  if (f.latent) {
    for (int h = 0; h < f.width; ++h) y.push_back(dot(n.latent_up, at(h), sum));
  } else {
    y = sum;
  }
  if (f.shared > 0) {
    std::vector<S> const out = mlp(f, n.shared_up, n.shared_down, {}, {}, 0, f.shared, f.width, x);
    S const open = f.shared_gated ? sigmoid(dot(n.shared_gate, 0, x)) : S(1.0);
    for (int h = 0; h < f.width; ++h) y[at(h)] = y[at(h)] + open * out[at(h)];
  }
  return y;
}
}  // namespace layer_math

}  // namespace shunt::test
