#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

#include "support/compare.hpp"

namespace shunt::test {

/// Doubles that remember how they were made: gradients of any formula by the chain rule, so that an
/// oracle states the forward formulas only. Each value also carries its magnitude, the sum of what
/// went into it without signs: what float arithmetic can lose is a small multiple of that.
class tape {
 public:
  struct node {
    int a, b;         // parents, or -1
    double da, db;    // partial derivatives
    double mda, mdb;  // their magnitudes
  };
  static tape& current() {
    static thread_local tape only;
    return only;
  }
  void clear() { nodes_.clear(); }
  int add(node const& n) {
    nodes_.push_back(n);
    return static_cast<int>(nodes_.size()) - 1;
  }
  /// Starts the way back with `seed` as the gradient of nothing; call seed() for each output.
  void start() { back_.assign(nodes_.size(), {}); }
  void seed(int at, double gradient) {
    if (at < 0) return;
    back_[static_cast<std::size_t>(at)].value += gradient;
    back_[static_cast<std::size_t>(at)].magnitude += std::abs(gradient);
  }
  void run() {
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      node const& n = nodes_[i];
      expectation const g = back_[i];
      if (n.a >= 0) pass(n.a, g, n.da, n.mda);
      if (n.b >= 0) pass(n.b, g, n.db, n.mdb);
    }
  }
  [[nodiscard]] expectation gradient(int at) const {
    return at < 0 ? expectation{} : back_[static_cast<std::size_t>(at)];
  }

 private:
  void pass(int to, expectation g, double d, double md) {
    back_[static_cast<std::size_t>(to)].value += g.value * d;
    back_[static_cast<std::size_t>(to)].magnitude += g.magnitude * md;
  }
  std::vector<node> nodes_;
  std::vector<expectation> back_;
};

/// A value on the tape, or a constant (at < 0).
struct var {
  double v = 0.0, m = 0.0;
  int at = -1;
  var() = default;
  var(double value) : v(value), m(std::abs(value)) {}
  static var leaf(double value) {
    var x(value);
    x.at = tape::current().add({-1, -1, 0, 0, 0, 0});
    return x;
  }
};

namespace tape_detail {
inline var record(double v, double m, var const& a, double da, double mda, var const& b = {},
                  double db = 0.0, double mdb = 0.0) {
  var r;
  r.v = v;
  r.m = std::max(m, std::abs(v));
  if (a.at >= 0 || b.at >= 0) r.at = tape::current().add({a.at, b.at, da, db, mda, mdb});
  return r;
}
/// f(x) with derivative d; the derivative's own error is charged as if f'' were at most 1.
inline var smooth(var const& x, double f, double d) {
  return record(f, std::abs(f) + std::abs(d) * x.m, x, d, std::abs(d) + x.m);
}
}  // namespace tape_detail

inline var operator+(var const& a, var const& b) {
  if (a.at < 0 && a.v == 0.0) return b;
  return tape_detail::record(a.v + b.v, a.m + b.m, a, 1, 1, b, 1, 1);
}
inline var operator-(var const& a, var const& b) {
  return tape_detail::record(a.v - b.v, a.m + b.m, a, 1, 1, b, -1, 1);
}
inline var operator*(var const& a, var const& b) {
  return tape_detail::record(a.v * b.v, a.m * b.m, a, b.v, b.m, b, a.v, a.m);
}
inline var operator/(var const& a, var const& b) {
  double const inverse = 1.0 / b.v, q = a.v * inverse;
  double const grow = b.m / std::abs(b.v);
  return tape_detail::record(q, a.m * std::abs(inverse) * grow, a, inverse,
                             std::abs(inverse) * grow, b, -q * inverse,
                             a.m * inverse * inverse * grow);
}

inline var exp(var const& x) { return tape_detail::smooth(x, std::exp(x.v), std::exp(x.v)); }
inline var log(var const& x) {
  return tape_detail::record(std::log(x.v), std::abs(std::log(x.v)) + x.m / std::abs(x.v), x,
                             1.0 / x.v, 1.0 / std::abs(x.v));
}
inline var log1p(var const& x) {
  return tape_detail::smooth(x, std::log1p(x.v), 1.0 / (1.0 + x.v));
}
inline var sqrt(var const& x) {
  double const r = std::sqrt(x.v);
  return tape_detail::record(r, r + 0.5 * x.m / r, x, 0.5 / r, 0.5 / r * (1.0 + x.m / x.v));
}
inline var tanh(var const& x) {
  double const t = std::tanh(x.v);
  return tape_detail::smooth(x, t, 1.0 - t * t);
}
inline var erf(var const& x) {
  return tape_detail::smooth(x, std::erf(x.v),
                             2.0 * std::numbers::inv_sqrtpi * std::exp(-x.v * x.v));
}
/// The derivative is 0 exactly where the bound replaced the value.
inline var at_most(var const& x, double bound) { return x.v > bound ? var(bound) : x; }
inline var at_least(var const& x, double bound) { return x.v < bound ? var(bound) : x; }

// The same for plain doubles, so that one formula serves both.
inline double at_most(double x, double bound) { return x > bound ? bound : x; }
inline double at_least(double x, double bound) { return x < bound ? bound : x; }
inline double plain(double x) { return x; }
inline double plain(var const& x) { return x.v; }

}  // namespace shunt::test
