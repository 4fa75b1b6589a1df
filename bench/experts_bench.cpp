// The experts' products over published shapes: the first matrix with its activation, the gradients to
// rows and to weights, plain and packed weights, skewed loads. Bytes are the least that must move:
// the weights of the experts that have rows, the rows, the output.
#include <cmath>
#include <memory>
#include <shunt/experts.hpp>
#include <shunt/route/presets.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"

namespace {

using shunt::bf16;
using shunt::index_t;
using shunt::on_host;
using shunt::shape;
using shunt::view;

enum class product { forward, packed, dgrad, wgrad };
constexpr char const* names[] = {"experts_forward", "experts_packed", "experts_dgrad",
                                 "experts_wgrad"};

/// The first matrix of SwiGLU experts, [E, 2I, H], and rows as the skew lets them fall.
template <class T> struct scene {
  shape s;
  std::vector<index_t> offset;
  bench::paged<T> w, packed, a, c, dc;
  bench::paged<float> dw;
  std::size_t E, N, K, R;

  scene(shape const& is, bench::skew how, product which)
      : s(is),
        offset(static_cast<std::size_t>(is.experts) + 1),
        E(static_cast<std::size_t>(is.experts)),
        N(static_cast<std::size_t>(2 * is.intermediate)),
        K(static_cast<std::size_t>(is.hidden)) {
    for (index_t e : bench::chosen_experts(s, how, 1)) ++offset[static_cast<std::size_t>(e) + 1];
    for (std::size_t e = 0; e < E; ++e) offset[e + 1] += offset[e];
    R = static_cast<std::size_t>(offset[E]);
    a = bench::long_noise<T>(R * K, 1, 2);
    if (which != product::wgrad) w = bench::long_noise<T>(E * N * K, 0.03, 1);
    if (which == product::dgrad || which == product::wgrad) dc = bench::long_noise<T>(R * N, 1, 3);
    if (which == product::wgrad) dw.resize(E * N * K);
    if (which == product::forward || which == product::packed) c.resize(R * N / 2);
    if (which == product::packed) {
      packed.resize(static_cast<std::size_t>(weights().packed_elements()));
      (void)shunt::pack_weights(on_host{}, weights(), packed);
    }
  }
  view<T const, 3> plain() const { return {w.data(), {{s.experts, 2 * s.intermediate, s.hidden}}}; }
  shunt::expert_matrix<T> weights() const { return {plain(), shunt::pair_layout{}}; }
  shunt::segments<> rows() const { return {offset}; }
  template <class V> static auto as(V& values, std::size_t rows, std::size_t columns) {
    using element = std::remove_pointer_t<decltype(values.data())>;
    return view<element, 2>(
        values.data(), {{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)}});
  }
  /// The least that must move, in bytes.
  double bytes(product which) const {
    double used = 0;
    for (std::size_t e = 0; e < E; ++e) used += offset[e + 1] > offset[e] ? 1 : 0;
    double const matrix = static_cast<double>(N * K), row = static_cast<double>(R);
    if (which == product::wgrad) {
      return matrix * double(E) * sizeof(float) + row * double(K + N) * sizeof(T);
    }
    double const out = which == product::dgrad ? double(N) : double(N) / 2;
    return (matrix * used + row * (double(K) + out)) * sizeof(T);
  }
};

double silu(double x) { return x / (1 + std::exp(-x)); }

