// The whole layer: from tokens to tokens, and back with every weight gradient. The load is forced (a
// recorded choice), so that a skew is what it says; small batches go through other experts at each
// call, so that weights come from where they lie. A few tokens and weights are recomputed in double
// before anything is timed. Bytes: the weights of the experts touched, tokens, and gradients.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <set>
#include <shunt/layer.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"

namespace {

using namespace shunt;
using bench::skew;
using index = std::size_t;

template <class T> constexpr char const* type_name = std::is_same_v<T, float> ? "f32" : "bf16";

void (*release)() = nullptr;  // gives back what the last model held

/// Weights of one shape and type; only the last one asked for is held.
template <class T> struct model {
  shape s;
  std::vector<T> gate, up, down, packed_up, packed_down;
  std::vector<float> d_gate, d_up, d_down;

  explicit model(shape const& is) : s(is) {
    auto const e = index(s.experts), h = index(s.hidden), i = index(s.intermediate);
    gate = bench::long_noise<T>(e * h, 2.0 / std::sqrt(double(h)), 1);
    up = bench::long_noise<T>(e * 2 * i * h, 2.0 / std::sqrt(double(h)), 2);
    down = bench::long_noise<T>(e * h * i, 2.0 / std::sqrt(double(i)), 3);
  }
  static model& of(shape const& is, bool packed, bool training) {
    if (release != &model::drop) {
      if (release != nullptr) release();
      release = &model::drop;
    }
    if (!held || held->s.experts != is.experts || held->s.hidden != is.hidden ||
        held->s.intermediate != is.intermediate) {
      held.reset();
      held = std::make_unique<model>(is);
    }
    if (!packed) held->packed_up = held->packed_down = {};
    if (packed && held->packed_up.empty()) held->pack();
    if (training) {
      held->d_gate.resize(held->gate.size());
      held->d_up.resize(held->up.size());
      held->d_down.resize(held->down.size());
    } else {
      held->d_up = held->d_down = {};
    }
    return *held;
  }

  view<T const, 3> up_view() const {
    return {up.data(), {{s.experts, 2 * s.intermediate, s.hidden}}};
  }
  view<T const, 3> down_view() const {
    return {down.data(), {{s.experts, s.hidden, s.intermediate}}};
  }
  moe_weights<T> weights(bool packed) const {
    moe_weights<T> w;
    w.gate = view<T const, 2>(gate.data(), {{s.experts, s.hidden}});
    w.up = up_view();
    w.down = down_view();
    if (packed) {
      w.up = expert_matrix<T>::packed(packed_up.data(), s.experts, 2 * s.intermediate, s.hidden,
                                      pair_layout{});
      w.down = expert_matrix<T>::packed(packed_down.data(), s.experts, s.hidden, s.intermediate);
    }
    return w;
  }
  moe_gradients<> gradients() {
    moe_gradients<> g;
    g.gate = view<float, 2>(d_gate.data(), {{s.experts, s.hidden}});
    g.up = view<float, 3>(d_up.data(), {{s.experts, 2 * s.intermediate, s.hidden}});
    g.down = view<float, 3>(d_down.data(), {{s.experts, s.hidden, s.intermediate}});
    return g;
  }

 private:
  static inline std::unique_ptr<model> held;
  static void drop() { held.reset(); }

  void pack() {
    auto const put = [](expert_matrix<T> const& m, std::vector<T>& to) {
      to.resize(index(m.packed_elements()));
      (void)pack_weights(on_host{}, m, view<T, 1>(to));
    };
    put(expert_matrix<T>(up_view(), pair_layout{}), packed_up);
    put(expert_matrix<T>(down_view()), packed_down);
  }
};

template <class T> struct scene {
  model<T>& m;
  shape s;
  on_host on;
  moe_weights<T> w;
  layer_options<> o;
  std::vector<T> x, d_y, y, d_x;
  std::vector<std::vector<index_t>> choices;  // one for each batch of a cycle
  index batch = 0;
  std::vector<std::byte> keep, work;
  moe_saved<T> saved;

  scene(shape const& is, skew how, int threads, bool packed, bool training)
      : m(model<T>::of(is, packed, training)), s(is), on{.threads = threads}, w(m.weights(packed)) {
    index const count = index(s.tokens) * index(s.hidden);
    x = bench::noise<T>(count, 1.0, 4);
    d_y = bench::noise<T>(count, 1.0, 5);
    y.resize(count);
    d_x.resize(count);
    for (std::uint64_t seed = 1; seed <= (s.tokens <= 8 ? 16u : 1u); ++seed) {
      choices.push_back(bench::chosen_experts(s, how, seed));
    }
    o.top_k = s.top_k;
    give_choice();
    if (training) {
      keep.resize(moe_saved_bytes(s.tokens, w, o));
      arena<> from(keep);
      saved = carve_moe_saved(from, s.tokens, w, o);
    }
    index const back = training ? moe_layer_backward_scratch_bytes(on, s.tokens, w, o) : 0;
    work.resize(std::max(back, moe_layer_scratch_bytes(on, s.tokens, w, o, training)));
  }
  view<T const, 2> tokens(std::vector<T> const& v) const {
    return {v.data(), {{s.tokens, s.hidden}}};
  }
  void give_choice() {
    o.ids = view<index_t const, 2>(choices[batch].data(), {{s.tokens, s.top_k}});
  }
  status forward(bool training) {
    batch = (batch + 1) % choices.size();
    give_choice();
    return moe_layer(on, tokens(x), w, view<T, 2>(y.data(), {{s.tokens, s.hidden}}), arena<>(work),
                     o, training ? &saved : nullptr);
  }
  status backward() {
    return moe_layer_backward(on, tokens(x), w, tokens(d_y), saved,
                              view<T, 2>(d_x.data(), {{s.tokens, s.hidden}}), m.gradients(),
                              arena<>(work), o);
  }
  /// Experts that at least one token chose, of the mean batch of the cycle.
  double touched() const {
    double all = 0;
    for (auto const& ids : choices) all += double(std::set<index_t>(ids.begin(), ids.end()).size());
    return all / double(choices.size());
  }
};

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

template <class T>
void layer(benchmark::State& state, shape const& s, skew how, int threads, bool packed,
           bool training) {
  scene<T> in(s, how, threads, packed, training);
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

/// Half the machine's memory holds the weights and what training adds.
bool fits(shape const& s, double bytes_each) {
  double const all = 3.0 * s.experts * double(s.hidden) * s.intermediate * bytes_each;
  return all < 0.5 * double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE));
}

