#pragma once
#include "support/oracle_route.hpp"

/// The router's gradient from its formulas, naive and in double.
namespace shunt::test {

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
  bool const renormalized = o.gates == gate_kind::renormalized && o.score != score_kind::logits;
  if (renormalized) {
    // g_j = s_j / (Σ s + epsilon): d log g_j / dz_e = [j is e] λ_e - Σ_k r_k d log s_k / dz_e.
    std::vector<double> const shares = oracle_shares(r, ids, o);
    std::vector<double> share(n, 0.0);
    for (std::size_t k = 0; k < ids.size(); ++k) {
      if (ids[k] >= 0) share[static_cast<std::size_t>(ids[k])] += shares[k];
    }
    double const rest = shares.back();
    for (std::size_t j = 0; j < ids.size(); ++j) {
      if (ids[j] < 0 || gate[j] == 0.0) continue;
      double const dg = d_gate[j] * gate[j];
      for (std::size_t e = 0; e < n; ++e) {
        double const own = static_cast<int>(e) == ids[j] ? 1.0 : 0.0;
        if (o.score != score_kind::softmax) {
          add(e, dg * (own - share[e]) * r.log_slope[e],
              std::abs(dg) * (own + share[e]) * r.log_slope[e]);
        } else {
          double const others = rest * r.score[e];
          add(e, dg * (own - share[e] - others), std::abs(dg) * (own + share[e] + others));
        }
      }
    }
  }
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0 || renormalized) continue;
    auto const e = static_cast<std::size_t>(ids[k]);
    if (r.z[e] == masked) continue;
    for (std::size_t j = 0; j < ids.size(); ++j) {  // d gate_j / d (score or logit)_k
      if (ids[j] < 0) continue;
      double const own = j == k ? 1.0 : 0.0;
      if (o.gates == gate_kind::raw) {
        ds[e] += d_gate[j] * own * scale;
        ds_abs[e] += std::abs(d_gate[j] * own * scale);
      } else if (o.gates == gate_kind::softmax_chosen) {
        double const gk = gate[k] / scale, gj = gate[j] / scale;
        double const value = d_gate[j] * scale * gj * (own - gk);
        double const size = std::abs(d_gate[j]) * std::abs(scale) * gj * (own + gk);
        ds[e] += value;
        ds_abs[e] += size;
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
      double mean = 0.0, mean_abs = 0.0;
      for (std::size_t e = 0; e < n; ++e) {
        mean += d_load[e] * r.probability[e];
        mean_abs += std::abs(d_load[e]) * r.probability[e];
      }
      for (std::size_t e = 0; e < n; ++e) {
        double const p = r.probability[e] * r.log_slope[e];
        add(e, p * (d_load[e] - mean), p * (std::abs(d_load[e]) + mean_abs));
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
