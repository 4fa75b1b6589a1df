#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "shunt/core/activation_kind.hpp"
#include "shunt/core/shape.hpp"
#include "support/compare.hpp"

/// The experts' products and activations in double, naive, from the formulas. Rows of gated weights
/// are in the order gate, up here; `laid_out` brings them into any other.
namespace shunt::test {

/// What an activation and its parameters make of a pair, with the partial derivatives; a plain one
/// takes its number as g. `magnitude`: what its own arithmetic may lose roundings of.
struct activated {
  double value = 0, gate = 0, up = 0, magnitude = 0;
};

inline activated activation_formula(activation_kind kind, double g, double u, double a = 0,
                                    double b = 0) {
  auto const sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  auto const silu = [&](double x, double alpha) { return x * sigmoid(alpha * x); };
  auto const d_silu = [&](double x, double alpha) {
    double const s = sigmoid(alpha * x);
    return s + alpha * x * s * (1 - s);
  };
  auto const normal = [](double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; };
  auto const d_gelu = [&](double x) {
    return normal(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
  };
  switch (kind) {
    case activation_kind::identity: return {g, 1, 0, std::abs(g)};
    case activation_kind::relu: return {std::max(g, 0.0), g > 0 ? 1.0 : 0.0, 0, std::abs(g)};
    case activation_kind::relu2: {
      double const r = std::max(g, 0.0);
      return {r * r, 2 * r, 0, r * r};
    }
    case activation_kind::gelu: return {g * normal(g), d_gelu(g), 0, std::abs(g)};
    case activation_kind::gelu_tanh: {
      double const c = std::sqrt(2 / std::numbers::pi);
      double const t = std::tanh(c * (g + 0.044715 * g * g * g));
      double const inner = c * (1 + 3 * 0.044715 * g * g);
      return {g / 2 * (1 + t), (1 + t) / 2 + g / 2 * (1 - t * t) * inner, 0, std::abs(g)};
    }
    case activation_kind::swiglu:
      return {silu(g, 1) * u, d_silu(g, 1) * u, silu(g, 1), std::abs(silu(g, 1) * u)};
    case activation_kind::geglu:
      return {g * normal(g) * u, d_gelu(g) * u, g * normal(g), std::abs(g * u)};
    case activation_kind::swiglu_clamped: {  // a: alpha, b: limit
      double const m = std::min(g, b), v = std::clamp(u, -b, b);
      return {silu(m, a) * (v + 1), g > b ? 0 : d_silu(m, a) * (v + 1),
              std::abs(u) > b ? 0 : silu(m, a),
              std::abs(silu(m, a)) * (std::abs(v) + 1) * (1 + std::abs(a * m))};
    }
    case activation_kind::swiglu_capped: {  // a: limit
      double const m = std::min(g, a), v = std::clamp(u, -a, a);
      return {silu(m, 1) * v, g > a ? 0 : d_silu(m, 1) * v, std::abs(u) > a ? 0 : silu(m, 1),
              std::abs(silu(m, 1) * v)};
    }
    case activation_kind::situ_glu: {  // a, b: the two betas
      double const tg = std::tanh(g / a), tu = std::tanh(u / b), s = sigmoid(g);
      double const f = a * tg * s, h = b * tu;
      return {f * h, ((1 - tg * tg) * s + f * (1 - s)) * h, f * (1 - tu * tu), std::abs(f * h)};
    }
  }
  return {};
}

/// Rows of E matrices [E,N,K] brought from the order gate, up into the caller's: each entry of the
/// result is (half, index), physical row by physical row.
inline std::vector<std::pair<int, int>> pair_rows(int half_rows, bool up_first, int block) {
  std::vector<std::pair<int, int>> rows;
  int const step = block == 0 ? half_rows : block;
  for (int start = 0; start < half_rows; start += step) {
    for (int h = 0; h < 2; ++h) {
      for (int i = start; i < std::min(start + step, half_rows); ++i) {
        rows.emplace_back(up_first ? 1 - h : h, i);
      }
    }
  }
  return rows;
}

template <class T>
std::vector<T> laid_out(std::vector<T> const& logical, int E, int N, int K, bool up_first,
                        int block) {
  std::vector<T> physical;
  auto const rows = pair_rows(N / 2, up_first, block);
  for (int e = 0; e < E; ++e) {
    for (auto const& [half, i] : rows) {
      for (int k = 0; k < K; ++k) {
        physical.push_back(logical[static_cast<std::size_t>((e * N + half * (N / 2) + i) * K + k)]);
      }
    }
  }
  return physical;
}

/// Which expert a row belongs to; -1 outside all segments.
inline std::vector<int> expert_of_row(std::vector<index_t> const& offset, int R) {
  std::vector<int> expert(static_cast<std::size_t>(R), -1);
  for (std::size_t e = 0; e + 1 < offset.size(); ++e) {
    for (index_t r = offset[e]; r < offset[e + 1]; ++r) {
      expert[static_cast<std::size_t>(r)] = static_cast<int>(e);
    }
  }
  return expert;
}

/// c[r][n] = sum over k of a[r][k] w[e][n][k] (+ bias); rows outside every segment have no entry
/// (value NaN: never compared).
inline std::vector<expectation> product(std::vector<double> const& a, std::vector<double> const& w,
                                        std::vector<double> const& bias,
                                        std::vector<int> const& expert, int N, int K) {
  std::vector<expectation> c;
  for (std::size_t r = 0; r < expert.size(); ++r) {
    for (int n = 0; n < N; ++n) {
      if (expert[r] < 0) {
        c.push_back({std::nan(""), 0});
        continue;
      }
      auto const row = static_cast<std::size_t>(expert[r] * N + n);
      expectation sum{bias.empty() ? 0 : bias[row], bias.empty() ? 0 : std::abs(bias[row])};
      for (int k = 0; k < K; ++k) {
        double const p = a[r * static_cast<std::size_t>(K) + static_cast<std::size_t>(k)] *
                         w[row * static_cast<std::size_t>(K) + static_cast<std::size_t>(k)];
        sum.value += p;
        sum.magnitude += std::abs(p);
      }
      c.push_back(sum);
    }
  }
  return c;
}

/// da[r][k] = sum over n of dc[r][n] w[e][n][k].
inline std::vector<expectation> product_to_rows(std::vector<double> const& dc,
                                                std::vector<double> const& w,
                                                std::vector<int> const& expert, int N, int K) {
  std::vector<expectation> da;
  for (std::size_t r = 0; r < expert.size(); ++r) {
    for (int k = 0; k < K; ++k) {
      expectation sum{expert[r] < 0 ? std::nan("") : 0, 0};
      for (int n = 0; n < N && expert[r] >= 0; ++n) {
        double const p = dc[r * static_cast<std::size_t>(N) + static_cast<std::size_t>(n)] *
                         w[static_cast<std::size_t>((expert[r] * N + n) * K + k)];
        sum.value += p;
        sum.magnitude += std::abs(p);
      }
      da.push_back(sum);
    }
  }
  return da;
}

/// dw[e][n][k] = sum over the expert's rows of factor[r] dc[r][n] a[r][k]; no factors: 1.
inline std::vector<expectation> product_to_weights(std::vector<double> const& dc,
                                                   std::vector<double> const& a,
                                                   std::vector<double> const& factor,
                                                   std::vector<int> const& expert, int E, int N,
                                                   int K) {
  std::vector<expectation> dw(static_cast<std::size_t>(E * N * K));
  for (std::size_t r = 0; r < expert.size(); ++r) {
    if (expert[r] < 0) continue;
    for (int n = 0; n < N; ++n) {
      for (int k = 0; k < K; ++k) {
        double const p = (factor.empty() ? 1 : factor[r]) *
                         dc[r * static_cast<std::size_t>(N) + static_cast<std::size_t>(n)] *
                         a[r * static_cast<std::size_t>(K) + static_cast<std::size_t>(k)];
        auto& sum = dw[static_cast<std::size_t>((expert[r] * N + n) * K + k)];
        sum.value += p;
        sum.magnitude += std::abs(p);
      }
    }
  }
  return dw;
}

/// Only the entries of rows in segments, so that `close` can compare them.
template <class Buffer>
std::vector<typename Buffer::value_type> in_segments(Buffer const& values,
                                                     std::vector<int> const& expert) {
  std::vector<typename Buffer::value_type> kept;
  std::size_t const wide = expert.empty() ? 0 : values.size() / expert.size();
  for (std::size_t r = 0; r < expert.size(); ++r) {
    if (expert[r] < 0) continue;
    for (std::size_t i = 0; i < wide; ++i) kept.push_back(values[r * wide + i]);
  }
  return kept;
}

}  // namespace shunt::test
