// The router: choice and gates, with the load and the z of training, backward, and the projection.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <shunt/route.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"

namespace {

using namespace shunt;

template <class T> constexpr char const* type_name = std::is_same_v<T, float> ? "f32" : "bf16";

template <class T> struct job {
  preset const& p;
  index_t tokens;
  on_host on;
  std::vector<T> logits, d_logits;
  std::vector<float> plain, gate, importance, z, bias, d_gate, d_importance, d_z;
  std::vector<index_t> expert, counts, total;
  std::vector<std::byte> bytes;
  routing<> out;
  route_inputs<> with;

  job(preset const& what, index_t t, int threads, bench::skew skew)
      : p(what), tokens(t), on{.threads = threads} {
    shape const s{.tokens = t, .experts = p.sizes.experts, .top_k = p.sizes.top_k};
    auto const te = std::size_t(t) * std::size_t(s.experts);
    auto const tk = std::size_t(t) * std::size_t(s.top_k);
    plain = bench::logits(s, skew, 7);
    for (float x : plain) logits.push_back(from_float<T>(x));
    for (std::size_t i = 0; i < te; ++i) plain[i] = to_float(logits[i]);
    d_logits.resize(te);
    gate.resize(tk), expert.resize(tk), z.resize(std::size_t(t));
    importance.resize(std::size_t(s.experts)), counts.resize(std::size_t(s.experts));
    total.resize(1);
    bias = bench::noise(std::size_t(s.experts), 0.01f, 3);
    d_gate = bench::noise(tk, 1.0f, 4);
    d_importance = bench::noise(std::size_t(s.experts), 1.0f, 5);
    d_z = bench::noise(std::size_t(t), 1.0f, 6);
    bytes.resize(route_scratch_bytes(on, s));
    out.expert = {expert.data(), {{t, s.top_k}}};
    out.gate = {gate.data(), {{t, s.top_k}}};
    if (p.choice_bias) with.choice_bias = bias;
  }
  view<T const, 2> in() const { return {logits.data(), {{tokens, p.sizes.experts}}}; }
  void want_load() {
    out.counts = counts;
    out.importance = importance;
    out.tokens = total;
    out.z = z;
  }
  std::string forward() {
    status const s = route(on, in(), with, out, arena<>(bytes), p.route);
    return s.ok() ? std::string() : s.message();
  }
  std::string backward() {
    route_gradients<> d;
    d.gate = {d_gate.data(), {{tokens, p.sizes.top_k}}};
    d.importance = d_importance;
    d.z = d_z;
    status const s = route_backward(on, in(), with, out, d,
                                    view<T, 2>(d_logits.data(), {{tokens, p.sizes.experts}}),
                                    arena<>(bytes), p.route);
    return s.ok() ? std::string() : s.message();
  }
  /// Every chosen expert's key is at least every other's, and gates are the scores' (softmax and
  /// sigmoid, without groups; a sum elsewhere).
  std::string verify() const {
    auto const experts = std::size_t(p.sizes.experts), top_k = std::size_t(p.sizes.top_k);
    for (std::size_t t = 0; t < std::size_t(tokens); ++t) {
      float const* const row = plain.data() + t * experts;
      std::vector<bool> taken(experts, false);
      double sum = 0.0, least = 1e30;
      auto const key = [&](std::size_t e) {
        double const x = static_cast<double>(row[e]);
        double const s = p.route.score == score_kind::sigmoid ? 1.0 / (1.0 + std::exp(-x))
                         : p.route.score == score_kind::sqrt_softplus
                             ? std::sqrt(std::log1p(std::exp(x)))
                             : x;
        return s + (p.choice_bias && p.route.score != score_kind::softmax
                        ? static_cast<double>(bias[e])
                        : 0.0);
      };
      for (std::size_t k = 0; k < top_k; ++k) {
        index_t const id = expert[t * top_k + k];
        if (id == -1 && k == 1 && p.route.random_second) continue;  // the draw left it out
        if (id < 0 || std::size_t(id) >= experts || taken[std::size_t(id)]) {
          return "token " + std::to_string(t) + " has a wrong or a repeated expert";
        }
        taken[std::size_t(id)] = true;
        least = std::min(least, key(std::size_t(id)));
        sum += static_cast<double>(gate[t * top_k + k]);
      }
      bool const simple = p.route.groups == 1 && p.route.jitter == 0.0f &&
                          !(p.choice_bias && p.route.score == score_kind::softmax);
      for (std::size_t e = 0; simple && e < experts; ++e) {
        if (!taken[e] && key(e) > least + 1e-5) return "a better expert was left out";
      }
      bool const sums_to_scale = p.route.gates != gate_kind::raw && !p.route.random_second;
      if (sums_to_scale && std::abs(sum / static_cast<double>(p.route.scale) - 1.0) > 1e-4) {
        return "gates do not sum to the scale";
      }
    }
    return {};
  }
};

/// kind 0: choice and gates; 1: with counts, importance and z; 2: backward.
template <class T>
void run(benchmark::State& state, preset const& p, index_t tokens, int threads, bench::skew skew,
         int kind) {
  job<T> j(p, tokens, threads, skew);
  if (kind > 0) j.want_load();
  std::string wrong = j.forward();
  if (wrong.empty()) wrong = j.verify();
  if (!wrong.empty()) {
    bench::fail(state, wrong);
    return;
  }
  double const te = double(tokens) * p.sizes.experts, tk = double(tokens) * p.sizes.top_k;
  double const bytes = te * sizeof(T) * (kind == 2 ? 2.0 : 1.0) + tk * 8.0;
  bench::measure(
      state, threads, {.bytes = bytes},
      [&]() -> std::string {
        if (kind < 2) return j.verify();
        double sum = 0.0;
        for (T g : j.d_logits) sum += std::abs(static_cast<double>(to_float(g)));
        return std::isfinite(sum) && sum > 0.0 ? std::string()
                                               : "the gradient is not a number, or 0";
      },
      [&] { wrong = kind == 2 ? j.backward() : j.forward(); });
  if (!wrong.empty()) bench::fail(state, wrong);
  state.counters["per_token"] = benchmark::Counter(
      double(tokens), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

template <class T>
void projection(benchmark::State& state, preset const& p, index_t tokens, int threads) {
  index_t const hidden = p.model_hidden != 0 ? p.model_hidden : p.sizes.hidden;
  index_t const experts = p.sizes.experts;
  std::vector<T> x, w;
  for (float v : bench::noise(std::size_t(tokens) * std::size_t(hidden), 1.0f, 1)) {
    x.push_back(from_float<T>(v));
  }
  for (float v : bench::noise(std::size_t(experts) * std::size_t(hidden), 0.05f, 2)) {
    w.push_back(from_float<T>(v));
  }
  std::vector<float> logits(std::size_t(tokens) * std::size_t(experts));
  on_host const on{.threads = threads};
  std::string wrong;
  bench::measure(
      state, threads,
      {.flops = 2.0 * tokens * experts * hidden,
       .bytes = double(sizeof(T)) * (double(tokens) + experts) * hidden},
      [&]() -> std::string {
        if (!wrong.empty()) return wrong;
        std::vector<float> got;
        std::vector<double> want;
        for (index_t e = 0; e < experts; ++e) {  // the last token's
          double sum = 0.0;
          for (index_t h = 0; h < hidden; ++h) {
            sum += static_cast<double>(to_float(x[std::size_t((tokens - 1) * hidden + h)])) *
                   static_cast<double>(to_float(w[std::size_t(e * hidden + h)]));
          }
          want.push_back(sum);
          got.push_back(logits[std::size_t((tokens - 1) * experts + e)]);
        }
        return bench::compare(got.data(), want.data(), got.size(), 1e-4);
      },
      [&] {
        status const s = gate_logits(on, view<T const, 2>(x.data(), {{tokens, hidden}}),
                                     view<T const, 2>(w.data(), {{experts, hidden}}),
                                     view<float, 2>(logits.data(), {{tokens, experts}}));
        if (!s.ok()) wrong = s.message();
      });
}

shape sizes_of(preset const& p, index_t tokens) {
  return {.tokens = tokens, .experts = p.sizes.experts, .top_k = p.sizes.top_k};
}

template <class T> void add_all() {
  for (int const threads : bench::thread_counts()) {
    for (preset const* p : presets::all) {
      if (p->choice == choice_kind::expert_choice) continue;
      char const* const kinds[] = {"route", "route_load", "route_backward"};
      for (int kind = 0; kind < 3; ++kind) {
        std::string const stage = std::string(kinds[kind]) + "/" + p->name;
        for (index_t const tokens : {1, 512}) {
          bench::add(bench::name(stage, sizes_of(*p, tokens), type_name<T>, threads),
                     [=](benchmark::State& s) {
                       run<T>(s, *p, tokens, threads, bench::skew::uniform, kind);
                     });
        }
      }
    }
    for (bench::skew const skew : bench::skews) {
      preset const* const p = &presets::deepseek_v3;
      bench::add(bench::name("route_load/DeepSeek-V3", sizes_of(*p, 512), type_name<T>, threads,
                             bench::to_string(skew)),
                 [=](benchmark::State& s) { run<T>(s, *p, 512, threads, skew, 1); });
    }
    for (preset const* p : {&presets::qwen3_30b_a3b, &presets::deepseek_v2_lite}) {
      shape s = sizes_of(*p, 512);
      s.hidden = p->sizes.hidden;
      bench::add(bench::name(std::string("gate_logits/") + p->name, s, type_name<T>, threads),
                 [=](benchmark::State& state) { projection<T>(state, *p, 512, threads); });
    }
  }
}

}  // namespace

void bench::register_all() {
  add_all<float>();
  add_all<bf16>();
}
