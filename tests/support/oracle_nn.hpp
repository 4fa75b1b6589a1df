#pragma once
#include <cmath>
#include <cstddef>
#include <vector>

#include "shunt/core/shape.hpp"
#include "support/compare.hpp"

/// What nn computes, in double, from the formulas, one element at a time: independent of the library.
/// Gradients are written out by hand from the formulas' derivatives; the tests of whole blocks and
/// models take central differences of the forward functions instead.
namespace shunt::test::oracle {

using numbers = std::vector<double>;
using expected = std::vector<expectation>;

/// y[t] = x[t] / sqrt(mean x² + ε) · w.
struct norm_forward {
  expected y;
  numbers inverse;
};
inline norm_forward rms_norm(numbers const& x, numbers const& w, double epsilon) {
  std::size_t const width = w.size(), tokens = width == 0 ? 0 : x.size() / width;
  norm_forward out;
  for (std::size_t t = 0; t < tokens; ++t) {
    double squares = 0.0;
    for (std::size_t i = 0; i < width; ++i) squares += x[t * width + i] * x[t * width + i];
    double const inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + epsilon);
    out.inverse.push_back(inverse);
    for (std::size_t i = 0; i < width; ++i) {
      double const y = x[t * width + i] * inverse * w[i];
      out.y.push_back({y, std::abs(y)});
    }
  }
  return out;
}

struct norm_backward {
  expected d_x, d_weight;
};
inline norm_backward rms_norm_backward(numbers const& x, numbers const& w, numbers const& d_y,
                                       double epsilon) {
  std::size_t const width = w.size(), tokens = width == 0 ? 0 : x.size() / width;
  norm_backward out;
  out.d_weight.resize(width);
  for (std::size_t t = 0; t < tokens; ++t) {
    double squares = 0.0, pull = 0.0, pull_magnitude = 0.0;
    for (std::size_t i = 0; i < width; ++i) {
      double const xi = x[t * width + i];
      squares += xi * xi;
      pull += d_y[t * width + i] * w[i] * xi;
      pull_magnitude += std::abs(d_y[t * width + i] * w[i] * xi);
    }
    double const r = 1.0 / std::sqrt(squares / static_cast<double>(width) + epsilon);
    double const cube = r * r * r / static_cast<double>(width);
    for (std::size_t i = 0; i < width; ++i) {
      double const xi = x[t * width + i], dy = d_y[t * width + i];
      out.d_x.push_back({r * w[i] * dy - xi * cube * pull,
                         std::abs(r * w[i] * dy) + std::abs(xi) * cube * pull_magnitude});
      out.d_weight[i].value += dy * xi * r;
      out.d_weight[i].magnitude += std::abs(dy * xi * r);
    }
  }
  return out;
}

/// Causal attention over [B,S,heads,D] contiguous, the whole matrix of scores and all.
struct attention_sizes {
  std::size_t batch, length, heads, kv_heads, width;
  double scale;
  [[nodiscard]] std::size_t q(std::size_t b, std::size_t i, std::size_t h) const {
    return ((b * length + i) * heads + h) * width;
  }
  [[nodiscard]] std::size_t k(std::size_t b, std::size_t j, std::size_t h) const {
    return ((b * length + j) * kv_heads + h / (heads / kv_heads)) * width;
  }
};

/// p[j] for the query (b, i, h), and the log of the sum of the exponentials.
inline numbers attention_shares(attention_sizes const& s, numbers const& q, numbers const& k,
                                std::size_t b, std::size_t i, std::size_t h, double& log_sum) {
  numbers score;
  double peak = -1e300, sum = 0.0;
  for (std::size_t j = 0; j <= i; ++j) {
    double dot = 0.0;
    for (std::size_t d = 0; d < s.width; ++d) dot += q[s.q(b, i, h) + d] * k[s.k(b, j, h) + d];
    score.push_back(dot * s.scale);
    peak = std::max(peak, score.back());
  }
  for (double& x : score) sum += x = std::exp(x - peak);
  for (double& x : score) x /= sum;
  log_sum = peak + std::log(sum);
  return score;
}

struct attention_result {
  expected out;
  numbers log_sum;  // [B,heads,S]
};
inline attention_result attention(attention_sizes const& s, numbers const& q, numbers const& k,
                                  numbers const& v) {
  attention_result r;
  r.out.resize(q.size());
  r.log_sum.resize(s.batch * s.heads * s.length);
  for (std::size_t b = 0; b < s.batch; ++b) {
    for (std::size_t h = 0; h < s.heads; ++h) {
      for (std::size_t i = 0; i < s.length; ++i) {
        double log_sum = 0.0;
        numbers const p = attention_shares(s, q, k, b, i, h, log_sum);
        r.log_sum[(b * s.heads + h) * s.length + i] = log_sum;
        for (std::size_t d = 0; d < s.width; ++d) {
          expectation& o = r.out[s.q(b, i, h) + d];
          for (std::size_t j = 0; j <= i; ++j) {
            o.value += p[j] * v[s.k(b, j, h) + d];
            o.magnitude += p[j] * std::abs(v[s.k(b, j, h) + d]);
          }
        }
      }
    }
  }
  return r;
}

