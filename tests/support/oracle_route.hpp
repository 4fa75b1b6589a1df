#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "shunt/route/options.hpp"
#include "support/compare.hpp"

/// The router from its formulas, naive and in double. Shares nothing with the library but the names
/// of the options.
namespace shunt::test {

inline constexpr double masked = -std::numeric_limits<double>::infinity();

struct oracle_row {
  std::vector<double> z, score, probability, softmax;
  double lse = 0.0, peak = masked;
  bool empty = true;
};

/// One token's logits: NaN is masked, +Inf the largest float.
inline oracle_row oracle_scores(std::vector<double> z, route_options const& o) {
  oracle_row r;
  for (double& x : z) {
    if (std::isnan(x)) x = masked;
    if (x > 3.4028234663852886e38) x = 3.4028234663852886e38;
    r.peak = std::max(r.peak, x);
  }
  r.z = z;
  r.empty = r.peak == masked;
  std::size_t const n = z.size();
  r.score.assign(n, 0.0);
  r.probability.assign(n, 0.0);
  r.softmax.assign(n, 0.0);
  if (r.empty) return r;
  double total = 0.0;
  for (double x : z) total += std::exp(x - r.peak);
  r.lse = r.peak + std::log(total);
  double sum = 0.0;
  for (std::size_t e = 0; e < n; ++e) {
    r.softmax[e] = std::exp(z[e] - r.peak) / total;
    double const x = z[e];
    double const softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    switch (o.score) {
      case score_kind::softmax: r.score[e] = r.softmax[e]; break;
      case score_kind::sigmoid: r.score[e] = 1.0 / (1.0 + std::exp(-x)); break;
      case score_kind::sqrt_softplus: r.score[e] = std::sqrt(softplus); break;
      case score_kind::logits: r.score[e] = x; break;
    }
    if (x == masked) r.score[e] = 0.0;
    sum += r.score[e];
  }
  for (std::size_t e = 0; e < n; ++e) {
    r.probability[e] = o.score == score_kind::softmax || o.score == score_kind::logits
                           ? r.softmax[e]
                       : sum > 0.0 ? r.score[e] / sum
                                   : 0.0;
  }
  return r;
}

/// What the choice compares, groups already applied; masked where an expert cannot be chosen.
inline std::vector<double> oracle_keys(oracle_row const& r, std::vector<double> const& bias,
                                       route_options const& o) {
  std::size_t const n = r.z.size();
  bool const by_score =
      !bias.empty() || (o.groups > 1 && o.group_by == group_rule::sum_of_two_best);
  std::vector<double> key(n);
  for (std::size_t e = 0; e < n; ++e) {
    key[e] = by_score ? r.score[e] : r.z[e];
    if (!bias.empty()) key[e] += bias[e];
    if (std::isnan(key[e]) || r.z[e] == masked) key[e] = masked;
  }
  if (o.groups == 1) return key;
  std::size_t const groups = static_cast<std::size_t>(o.groups), size = n / groups;
  std::vector<double> rank(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    std::vector<double> in(key.begin() + static_cast<std::ptrdiff_t>(g * size),
                           key.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(in.rbegin(), in.rend());
    rank[g] = in[0];
    if (o.group_by == group_rule::sum_of_two_best && size > 1 && in[1] != masked) rank[g] += in[1];
  }
  std::vector<std::size_t> order(groups);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rank[a] > rank[b]; });
  for (std::size_t i = static_cast<std::size_t>(o.top_groups); i < groups; ++i) {
    for (std::size_t e = order[i] * size; e < (order[i] + 1) * size; ++e) key[e] = masked;
  }
  return key;
}

inline std::vector<int> oracle_best(std::vector<double> const& key, std::size_t k) {
  std::vector<int> order(key.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return key[static_cast<std::size_t>(a)] > key[static_cast<std::size_t>(b)];
  });
  order.resize(k);
  for (int& e : order) {
    if (key[static_cast<std::size_t>(e)] == masked) e = -1;
  }
  return order;
}

/// Gates of chosen ids (-1: none), without the random drop.
inline std::vector<double> oracle_gates(oracle_row const& r, std::vector<int> const& ids,
                                        route_options const& o) {
  std::vector<double> gate(ids.size(), 0.0);
  double sum = 0.0, top = masked;
  for (int id : ids) {
    if (id < 0 || r.z[static_cast<std::size_t>(id)] == masked) continue;
    sum += r.score[static_cast<std::size_t>(id)];
    top = std::max(top, r.score[static_cast<std::size_t>(id)]);
  }
  double soft = 0.0;
  double peak_z = masked;
  for (int id : ids) {
    if (id >= 0) peak_z = std::max(peak_z, r.z[static_cast<std::size_t>(id)]);
  }
  // A renormalised softmax may underflow as a quotient of scores; as a softmax it cannot.
  bool const as_softmax =
      o.score == score_kind::softmax && o.gates == gate_kind::renormalised && o.epsilon == 0.0f;
  for (int id : ids) {
    if (id < 0 || r.z[static_cast<std::size_t>(id)] == masked) continue;
    soft += as_softmax ? std::exp(r.z[static_cast<std::size_t>(id)] - peak_z)
                       : std::exp(r.score[static_cast<std::size_t>(id)] - top);
  }
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0) continue;
    auto const e = static_cast<std::size_t>(ids[k]);
    if (r.z[e] == masked) continue;
    double g = r.score[e];
    if (as_softmax) {
      g = std::exp(r.z[e] - peak_z) / soft;
    } else if (o.gates == gate_kind::renormalised) {
      double const all = sum + static_cast<double>(o.epsilon);
      g = all == 0.0 ? 0.0 : g / all;
    } else if (o.gates == gate_kind::softmax_chosen) {
      g = std::exp(g - top) / soft;
    }
    gate[k] = g * static_cast<double>(o.scale);
  }
  return gate;
}

