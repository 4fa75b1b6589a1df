#pragma once
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/bench.hpp"
#include "support/layer_scene.hpp"

/// Verifies a layer's scene, and times it.
namespace bench::layers {

/// The naive layer, in double, one (token, expert) at a time.
template <class T> struct naive {
  scene<T> const& in;
  shape const& s = in.s;

  double x(index t, index h) const { return to_float(in.x[t * index(s.hidden) + h]); }
  double d_y(index t, index h) const { return to_float(in.d_y[t * index(s.hidden) + h]); }
  index_t id(index t, index k) const { return in.choices[in.batch][t * index(s.top_k) + k]; }
  double pre(index t, index e, index row) const {
    T const* const w = in.m.up.data() + (e * 2 * index(s.intermediate) + row) * index(s.hidden);
    double sum = 0;
    for (index h = 0; h < index(s.hidden); ++h) sum += double(to_float(w[h])) * x(t, h);
    return sum;
  }
  double down(index e, index h, index i) const {
    return to_float(in.m.down[(e * index(s.hidden) + h) * index(s.intermediate) + i]);
  }
  std::vector<double> scores(index t) const {
    std::vector<double> z;
    double total = 0;
    for (index e = 0; e < index(s.experts); ++e) {
      double sum = 0;
      for (index h = 0; h < index(s.hidden); ++h) {
        sum += double(to_float(in.m.gate[e * index(s.hidden) + h])) * x(t, h);
      }
      z.push_back(std::exp(sum));
      total += z.back();
    }
    for (double& v : z) v /= total;
    return z;
  }
  struct unit {
    double act, d_gate, d_up;  // f(g, u) and its slopes
  };
  unit at(index t, index e, index i) const {
    double const g = pre(t, e, i), u = pre(t, e, index(s.intermediate) + i);
    double const sig = 1 / (1 + std::exp(-g));
    return {g * sig * u, u * sig * (1 + g * (1 - sig)), g * sig};
  }
  /// y and d_x of one token.
  void token(index t, std::vector<double>& y, std::vector<double>& d_x, bool training) const {
    auto const H = index(s.hidden), I = index(s.intermediate), E = index(s.experts);
    y.assign(H, 0), d_x.assign(H, 0);
    auto const score = scores(t);
    std::vector<double> d_score(E, 0);
    for (index k = 0; k < index(s.top_k); ++k) {
      auto const e = index(id(t, k));
      for (index i = 0; i < I; ++i) {
        unit const f = at(t, e, i);
        double d_act = 0;
        for (index h = 0; h < H; ++h) {
          y[h] += score[e] * down(e, h, i) * f.act;
          d_act += d_y(t, h) * down(e, h, i);
        }
        if (!training) continue;
        d_score[e] += d_act * f.act;
        T const* const g = in.m.up.data() + (e * 2 * I + i) * H;
        for (index h = 0; h < H; ++h) {
          d_x[h] += score[e] * d_act *
                    (f.d_gate * double(to_float(g[h])) + f.d_up * double(to_float(g[I * H + h])));
        }
      }
    }
    double mean = 0;
    for (index e = 0; e < E; ++e) mean += score[e] * d_score[e];
    for (index e = 0; training && e < E; ++e) {
      double const d = score[e] * (d_score[e] - mean);
      for (index h = 0; h < H; ++h) d_x[h] += d * double(to_float(in.m.gate[e * H + h]));
    }
  }
  /// Column i of down's gradient, and row i of the gate half of up's, of one expert.
  void expert(index e, index i, std::vector<double>& d_down, std::vector<double>& d_up) const {
    auto const H = index(s.hidden);
    d_down.assign(H, 0), d_up.assign(H, 0);
    for (index t = 0; t < index(s.tokens); ++t) {
      for (index k = 0; k < index(s.top_k); ++k) {
        if (index(id(t, k)) != e) continue;
        unit const f = at(t, e, i);
        double const gate = scores(t)[e];
        double d_act = 0;
        for (index h = 0; h < H; ++h) {
          d_down[h] += d_y(t, h) * gate * f.act;
          d_act += d_y(t, h) * down(e, h, i);
        }
        for (index h = 0; h < H; ++h) d_up[h] += gate * d_act * f.d_gate * x(t, h);
      }
    }
  }
};

template <class T> std::string verify(scene<T>& in, bool training) {
  constexpr double tolerance = std::is_same_v<T, float> ? 2e-5 : 2e-2;
  auto const H = index(in.s.hidden), I = index(in.s.intermediate);
  naive<T> const want{in};
  std::vector<double> y, d_x;
  std::vector<float> got(H);
  auto const differs = [&](char const* what, auto const& from, index at, index step,
                           std::vector<double> const& expected) -> std::string {
    for (index h = 0; h < H; ++h) got[h] = to_float(from[at + h * step]);
    std::string const wrong = bench::compare(got.data(), expected.data(), H, tolerance);
    return wrong.empty() ? wrong : std::string(what) + ": " + wrong;
  };
  for (index t : std::set<index>{0, index(in.s.tokens) - 1}) {
    want.token(t, y, d_x, training);
    if (auto const wrong = differs("y", in.y, t * H, 1, y); !wrong.empty()) return wrong;
    if (!training) continue;
    if (auto const wrong = differs("d_x", in.d_x, t * H, 1, d_x); !wrong.empty()) return wrong;
  }
  if (!training) return {};
  auto const e = index(want.id(0, 0));
  for (index i : std::set<index>{0, I - 1}) {
    want.expert(e, i, y, d_x);
    if (auto const wrong = differs("d_down", in.m.d_down, e * H * I + i, I, y); !wrong.empty()) {
      return wrong;
    }
    if (auto const wrong = differs("d_up", in.m.d_up, (e * 2 * I + i) * H, 1, d_x);
        !wrong.empty()) {
      return wrong;
    }
  }
  return {};
}

/// A few tokens and weights are recomputed in double before anything is timed. Bytes: the weights of
/// the experts touched, tokens, and gradients.
template <class T>
void measure_layer(benchmark::State& state, shape const& s, std::vector<std::vector<index_t>> ids,
                   int threads, bool packed, bool training) {
  scene<T> in(s, std::move(ids), threads, packed, training);
  double const rows = double(s.tokens) * s.top_k, h = s.hidden, i = s.intermediate;
  double const expert = 3 * h * i, tokens = double(s.tokens) * h * sizeof(T);
  double const flops = 2 * rows * expert + 2 * double(s.tokens) * s.experts * h;
  double const read = in.touched() * expert * sizeof(T);
  bench::work const forward{.flops = flops, .bytes = read + 2 * tokens};
  bench::work const both{.flops = 3 * flops,
                         .bytes = 2 * read + 5 * tokens + double(s.experts) * expert * 4};
  std::string failed;
  auto const call = [&] {
    status done = in.forward(training);
    if (done.ok() && training) done = in.backward();
    if (!done.ok()) failed = done.message();
  };
  bench::measure(
      state, threads, training ? both : forward,
      [&] { return failed.empty() ? verify(in, training) : failed; }, call);
}

}  // namespace bench::layers
