#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "shunt/core/shape.hpp"
#include "support/oracle_nn.hpp"

/// A transformer block and a language model in double, forward only: their gradients are central
/// differences. Naive, from the formulas, independent of the library.
namespace shunt::test::oracle {

/// y [R,N] = x [R,K] · w [N,K] transposed.
inline numbers times(numbers const& x, double const* w, std::size_t outs, std::size_t ins) {
  std::size_t const rows = x.size() / ins;
  numbers y(rows * outs);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t n = 0; n < outs; ++n) {
      for (std::size_t k = 0; k < ins; ++k) y[r * outs + n] += x[r * ins + k] * w[n * ins + k];
    }
  }
  return y;
}
inline numbers normalized(numbers const& x, double const* w, std::size_t width, double epsilon) {
  return values_of(rms_norm(x, numbers(w, w + width), epsilon).y);
}
inline double silu(double g) { return g / (1.0 + std::exp(-g)); }

struct block_numbers {
  std::size_t batch, length, width, heads, kv_heads;
  std::size_t experts = 0, top_k = 0, intermediate = 0, shared = 0;  // experts 0: dense
  double epsilon = 1e-5, rotary_base = 10000.0;
  double balance_loss = 0.0, z_loss = 0.0;
};
/// Pointers into one flat vector, so that a difference can be taken in any element.
struct block_weights {
  double const *attention_norm, *qkv, *out, *feed_norm;
  double const *gate = nullptr, *up = nullptr, *down = nullptr;  // dense: up and down only
  double const *shared_up = nullptr, *shared_down = nullptr;
  double const* choice_bias = nullptr;
};

/// down · (silu(gate half) · linear half), of one token.
inline numbers swiglu_network(numbers const& x, double const* up, double const* down,
                              std::size_t intermediate) {
  numbers const pre = times(x, up, 2 * intermediate, x.size());
  numbers act(intermediate);
  for (std::size_t i = 0; i < intermediate; ++i) act[i] = silu(pre[i]) * pre[intermediate + i];
  return times(act, down, x.size(), intermediate);
}

/// The mixture's output for tokens [T,W]; adds its losses to `extra`, its choices to `counts`.
inline numbers mixture(block_numbers const& n, block_weights const& w, numbers const& x,
                       std::vector<bool> const& valid, double& extra, std::vector<double>& counts) {
  std::size_t const tokens = x.size() / n.width;
  numbers y(x.size()), mean_probability(n.experts), share(n.experts);
  double squares = 0.0, total = 0.0;
  for (std::size_t t = 0; t < tokens; ++t) {
    if (!valid[t]) continue;
    total += 1.0;
    numbers const one(x.begin() + static_cast<std::ptrdiff_t>(t * n.width),
                      x.begin() + static_cast<std::ptrdiff_t>((t + 1) * n.width));
    numbers score = times(one, w.gate, n.experts, n.width);
    double const peak = *std::max_element(score.begin(), score.end());
    double sum = 0.0;
    for (double& s : score) sum += s = std::exp(s - peak);
    squares += (peak + std::log(sum)) * (peak + std::log(sum));
    for (std::size_t e = 0; e < n.experts; ++e) mean_probability[e] += score[e] /= sum;
    std::vector<std::size_t> order(n.experts);
    for (std::size_t e = 0; e < n.experts; ++e) order[e] = e;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      auto const key = [&](std::size_t e) {
        return score[e] + (w.choice_bias != nullptr ? w.choice_bias[e] : 0.0);
      };
      return key(a) > key(b);
    });
    double chosen = 0.0;
    for (std::size_t k = 0; k < n.top_k; ++k) chosen += score[order[k]];
    auto add = [&](numbers const& part, double gate) {
      for (std::size_t i = 0; i < n.width; ++i) y[t * n.width + i] += gate * part[i];
    };
    for (std::size_t k = 0; k < n.top_k; ++k) {
      std::size_t const e = order[k];
      counts[e] += 1.0;
      share[e] += 1.0;
      add(swiglu_network(one, w.up + e * 2 * n.intermediate * n.width,
                         w.down + e * n.width * n.intermediate, n.intermediate),
          score[e] / chosen);
    }
    if (n.shared > 0) add(swiglu_network(one, w.shared_up, w.shared_down, n.shared), 1.0);
  }
  if (total > 0.0) {
    for (std::size_t e = 0; e < n.experts; ++e) {
      extra += n.balance_loss * static_cast<double>(n.experts) * mean_probability[e] / total *
               share[e] / (total * static_cast<double>(n.top_k));
    }
    extra += n.z_loss * squares / total;
  }
  return y;
}

