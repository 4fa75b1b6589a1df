#pragma once
#include "support/oracle_route.hpp"

/// The router's gradient from its formulas, naive and in double.
namespace shunt::test {

/// A gradient in the making: values, and the magnitudes of what was added up for them.
struct oracle_gradient {
  std::vector<double> value, magnitude;
  explicit oracle_gradient(std::size_t n) : value(n, 0.0), magnitude(n, 0.0) {}

  void add(std::size_t e, double v, double size) {
    value[e] += v;
    magnitude[e] += size;
  }
};

/// Renormalized gates, g_j = s_j / (Σ s + epsilon), into d of the logits:
/// d log g_j / dz_e = [j is e] λ_e - Σ_k r_k d log s_k / dz_e.
inline void renormalized_backward(oracle_row const& r, std::vector<int> const& ids,
                                  std::vector<double> const& gate,
                                  std::vector<double> const& d_gate, route_options const& o,
                                  oracle_gradient& d) {
  std::vector<double> const shares = oracle_shares(r, ids, o);
  std::vector<double> share(r.z.size(), 0.0);
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] >= 0) share[static_cast<std::size_t>(ids[k])] += shares[k];
  }
  double const rest = shares.back();
  for (std::size_t j = 0; j < ids.size(); ++j) {
    if (ids[j] < 0 || gate[j] == 0.0) continue;
    double const dg = d_gate[j] * gate[j];
    for (std::size_t e = 0; e < r.z.size(); ++e) {
      double const own = static_cast<int>(e) == ids[j] ? 1.0 : 0.0;
      if (o.score != score_kind::softmax) {
        d.add(e, dg * (own - share[e]) * r.log_slope[e],
              std::abs(dg) * (own + share[e]) * r.log_slope[e]);
      } else {
        double const others = rest * r.score[e];
        d.add(e, dg * (own - share[e] - others), std::abs(dg) * (own + share[e] + others));
      }
    }
  }
}

/// The other gates' Jacobian, column by column, into ds of the scores (of logits: of them).
inline void gates_backward(oracle_row const& r, std::vector<int> const& ids,
                           std::vector<double> const& gate, std::vector<double> const& d_gate,
                           route_options const& o, oracle_gradient& ds) {
  double const scale = static_cast<double>(o.scale);
  double sum = static_cast<double>(o.epsilon);
  for (int id : ids) sum += id >= 0 ? r.score[static_cast<std::size_t>(id)] : 0.0;
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0) continue;
    auto const e = static_cast<std::size_t>(ids[k]);
    if (r.z[e] == masked) continue;
    for (std::size_t j = 0; j < ids.size(); ++j) {  // d gate_j / d (score or logit)_k
      if (ids[j] < 0) continue;
      double const own = j == k ? 1.0 : 0.0, size = std::abs(d_gate[j]);
      if (o.gates == gate_kind::raw) {
        ds.add(e, d_gate[j] * own * scale, std::abs(d_gate[j] * own * scale));
      } else if (o.gates == gate_kind::softmax_chosen) {
        double const gk = gate[k] / scale, gj = gate[j] / scale;
        ds.add(e, d_gate[j] * scale * gj * (own - gk), size * std::abs(scale) * gj * (own + gk));
      } else if (sum != 0.0) {
        ds.add(e, d_gate[j] * (own * scale - gate[j]) / sum,
               size * (own * std::abs(scale) + std::abs(gate[j])) / std::abs(sum));
      }
    }
  }
}

/// The mean probabilities' gradient, into d of the logits or ds of the scores.
inline void load_backward(oracle_row const& r, std::vector<double> const& d_load,
                          route_options const& o, oracle_gradient& d, oracle_gradient& ds) {
  std::size_t const n = r.z.size();
  if (o.score == score_kind::logits) {
    for (std::size_t e = 0; e < n; ++e) {
      for (std::size_t j = 0; j < n; ++j) {
        double const own = j == e ? 1.0 : 0.0;
        d.add(e, d_load[j] * r.softmax[j] * (own - r.softmax[e]),
              std::abs(d_load[j]) * r.softmax[j] * (own + r.softmax[e]));
      }
    }
    return;
  }
  if (o.score == score_kind::softmax) {
    for (std::size_t e = 0; e < n; ++e) ds.add(e, d_load[e], std::abs(d_load[e]));
    return;
  }
  double mean = 0.0, mean_abs = 0.0;
  for (std::size_t e = 0; e < n; ++e) {
    mean += d_load[e] * r.probability[e];
    mean_abs += std::abs(d_load[e]) * r.probability[e];
  }
  for (std::size_t e = 0; e < n; ++e) {
    double const p = r.probability[e] * r.log_slope[e];
    d.add(e, p * (d_load[e] - mean), p * (std::abs(d_load[e]) + mean_abs));
  }
}

/// ds of the scores into d of the logits.
inline void score_backward(oracle_row const& r, oracle_gradient const& ds, route_options const& o,
                           oracle_gradient& d) {
  double mean = 0.0, mean_abs = 0.0;
  for (std::size_t e = 0; e < r.z.size(); ++e) {
    mean += ds.value[e] * r.score[e];
    mean_abs += ds.magnitude[e] * r.score[e];
  }
  for (std::size_t e = 0; e < r.z.size(); ++e) {
    if (r.z[e] == masked) continue;
    double const x = r.z[e], sigmoid = 1.0 / (1.0 + std::exp(-x));
    double slope = 1.0;  // of the logits themselves
    if (o.score == score_kind::softmax) {
      d.add(e, r.score[e] * (ds.value[e] - mean), r.score[e] * (ds.magnitude[e] + mean_abs));
      continue;
    }
    if (o.score == score_kind::sigmoid) slope = sigmoid / (1.0 + std::exp(x));
    if (o.score == score_kind::sqrt_softplus) {
      slope = r.score[e] > 0.0 ? sigmoid / (2.0 * r.score[e]) : 0.0;
    }
    d.add(e, ds.value[e] * slope, ds.magnitude[e] * slope);
  }
}

/// d loss / d logits of one token, for loss = <d_gate, gates> + <d_load, probability> + d_z lse.
/// The magnitude of each is the sum of the magnitudes of what was added up for it.
inline std::vector<expectation> oracle_backward(oracle_row const& r, std::vector<int> const& ids,
                                                std::vector<double> const& d_gate,
                                                std::vector<double> const& d_load, double d_z,
                                                route_options const& o) {
  std::size_t const n = r.z.size();
  std::vector<expectation> result(n);
  if (r.empty) return result;
  oracle_gradient d(n), ds(n);
  std::vector<double> const gate = oracle_gates(r, ids, o);
  if (o.gates == gate_kind::renormalized && o.score != score_kind::logits) {
    renormalized_backward(r, ids, gate, d_gate, o, d);
  } else {
    gates_backward(r, ids, gate, d_gate, o, ds);
  }
  if (!d_load.empty()) load_backward(r, d_load, o, d, ds);
  score_backward(r, ds, o, d);
  for (std::size_t e = 0; e < n; ++e) {
    if (r.z[e] == masked) continue;
    d.add(e, d_z * r.softmax[e], std::abs(d_z) * r.softmax[e]);
    result[e].value = d.value[e];
    result[e].magnitude = d.magnitude[e];
  }
  return result;
}

}  // namespace shunt::test