template <class T> void add_all(char const* suffix, shape s, bool small) {
  for (bool training : {false, true}) {
    for (bool packed : {false, true}) {
      if (packed && training) continue;
      double const each = sizeof(T) * (packed ? 2.0 : 1.0) + (training ? 4.0 : 0.0);
      if (!fits(s, each)) continue;
      std::string const stage = std::string("layer") +
                                (training ? "_training"
                                 : packed ? "_packed"
                                          : "") +
                                suffix;
      for (index_t tokens : {1, 8, 64, 512}) {
        for (int threads : bench::thread_counts()) {
          for (skew how : bench::skews) {
            if (how != skew::uniform && (tokens != 512 || packed || !small)) continue;
            s.tokens = tokens;
            bench::add(bench::name(stage, s, type_name<T>, threads,
                                   how == skew::uniform ? "" : bench::to_string(how)),
                       [=](benchmark::State& state) {
                         layer<T>(state, s, how, threads, packed, training);
                       });
          }
        }
      }
    }
  }
}
}  // namespace

void bench::register_all() {
  struct {
    char const* suffix;
    shape s;
    bool small;
  } const all[] = {
      {"", {.hidden = 128, .intermediate = 256, .experts = 16, .top_k = 2}, true},
      {"", {.hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6}, true},
      {"", presets::deepseek_v2_lite.sizes, false},
      {"", presets::qwen3_30b_a3b.sizes, false},
      // DeepSeek-V3 with its widths divided by four and an eighth of its experts.
      {"_scaled", {.hidden = 1792, .intermediate = 512, .experts = 32, .top_k = 8}, false},
  };
  for (auto const& one : all) {
    add_all<float>(one.suffix, one.s, one.small);
    add_all<bf16>(one.suffix, one.s, one.small);
  }
}