/// One block over [B,S,W].
inline numbers block(block_numbers const& n, block_weights const& w, numbers x,
                     std::vector<bool> const& valid, double& extra, std::vector<double>& counts) {
  std::size_t const d = n.width / n.heads, tokens = n.batch * n.length,
                    rows = n.heads + 2 * n.kv_heads;
  numbers const qkv =
      times(normalized(x, w.attention_norm, n.width, n.epsilon), w.qkv, rows * d, n.width);
  numbers q(tokens * n.heads * d), k(tokens * n.kv_heads * d), v(tokens * n.kv_heads * d);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t h = 0; h < rows; ++h) {
      numbers one(qkv.begin() + static_cast<std::ptrdiff_t>((t * rows + h) * d),
                  qkv.begin() + static_cast<std::ptrdiff_t>((t * rows + h + 1) * d));
      bool const is_value = h >= n.heads + n.kv_heads;
      for (std::size_t i = 0; !is_value && i < d / 2; ++i) {
        double const angle =
            static_cast<double>(t % n.length) *
            std::pow(n.rotary_base, -static_cast<double>(i) / static_cast<double>(d / 2));
        double const a = one[i], b = one[i + d / 2];
        one[i] = a * std::cos(angle) - b * std::sin(angle);
        one[i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
      numbers& to = h < n.heads ? q : is_value ? v : k;
      std::size_t const at =
          h < n.heads ? t * n.heads + h : t * n.kv_heads + (h - n.heads) % n.kv_heads;
      std::copy(one.begin(), one.end(), to.begin() + static_cast<std::ptrdiff_t>(at * d));
    }
  }
  attention_sizes const sizes{n.batch,    n.length, n.heads,
                              n.kv_heads, d,        1.0 / std::sqrt(static_cast<double>(d))};
  numbers const added =
      times(values_of(attention(sizes, q, k, v).out), w.out, n.width, n.heads * d);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += added[i];
  numbers const in = normalized(x, w.feed_norm, n.width, n.epsilon);
  numbers fed;
  if (n.experts > 0) {
    fed = mixture(n, w, in, valid, extra, counts);
  } else {
    for (std::size_t t = 0; t < tokens; ++t) {
      numbers const one(in.begin() + static_cast<std::ptrdiff_t>(t * n.width),
                        in.begin() + static_cast<std::ptrdiff_t>((t + 1) * n.width));
      numbers const y = swiglu_network(one, w.up, w.down, n.intermediate);
      fed.insert(fed.end(), y.begin(), y.end());
    }
  }
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += fed[i];
  return x;
}

/// A whole model over flat weights; `find` gives the place of a tensor by its name.
struct model_numbers {
  block_numbers block;
  std::size_t vocabulary, layers;
  bool tied_head = false;
  std::function<std::size_t(std::string const&)> find;
};
struct model_outcome {
  double loss = 0.0;   // mean cross-entropy
  double extra = 0.0;  // the routers' losses
  numbers token_loss;
  std::vector<std::vector<double>> counts;
};
/// tokens [B,S+1]; an input below 0 is padding, a target below 0 is ignored.
inline model_outcome model(model_numbers const& m, numbers const& weights,
                           std::vector<index_t> const& tokens,
                           std::vector<double> const& choice_bias = {}) {
  auto const at = [&](std::string const& name) { return weights.data() + m.find(name); };
  auto const& n = m.block;
  std::size_t const w = n.width;
  numbers x;
  std::vector<index_t> target;
  std::vector<bool> valid;
  for (std::size_t b = 0; b < n.batch; ++b) {
    for (std::size_t s = 0; s < n.length; ++s) {
      index_t const id = tokens[b * (n.length + 1) + s];
      valid.push_back(id >= 0);
      for (std::size_t i = 0; i < w; ++i) {
        x.push_back(id < 0 ? 0.0 : at("embedding")[static_cast<std::size_t>(id) * w + i]);
      }
      target.push_back(tokens[b * (n.length + 1) + s + 1]);
    }
  }
  model_outcome out;
  for (std::size_t layer = 0; layer < m.layers; ++layer) {
    std::string const name = "layers." + std::to_string(layer) + ".";
    block_weights b{at(name + "attention.norm"), at(name + "attention.qkv"),
                    at(name + "attention.out"), at(name + "feed.norm")};
    bool const dense = n.experts == 0;
    b.up = at(name + (dense ? "dense.up" : "experts.up"));
    b.down = at(name + (dense ? "dense.down" : "experts.down"));
    if (!dense) b.gate = at(name + "gate");
    if (n.shared > 0) {
      b.shared_up = at(name + "shared.up");
      b.shared_down = at(name + "shared.down");
    }
    if (!choice_bias.empty()) b.choice_bias = choice_bias.data() + layer * n.experts;
    out.counts.emplace_back(n.experts, 0.0);
    x = block(n, b, std::move(x), valid, out.extra, out.counts.back());
  }
  numbers const z = times(normalized(x, at("norm"), w, n.epsilon),
                          at(m.tied_head ? "embedding" : "head"), m.vocabulary, w);
  auto const loss = cross_entropy(z, target);
  out.loss = loss.mean;
  out.token_loss = loss.loss;
  return out;
}

/// (f(x + h) − f(x − h)) / 2h in the element x.
inline double central_difference(double& x, std::function<double()> const& f, double step = 1e-5) {
  double const kept = x;
  x = kept + step;
  double const up = f();
  x = kept - step;
  double const down = f();
  x = kept;
  return (up - down) / (2.0 * step);
}

}  // namespace shunt::test::oracle