struct attention_gradients {
  expected d_q, d_k, d_v;
};
/// `out` is what forward stored (rounded): δ is made from it, as the library must.
inline attention_gradients attention_backward(attention_sizes const& s, numbers const& q,
                                              numbers const& k, numbers const& v,
                                              numbers const& out, numbers const& d_out) {
  attention_gradients r;
  r.d_q.resize(q.size());
  r.d_k.resize(k.size());
  r.d_v.resize(v.size());
  auto add = [](expectation& to, double value, double magnitude) {
    to.value += value;
    to.magnitude += magnitude;
  };
  for (std::size_t b = 0; b < s.batch; ++b) {
    for (std::size_t h = 0; h < s.heads; ++h) {
      for (std::size_t i = 0; i < s.length; ++i) {
        double log_sum = 0.0, delta = 0.0, delta_magnitude = 0.0;
        numbers const p = attention_shares(s, q, k, b, i, h, log_sum);
        std::size_t const at = s.q(b, i, h);
        for (std::size_t d = 0; d < s.width; ++d) {
          delta += d_out[at + d] * out[at + d];
          delta_magnitude += std::abs(d_out[at + d] * out[at + d]);
        }
        for (std::size_t j = 0; j <= i; ++j) {
          std::size_t const key = s.k(b, j, h);
          double d_p = 0.0, d_p_magnitude = 0.0;
          for (std::size_t d = 0; d < s.width; ++d) {
            d_p += d_out[at + d] * v[key + d];
            d_p_magnitude += std::abs(d_out[at + d] * v[key + d]);
            add(r.d_v[key + d], p[j] * d_out[at + d], std::abs(p[j] * d_out[at + d]));
          }
          double const d_s = p[j] * (d_p - delta) * s.scale;
          double const wide = p[j] * (d_p_magnitude + delta_magnitude) * s.scale;
          for (std::size_t d = 0; d < s.width; ++d) {
            add(r.d_q[at + d], d_s * k[key + d], wide * std::abs(k[key + d]));
            add(r.d_k[key + d], d_s * q[at + d], wide * std::abs(q[at + d]));
          }
        }
      }
    }
  }
  return r;
}

/// −log softmax(z)[target] for rows of logits, and its gradient; a negative target counts nothing.
struct loss_result {
  numbers loss;     // [T]
  double mean = 0;  // over valid tokens
  numbers d_z;      // [T,V], of the mean
};
inline loss_result cross_entropy(numbers const& z, std::vector<index_t> const& target) {
  loss_result r;
  std::size_t const tokens = target.size(), n = tokens == 0 ? 0 : z.size() / tokens;
  double valid = 0;
  for (index_t t : target) valid += t < 0 ? 0 : 1;
  r.d_z.resize(z.size());
  for (std::size_t t = 0; t < tokens; ++t) {
    r.loss.push_back(0.0);
    if (target[t] < 0) continue;
    double peak = -1e300, sum = 0.0;
    for (std::size_t i = 0; i < n; ++i) peak = std::max(peak, z[t * n + i]);
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(z[t * n + i] - peak);
    auto const chosen = static_cast<std::size_t>(target[t]);
    r.loss.back() = peak + std::log(sum) - z[t * n + chosen];
    r.mean += r.loss.back() / valid;
    for (std::size_t i = 0; i < n; ++i) {
      double const p = std::exp(z[t * n + i] - peak) / sum;
      r.d_z[t * n + i] = (p - (i == chosen ? 1.0 : 0.0)) / valid;
    }
  }
  return r;
}

/// y [R,N] = x [R,K] · w [N,K] transposed, with magnitudes.
inline expected linear(numbers const& x, numbers const& w, std::size_t rows, std::size_t outs,
                       std::size_t ins) {
  expected y(rows * outs);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t n = 0; n < outs; ++n) {
      for (std::size_t k = 0; k < ins; ++k) {
        double const product = x[r * ins + k] * w[n * ins + k];
        y[r * outs + n].value += product;
        y[r * outs + n].magnitude += std::abs(product);
      }
    }
  }
  return y;
}

inline numbers values_of(expected const& e) {
  numbers v;
  v.reserve(e.size());
  for (expectation const& x : e) v.push_back(x.value);
  return v;
}
inline numbers transposed(numbers const& x, std::size_t rows, std::size_t columns) {
  numbers y(x.size());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) y[c * rows + r] = x[r * columns + c];
  }
  return y;
}

}  // namespace shunt::test::oracle
