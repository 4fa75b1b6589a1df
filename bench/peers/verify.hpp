#pragma once
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "peers/feed_forward.hpp"
#include "support/bench.hpp"

/// Outputs are compared before anything is timed.
namespace bench::peers {

/// How far an output may be off.
struct tolerance {
  double some;  ///< two rows against double: the largest difference, of the largest magnitude
  double each;  ///< the same of every element against the reference
  double row;   ///< the RMS of a row's differences, of that row's
};

/// The first and last row of the first batch against double, or what is wrong.
template <class T>
std::string against_double(problem<T> const& p, std::vector<T> const& y, double bound) {
  std::size_t const H = p.H(), I = p.I();
  auto const& in = p.batches[0];
  auto const dot = [](T const* w, auto const& v, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += double(shunt::to_float(w[i])) * v[i];
    return sum;
  };
  for (std::size_t const row : {std::size_t{0}, p.R() - 1}) {
    std::size_t e = 0;
    while (std::size_t(in.offset[e + 1]) <= row) ++e;
    std::vector<double> x(H), act(I), want(H);
    std::vector<float> got(H);
    for (std::size_t h = 0; h < H; ++h) x[h] = shunt::to_float(in.x[row * H + h]);
    for (std::size_t i = 0; i < I; ++i) {
      double const gate = dot(p.up_of(e) + i * H, x, H);
      act[i] = gate / (1 + std::exp(-gate)) * dot(p.up_of(e) + (I + i) * H, x, H);
    }
    for (std::size_t h = 0; h < H; ++h) {
      want[h] = dot(p.down_of(e) + h * I, act, I);
      got[h] = shunt::to_float(y[row * H + h]);
    }
    if (auto const bad = compare(got.data(), want.data(), H, bound); !bad.empty()) {
      return "against double: " + bad;
    }
  }
  return {};
}

/// The largest RMS of a row's differences, of the row's RMS, where that is beyond the bound.
inline std::string compare_rows(std::vector<float> const& got, std::vector<double> const& want,
                                std::size_t width, double bound) {
  double ratio = 0;
  for (std::size_t at = 0; at < want.size(); at += width) {
    double off = 0, all = 0;
    for (std::size_t i = at; i < at + width; ++i) {
      off += (got[i] - want[i]) * (got[i] - want[i]);
      all += want[i] * want[i];
    }
    ratio = std::max(ratio, std::sqrt(off / all));
  }
  if (ratio <= bound) return {};
  char text[96];
  std::snprintf(text, sizeof text,
                "the RMS of a row's differences is %.3g of the row's (allowed %.3g)", ratio, bound);
  return text;
}

/// Every element of the first two batches against the reference's, or what is wrong.
template <class T>
std::string against(problem<T> const& p, contestant<T>& reference, contestant<T>& other,
                    tolerance const& allowed) {
  std::vector<T> y(p.R() * p.H()), z(y.size());
  std::vector<double> want(y.size());
  std::vector<float> got(y.size());
  for (auto const& in : p.batches) {
    if (&in == &p.batches[0] + 2) break;
    reference.run(in, y.data());
    other.run(in, z.data());
    other.finish(in, z.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      want[i] = shunt::to_float(y[i]);
      got[i] = shunt::to_float(z[i]);
    }
    auto bad = compare(got.data(), want.data(), y.size(), allowed.each);
    if (bad.empty()) bad = compare_rows(got, want, p.H(), allowed.row);
    if (bad.empty() && &in == &p.batches[0]) bad = against_double(p, z, allowed.some);
    if (!bad.empty()) return bad;
  }
  return {};
}

}  // namespace bench::peers
