#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "support/oracle_layer_math.hpp"

/// The MoE layer in double, naive: one token after the other, no plan, no rows; its gradients and its choice.
namespace shunt::test {

/// What the formulas give.
template <class S> struct layer_result {
  std::vector<S> logits, scores, gates, y;  // [T,E] [T,E] [T,K] [T,Hm]
  S aux{0.0};                               // the losses, with their coefficients
};

template <class S>
layer_result<S> layer_forward(layer_formula const& f, layer_numbers<S> const& n) {
  using layer_math::at;
  layer_result<S> r;
  layer_math::loss_sums<S> sums(f.experts);
  for (int t = 0; t < f.tokens; ++t) {
    std::vector<S> const x(n.x.begin() + t * f.width, n.x.begin() + (t + 1) * f.width);
    layer_math::token_scores<S> const token = layer_math::score(f, n, x);
    r.logits.insert(r.logits.end(), token.z.begin(), token.z.end());
    r.scores.insert(r.scores.end(), token.s.begin(), token.s.end());
    std::vector<S> g(at(f.top_k), S(0.0)), y(at(f.width), S(0.0));
    if (f.counts(t)) {
      sums.see(f, token, f.chosen.data() + t * f.top_k);
      g = layer_math::gates(f, token, t);
      y = layer_math::output(f, n, t, x, g);
    }
    r.gates.insert(r.gates.end(), g.begin(), g.end());
    r.y.insert(r.y.end(), y.begin(), y.end());
  }
  r.aux = sums.loss(f);
  return r;
}

/// Gradients of sum(d_y * y) + losses, by the tape: the same formulas, nothing derived by hand.
inline layer_numbers<expectation> layer_gradients(layer_formula const& f,
                                                  layer_numbers<double> const& numbers,
                                                  std::vector<double> const& d_y,
                                                  layer_result<var>* result = nullptr) {
  tape& way = tape::current();
  way.clear();
  layer_numbers<var> on_tape;
  auto from = numbers;
  on_tape.each(
      [](std::vector<var>& to, std::vector<double>& plain) {
        for (double v : plain) to.push_back(var::leaf(v));
      },
      from);
  layer_result<var> const r = layer_forward(f, on_tape);
  way.start();
  for (std::size_t i = 0; i < r.y.size(); ++i) way.seed(r.y[i].at, d_y[i]);
  way.seed(r.aux.at, 1.0);
  way.run();
  layer_numbers<expectation> gradients;
  gradients.each(
      [&](std::vector<expectation>& to, std::vector<var>& leaves) {
        for (var const& v : leaves) to.push_back(way.gradient(v.at));
      },
      on_tape);
  if (result != nullptr) *result = r;
  return gradients;
}

/// The same by central differences, for one number: what proves the tape.
inline double layer_difference(layer_formula const& f, layer_numbers<double> numbers,
                               std::vector<double> const& d_y,
                               std::vector<double> layer_numbers<double>::*which, std::size_t i) {
  double const here = (numbers.*which)[i], step = 1e-5 * std::max(1.0, std::abs(here));
  double total[2];
  for (int side = 0; side < 2; ++side) {
    (numbers.*which)[i] = side == 0 ? here - step : here + step;
    auto const r = layer_forward(f, numbers);
    total[side] = r.aux;
    for (std::size_t j = 0; j < r.y.size(); ++j) total[side] += d_y[j] * r.y[j];
  }
  return (total[1] - total[0]) / (2.0 * step);
}

/// The choice by the formulas: top-k of score + bias, within the best groups where there are groups.
/// `margin` is the least distance by which any token's choice was decided: near ties may go either
/// way in float.
struct layer_choice {
  std::vector<index_t> ids;
  double margin = 1e300;
};
inline layer_choice choose(layer_formula const& f, std::vector<double> const& scores,
                           std::vector<double> const& bias, int groups = 1, int top_groups = 1,
                           group_rule by = group_rule::best) {
  layer_choice c;
  int const each = f.experts / groups;
  for (int t = 0; t < f.tokens; ++t) {
    std::vector<double> s(scores.begin() + t * f.experts, scores.begin() + (t + 1) * f.experts);
    for (std::size_t e = 0; e < bias.size(); ++e) s[e] += bias[e];
    std::vector<std::pair<double, int>> ranked;
    for (int g = 0; g < groups; ++g) {
      std::vector<double> inside(s.begin() + g * each, s.begin() + (g + 1) * each);
      std::sort(inside.rbegin(), inside.rend());
      bool const two = by == group_rule::sum_of_two_best && each > 1;
      ranked.push_back({two ? inside[0] + inside[1] : inside[0], -g});
    }
    std::sort(ranked.rbegin(), ranked.rend());
    if (groups > top_groups) {
      auto const last = static_cast<std::size_t>(top_groups);
      c.margin = std::min(c.margin, ranked[last - 1].first - ranked[last].first);
    }
    std::vector<std::pair<double, int>> open;
    for (int g = 0; g < top_groups; ++g) {
      int const first = -ranked[static_cast<std::size_t>(g)].second * each;
      for (int e = first; e < first + each; ++e)
        open.push_back({s[static_cast<std::size_t>(e)], -e});
    }
    std::sort(open.rbegin(), open.rend());
    for (int k = 0; k < f.top_k; ++k) {
      auto const place = static_cast<std::size_t>(k);
      c.ids.push_back(f.counts(t) ? -open[place].second : -1);
      if (place + 1 < open.size() && f.counts(t)) {
        c.margin = std::min(c.margin, open[place].first - open[place + 1].first);
      }
    }
  }
  return c;
}

}  // namespace shunt::test