/// d loss / d logits of one token, for loss = <d_gate, gates> + <d_load, probability> + d_z lse.
/// The magnitude of each is the sum of the magnitudes of what was added up for it.
inline std::vector<expectation> oracle_backward(oracle_row const& r, std::vector<int> const& ids,
                                                std::vector<double> const& d_gate,
                                                std::vector<double> const& d_load, double d_z,
                                                route_options const& o) {
  std::size_t const n = r.z.size();
  std::vector<expectation> d(n);
  if (r.empty) return d;
  auto const add = [&](std::size_t e, double value, double magnitude) {
    d[e].value += value;
    d[e].magnitude += magnitude;
  };
  std::vector<double> ds(n, 0.0), ds_abs(n, 0.0);
  double const scale = static_cast<double>(o.scale);
  // The gates' Jacobian, column by column.
  std::vector<double> const gate = oracle_gates(r, ids, o);
  double sum = static_cast<double>(o.epsilon);
  for (int id : ids) sum += id >= 0 ? r.score[static_cast<std::size_t>(id)] : 0.0;
  bool const as_softmax =
      o.score == score_kind::softmax && o.gates == gate_kind::renormalised && o.epsilon == 0.0f;
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0) continue;
    auto const e = static_cast<std::size_t>(ids[k]);
    if (r.z[e] == masked) continue;
    for (std::size_t j = 0; j < ids.size(); ++j) {  // d gate_j / d (score or logit)_k
      if (ids[j] < 0) continue;
      double const own = j == k ? 1.0 : 0.0;
      if (o.gates == gate_kind::raw) {
        ds[e] += d_gate[j] * own * scale;
        ds_abs[e] += std::abs(d_gate[j] * own * scale);
      } else if (as_softmax || o.gates == gate_kind::softmax_chosen) {
        double const gk = gate[k] / scale, gj = gate[j] / scale;
        double const value = d_gate[j] * scale * gj * (own - gk);
        double const size = std::abs(d_gate[j]) * std::abs(scale) * gj * (own + gk);
        if (as_softmax) {
          add(e, value, size);
        } else {
          ds[e] += value;
          ds_abs[e] += size;
        }
      } else if (sum != 0.0) {
        double const value = d_gate[j] * (own * scale - gate[j]) / sum;
        ds[e] += value;
        ds_abs[e] +=
            std::abs(d_gate[j]) * (own * std::abs(scale) + std::abs(gate[j])) / std::abs(sum);
      }
    }
  }
  if (!d_load.empty()) {
    if (o.score == score_kind::logits) {
      for (std::size_t e = 0; e < n; ++e) {
        for (std::size_t j = 0; j < n; ++j) {
          double const own = j == e ? 1.0 : 0.0;
          add(e, d_load[j] * r.softmax[j] * (own - r.softmax[e]),
              std::abs(d_load[j]) * r.softmax[j] * (own + r.softmax[e]));
        }
      }
    } else if (o.score == score_kind::softmax) {
      for (std::size_t e = 0; e < n; ++e) {
        ds[e] += d_load[e];
        ds_abs[e] += std::abs(d_load[e]);
      }
    } else {
      double all = 0.0, mean = 0.0, mean_abs = 0.0;
      for (double s : r.score) all += s;
      for (std::size_t e = 0; e < n; ++e) {
        mean += d_load[e] * r.probability[e];
        mean_abs += std::abs(d_load[e]) * r.probability[e];
      }
      for (std::size_t e = 0; e < n && all > 0.0; ++e) {
        ds[e] += (d_load[e] - mean) / all;
        ds_abs[e] += (std::abs(d_load[e]) + mean_abs) / all;
      }
    }
  }
  double mean = 0.0, mean_abs = 0.0;
  for (std::size_t e = 0; e < n; ++e) {
    mean += ds[e] * r.score[e];
    mean_abs += ds_abs[e] * r.score[e];
  }
  for (std::size_t e = 0; e < n; ++e) {
    if (r.z[e] == masked) continue;
    double const x = r.z[e], sigmoid = 1.0 / (1.0 + std::exp(-x));
    switch (o.score) {
      case score_kind::softmax:
        add(e, r.score[e] * (ds[e] - mean), r.score[e] * (ds_abs[e] + mean_abs));
        break;
      case score_kind::sigmoid: {
        double const slope = sigmoid / (1.0 + std::exp(x));
        add(e, ds[e] * slope, ds_abs[e] * slope);
        break;
      }
      case score_kind::sqrt_softplus: {
        double const slope = r.score[e] > 0.0 ? sigmoid / (2.0 * r.score[e]) : 0.0;
        add(e, ds[e] * slope, ds_abs[e] * slope);
        break;
      }
      case score_kind::logits: add(e, ds[e], ds_abs[e]); break;
    }
    add(e, d_z * r.softmax[e], std::abs(d_z) * r.softmax[e]);
  }
  for (std::size_t e = 0; e < n; ++e) {
    if (r.z[e] == masked) d[e] = {};
  }
  return d;
}

}  // namespace shunt::test