/// Some outputs against double: first, last and scattered ones.
template <class T> std::string verify(scene<T> const& in, product which) {
  std::vector<float> got;
  std::vector<double> want;
  auto const at = [](bench::paged<T> const& v, std::size_t i) {
    return static_cast<double>(shunt::to_float(v[i]));
  };
  std::size_t const N = in.N, K = in.K, I = N / 2;
  for (std::size_t e = 0; e < in.E; e += in.E / 3 + 1) {
    auto const first = static_cast<std::size_t>(in.offset[e]);
    auto const last = static_cast<std::size_t>(in.offset[e + 1]);
    if (first == last) continue;
    for (std::size_t j : {std::size_t{0}, std::size_t{17}, I - 1}) {
      std::size_t const r = last - 1;
      if (which == product::wgrad) {
        double sum = 0;
        for (std::size_t i = first; i < last; ++i) sum += at(in.dc, i * N + j) * at(in.a, i * K);
        got.push_back(in.dw[(e * N + j) * K]);
        want.push_back(sum);
      } else if (which == product::dgrad) {
        double sum = 0;
        for (std::size_t n = 0; n < N; ++n)
          sum += at(in.dc, r * N + n) * at(in.w, (e * N + n) * K + j);
        got.push_back(shunt::to_float(in.a[r * K + j]));
        want.push_back(sum);
      } else {
        double gate = 0, up = 0;
        for (std::size_t k = 0; k < K; ++k) {
          gate += at(in.a, r * K + k) * at(in.w, (e * N + j) * K + k);
          up += at(in.a, r * K + k) * at(in.w, (e * N + I + j) * K + k);
        }
        got.push_back(shunt::to_float(in.c[r * I + j]));
        want.push_back(silu(gate) * up);
      }
    }
  }
  return bench::compare(got.data(), want.data(), want.size(), sizeof(T) == 4 ? 1e-4 : 2e-2);
}

template <class T>
void run(benchmark::State& state, shape const& s, bench::skew how, product which, int threads) {
  scene<T> in(s, how, which);
  on_host const on{.threads = threads};
  auto const a = in.as(in.a, in.R, in.K);
  auto const call = [&] {
    shunt::status done;
    if (which == product::wgrad) {
      view<float, 3> const dw(in.dw.data(), {{s.experts, 2 * s.intermediate, s.hidden}});
      done = shunt::grouped_wgrad(on, in.as(in.dc, in.R, in.N), a, in.rows(), dw);
    } else if (which == product::dgrad) {
      done = shunt::grouped_dgrad(on, in.as(in.dc, in.R, in.N), in.plain(), in.rows(), a);
    } else {
      auto const w = which == product::packed ? shunt::expert_matrix<T>::packed(
                                                    in.packed.data(), s.experts, 2 * s.intermediate,
                                                    s.hidden, shunt::pair_layout{})
                                              : in.weights();
      done = shunt::grouped_gemm(on, a, w, in.rows(), in.as(in.c, in.R, in.N / 2), shunt::swiglu{});
    }
    if (!done.ok()) bench::fail(state, done.message());
  };
  double const flops = 2.0 * static_cast<double>(in.R) * static_cast<double>(in.N * in.K);
  bench::measure(
      state, threads, {.flops = flops, .bytes = in.bytes(which)}, [&] { return verify(in, which); },
      call);
}

}  // namespace

void bench::register_all() {
  auto const add = [](shape const& s, bench::skew how, product which, int threads) {
    std::string const skewed = how == bench::skew::uniform ? "" : bench::to_string(how);
    char const* const stage = names[static_cast<int>(which)];
    bench::add(bench::name(stage, s, "f32", threads, skewed),
               [=](benchmark::State& state) { run<float>(state, s, how, which, threads); });
    bench::add(bench::name(stage, s, "bf16", threads, skewed),
               [=](benchmark::State& state) { run<bf16>(state, s, how, which, threads); });
  };
  constexpr product all[] = {product::forward, product::packed, product::dgrad, product::wgrad};
  for (int const threads : bench::thread_counts()) {
    // 64 rows an expert, weights in a cache; then a quarter of DeepSeek-V2-Lite's experts, weights
    // from memory: 48 rows an expert, 6, 1.
    for (product which : all) add({64, 1024, 256, 1, 1}, bench::skew::uniform, which, threads);
    shape s = shunt::presets::deepseek_v2_lite.sizes;
    s.experts = 16;
    for (index_t const tokens : {128, 16, 1}) {
      s.tokens = tokens;
      for (product which : all) add(s, bench::skew::uniform, which, threads);
    }
    s.tokens = 128;
    for (bench::skew how : {bench::skew::zipf, bench::skew::one_hot, bench::skew::half_empty}) {
      add(s, how, product::forward, threads);
    }
    shape q = shunt::presets::qwen3_30b_a3b.sizes;  // a quarter of the experts too
    q.experts = 32;
    q.tokens = 128;
    add(q, bench::skew::uniform, product::forward, threads);
    add(q, bench::skew::uniform, product::packed, threads);
  }
}
