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
  std::vector<double> log_score, log_slope;  // sigmoid, √softplus; the slope is d log_score / dz
  double lse = 0.0, log_total = 0.0, peak = masked;
  bool empty = true;
};

/// exp(x) over the sum of all, of any logarithms x; 0 where all are masked.
inline std::vector<double> shares_of(std::vector<double> const& x) {
  double const peak = x.empty() ? masked : *std::max_element(x.begin(), x.end());
  std::vector<double> share(x.size(), 0.0);
  if (peak == masked) return share;
  double sum = 0.0;
  for (double v : x) sum += std::exp(v - peak);
  for (std::size_t i = 0; i < x.size(); ++i) share[i] = std::exp(x[i] - peak) / sum;
  return share;
}

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
  r.log_score.assign(n, masked);
  r.log_slope.assign(n, 0.0);
  if (r.empty) return r;
  double total = 0.0;
  for (double x : z) total += std::exp(x - r.peak);
  r.log_total = std::log(total);
  r.lse = r.peak + r.log_total;
  for (std::size_t e = 0; e < n; ++e) {
    r.softmax[e] = std::exp(z[e] - r.peak) / total;
    double const x = z[e];
    double const softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    switch (o.score) {
      case score_kind::softmax: r.score[e] = r.softmax[e]; break;
      case score_kind::sigmoid:
        r.score[e] = 1.0 / (1.0 + std::exp(-x));
        r.log_score[e] = std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
        r.log_slope[e] = 1.0 / (1.0 + std::exp(x));
        break;
      case score_kind::sqrt_softplus:  // softplus is e^x far to the left
        r.score[e] = std::sqrt(softplus);
        r.log_score[e] = x < -40.0 ? 0.5 * x : 0.5 * std::log(softplus);
        r.log_slope[e] = x < -40.0 ? 0.5 : 0.5 / (1.0 + std::exp(-x)) / softplus;
        break;
      case score_kind::logits: r.score[e] = x; break;
    }
    if (x == masked) r.score[e] = 0.0;
  }
  r.probability = o.score == score_kind::softmax || o.score == score_kind::logits
                      ? r.softmax
                      : shares_of(r.log_score);
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

/// Of renormalized gates, by logarithms: each chosen score over their sum and epsilon, then
/// epsilon's own share.
inline std::vector<double> oracle_shares(oracle_row const& r, std::vector<int> const& ids,
                                         route_options const& o) {
  // A softmax's logits themselves, epsilon times its denominator: their differences stay exact.
  bool const softmax = o.score == score_kind::softmax;
  std::vector<double> logs;
  double top = masked;
  for (int id : ids) {
    auto const e = static_cast<std::size_t>(id);
    logs.push_back(id < 0 ? masked : softmax ? r.z[e] : r.log_score[e]);
    top = std::max(top, logs.back());
  }
  if (top == masked) return std::vector<double>(ids.size() + 1, 0.0);
  for (double& x : logs) x -= top;
  double const log_epsilon = std::log(static_cast<double>(o.epsilon));
  logs.push_back(log_epsilon + (softmax ? r.peak - top + r.log_total : -top));
  return shares_of(logs);
}

/// Gates of chosen ids (-1: none), without the random drop.
inline std::vector<double> oracle_gates(oracle_row const& r, std::vector<int> const& ids,
                                        route_options const& o) {
  std::vector<double> gate(ids.size(), 0.0);
  double sum = 0.0, top = masked;
  std::vector<double> const share = oracle_shares(r, ids, o);
  for (int id : ids) {
    if (id < 0 || r.z[static_cast<std::size_t>(id)] == masked) continue;
    sum += r.score[static_cast<std::size_t>(id)];
    top = std::max(top, r.score[static_cast<std::size_t>(id)]);
  }
  double soft = 0.0;
  for (int id : ids) {
    if (id < 0 || r.z[static_cast<std::size_t>(id)] == masked) continue;
    soft += std::exp(r.score[static_cast<std::size_t>(id)] - top);
  }
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0) continue;
    auto const e = static_cast<std::size_t>(ids[k]);
    if (r.z[e] == masked) continue;
    double g = r.score[e];
    if (o.gates == gate_kind::renormalized && o.score != score_kind::logits) {
      g = share[k];
    } else if (o.gates == gate_kind::renormalized) {
      double const all = sum + static_cast<double>(o.epsilon);
      g = all == 0.0 ? 0.0 : g / all;
    } else if (o.gates == gate_kind::softmax_chosen) {
      g = std::exp(g - top) / soft;
    }
    gate[k] = g * static_cast<double>(o.scale);
  }
  return gate;
}

}  // namespace shunt::test
