// What stands beside the experts in a transformer: norm, attention, decoding, loss, optimizer. Attention
// counts the multiply-adds of the causal half only.
#include <cmath>
#include <shunt/nn/attention.hpp>
#include <shunt/nn/cross_entropy.hpp>
#include <shunt/nn/kv_cache.hpp>
#include <shunt/nn/norm.hpp>
#include <shunt/nn/optimizer.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"

namespace {

using shunt::bf16;
using shunt::index_t;
using shunt::on_host;
using shunt::to_float;
using shunt::view;
namespace nn = shunt::nn;

std::size_t product(std::initializer_list<index_t> extents) {
  std::size_t n = 1;
  for (index_t e : extents) n *= static_cast<std::size_t>(e);
  return n;
}

template <class T> struct attention_scene {
  nn::attention_shape s;
  std::vector<T> q, k, v, out, d_out, d_q, d_k, d_v;
  std::vector<float> log_sum;
  std::vector<std::byte> work;

  attention_scene(nn::attention_shape const& is, on_host const& on)
      : s(is),
        q(bench::noise<T>(product({s.batch, s.length, s.heads, s.head_dim}), 2, 1)),
        k(bench::noise<T>(product({s.batch, s.length, s.kv_heads, s.head_dim}), 2, 2)),
        v(bench::noise<T>(k.size(), 2, 3)),
        out(q.size()),
        d_out(bench::noise<T>(q.size(), 1, 4)),
        d_q(q.size()),
        d_k(k.size()),
        d_v(k.size()),
        log_sum(product({s.batch, s.heads, s.length})),
        work(std::max(nn::attention_scratch_bytes(on, s),
                      nn::attention_backward_scratch_bytes(on, s))) {}
  template <class U> view<U, 4> heads(std::vector<U>& x) const {
    return {x.data(), {{s.batch, s.length, s.heads, s.head_dim}}};
  }
  template <class U> view<U, 4> keys(std::vector<U>& x) const {
    return {x.data(), {{s.batch, s.length, s.kv_heads, s.head_dim}}};
  }
  view<float, 3> sums() { return {log_sum.data(), {{s.batch, s.heads, s.length}}}; }
  shunt::status forward(on_host const& on) {
    return nn::attention(on, heads(q), keys(k), keys(v), heads(out), sums(), work);
  }
  shunt::status backward(on_host const& on) {
    return nn::attention_backward(on, heads(q), keys(k), keys(v), heads(out),
                                  view<float const, 3>(sums()), heads(d_out), heads(d_q), keys(d_k),
                                  keys(d_v), work);
  }
  double flops() const {  // of one product over the causal half
    return 2.0 * s.batch * s.heads * (0.5 * s.length * (s.length + 1.0)) * s.head_dim;
  }

  /// The shares of query i in head h of the last sequence.
  std::vector<double> shares(index_t i, index_t h) {
    index_t const b = s.batch - 1;
    std::vector<double> p;
    double sum = 0;
    for (index_t j = 0; j <= i; ++j) {
      double dot = 0;
      for (index_t d = 0; d < s.head_dim; ++d) {
        dot += double{to_float(heads(q)(b, i, h, d))} *
               to_float(keys(k)(b, j, h / (s.heads / s.kv_heads), d));
      }
      p.push_back(std::exp(dot / std::sqrt(double(s.head_dim))));
      sum += p.back();
    }
    for (double& x : p) x /= sum;
    return p;
  }
  double tolerance() const { return sizeof(T) == 4 ? 1e-4 : 2e-2; }
  std::string check_forward() {
    index_t const b = s.batch - 1, h = s.heads - 1, n = s.kv_heads - 1;
    for (index_t i = 0; i < s.length; i += s.length / 5 + 1) {
      auto const p = shares(i, h);
      for (index_t d = 0; d < s.head_dim; ++d) {
        double want = 0;
        for (index_t j = 0; j <= i; ++j) {
          want += p[static_cast<std::size_t>(j)] * to_float(keys(v)(b, j, n, d));
        }
        if (!(std::abs(to_float(heads(out)(b, i, h, d)) - want) < tolerance())) {
          return "out of query " + std::to_string(i) + " is wrong";
        }
      }
    }
    return {};
  }
  std::string check_backward() {
    index_t const b = s.batch - 1, n = s.kv_heads - 1, group = s.heads / s.kv_heads;
    std::vector<double> want(
        static_cast<std::size_t>(s.head_dim));  // d_v of key 3 of the last head
    for (index_t h = n * group; h < s.heads; ++h) {
      for (index_t i = 3; i < s.length; ++i) {
        double const p = shares(i, h)[3];
        for (index_t d = 0; d < s.head_dim; ++d) {
          want[static_cast<std::size_t>(d)] += p * to_float(heads(d_out)(b, i, h, d));
        }
      }
    }
    for (index_t d = 0; d < s.head_dim; ++d) {
      double const is = to_float(keys(d_v)(b, 3, n, d));
      if (!(std::abs(is - want[static_cast<std::size_t>(d)]) < 10 * tolerance())) {
        return "d_v of key 3 is wrong";
      }
    }
    index_t const i = s.length - 1, h = s.heads - 1;
    auto const p = shares(i, h);
    double delta = 0;
    for (index_t d = 0; d < s.head_dim; ++d) {
      delta += double{to_float(heads(d_out)(b, i, h, d))} * to_float(heads(out)(b, i, h, d));
    }
    std::fill(want.begin(), want.end(), 0.0);  // d_q of the last query
    for (index_t j = 0; j <= i; ++j) {
      double d_p = 0;
      for (index_t d = 0; d < s.head_dim; ++d) {
        d_p += double{to_float(heads(d_out)(b, i, h, d))} * to_float(keys(v)(b, j, n, d));
      }
      for (index_t d = 0; d < s.head_dim; ++d) {
        want[static_cast<std::size_t>(d)] += p[static_cast<std::size_t>(j)] * (d_p - delta) *
                                             to_float(keys(k)(b, j, n, d)) /
                                             std::sqrt(double(s.head_dim));
      }
    }
    for (index_t d = 0; d < s.head_dim; ++d) {
      double const is = to_float(heads(d_q)(b, i, h, d));
      if (!(std::abs(is - want[static_cast<std::size_t>(d)]) < 10 * tolerance())) {
        return "d_q of the last query is wrong";
      }
    }
    return {};
  }
};

template <class T>
void attention(benchmark::State& state, nn::attention_shape const& s, int threads, bool back) {
  on_host const on{.threads = threads};
  attention_scene<T> in(s, on);
  benchmark::DoNotOptimize(in.forward(on));
  double const moved = static_cast<double>((2 * in.q.size() + 2 * in.k.size()) * sizeof(T));
  if (!back) {
    bench::measure(
        state, threads, {.flops = 2 * in.flops(), .bytes = moved},
        [&] { return in.check_forward(); }, [&] { benchmark::DoNotOptimize(in.forward(on)); });
    return;
  }
  bench::measure(
      state, threads, {.flops = 5 * in.flops(), .bytes = 2 * moved},
      [&] { return in.check_backward(); }, [&] { benchmark::DoNotOptimize(in.backward(on)); });
}

/// One new token a sequence over a cache that holds `s.length` of them.
template <class T> void decode(benchmark::State& state, nn::attention_shape s, int threads) {
  on_host const on{.threads = threads};
  attention_scene<T> in(s, on);
  benchmark::DoNotOptimize(in.forward(on));
  nn::kv_cache<T> cache{nullptr, s.batch, s.length, s.kv_heads, s.head_dim};
  std::vector<T> memory(static_cast<std::size_t>(cache.elements()));
  cache.memory = memory.data();
  benchmark::DoNotOptimize(nn::cache_append(on, in.keys(in.k), in.keys(in.v), cache, 0));
  auto const last = [&](view<T, 4> x) {
    return view<T, 4>(x.data() + (s.length - 1) * x.stride(1),
                      {{s.batch, 1, x.extent(2), x.extent(3)}}, x.strides());
  };
  std::vector<T> one(product({s.batch, s.heads, s.head_dim}));
  view<T, 4> const out(one.data(), {{s.batch, 1, s.heads, s.head_dim}});
  auto const verify = [&]() -> std::string {
    auto const want = last(in.heads(in.out));
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        for (index_t d = 0; d < s.head_dim; ++d) {
          if (to_float(out(b, 0, h, d)) != to_float(want(b, 0, h, d))) {
            return "the decoded token differs from the whole sequence's";
          }
        }
      }
    }
    return {};
  };
  double const pairs = double(s.batch) * s.length * s.head_dim;
  bench::measure(state, threads,
                 {.flops = 4.0 * pairs * s.heads, .bytes = 2.0 * pairs * s.kv_heads * sizeof(T)},
                 verify, [&] {
                   benchmark::DoNotOptimize(nn::cache_attend(on, last(in.heads(in.q)), cache,
                                                             s.length - 1, out, in.work));
                 });
}

template <class T> void norm(benchmark::State& state, shunt::shape const& s, int threads) {
  on_host const on{.threads = threads};
  auto const x = bench::noise<T>(product({s.tokens, s.hidden}), 2, 1);
  auto const w = bench::noise<T>(product({s.hidden}), 2, 2);
  std::vector<T> y(x.size());
  view<T const, 2> const vx(x.data(), {{s.tokens, s.hidden}});
  view<T, 2> const vy(y.data(), {{s.tokens, s.hidden}});
  auto const verify = [&]() -> std::string {
    for (index_t t = 0; t < s.tokens; ++t) {
      double squares = 0;
      for (index_t i = 0; i < s.hidden; ++i)
        squares += double{to_float(vx(t, i))} * to_float(vx(t, i));
      double const r = 1 / std::sqrt(squares / s.hidden + 1e-5);
      for (index_t i = 0; i < s.hidden; ++i) {
        double const want = to_float(vx(t, i)) * r * to_float(w[static_cast<std::size_t>(i)]);
        if (!(std::abs(to_float(vy(t, i)) - want) <= 0.005 * std::abs(want) + 1e-9)) {
          return "token " + std::to_string(t) + " is wrong";
        }
      }
    }
    return {};
  };
  bench::measure(state, threads, {.bytes = static_cast<double>(2 * x.size() * sizeof(T))}, verify,
                 [&] { benchmark::DoNotOptimize(nn::rms_norm(on, vx, w, vy)); });
}

void loss(benchmark::State& state, index_t tokens, index_t vocabulary, index_t width, int threads) {
  on_host const on{.threads = threads};
  auto const x = bench::noise<float>(product({tokens, width}), 1, 1);
  auto const w = bench::noise<float>(product({vocabulary, width}), 0.3, 2);
  std::vector<index_t> target(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < target.size(); ++t)
    target[t] = static_cast<index_t>(t % 97) % vocabulary;
  std::vector<float> mean(1), losses(target.size()), d_x(x.size()), d_w(w.size());
  std::vector<std::byte> work(nn::cross_entropy_scratch_bytes(tokens, vocabulary));
  view<float const, 2> const vx(x.data(), {{tokens, width}}), vw(w.data(), {{vocabulary, width}});
  auto const verify = [&]() -> std::string {
    for (index_t t = 0; t < tokens; t += tokens / 7 + 1) {
      double sum = 0, chosen = 0;
      for (index_t v = 0; v < vocabulary; ++v) {
        double z = 0;
        for (index_t i = 0; i < width; ++i) z += double{vx(t, i)} * vw(v, i);
        sum += std::exp(z);
        if (v == target[static_cast<std::size_t>(t)]) chosen = z;
      }
      if (!(std::abs(losses[static_cast<std::size_t>(t)] - (std::log(sum) - chosen)) < 1e-4)) {
        return "the loss of token " + std::to_string(t) + " is wrong";
      }
    }
    return {};
  };
  bench::measure(state, threads, {.flops = 6.0 * tokens * vocabulary * width}, verify, [&] {
    benchmark::DoNotOptimize(nn::cross_entropy(on, vx, vw, view<index_t const, 1>(target),
                                               {.mean = mean,
                                                .loss = losses,
                                                .d_x = {d_x.data(), {{tokens, width}}},
                                                .d_weight = {d_w.data(), {{vocabulary, width}}}},
                                               work));
  });
}

void adamw(benchmark::State& state, index_t count, int threads) {
  on_host const on{.threads = threads};
  auto const n = static_cast<std::size_t>(count);
  std::vector<float> p(n, 1.0f), g(n, 0.5f), m(n), v(n), norm(1);
  std::vector<std::byte> work(nn::gradient_norm_scratch_bytes(count));
  auto const step = [&](std::int64_t number) {
    benchmark::DoNotOptimize(
        nn::gradient_norm(on, view<float const, 1>(g), view<float, 1>(norm), work));
    nn::adamw_state<float> const state_of{p, g, m, v};
    benchmark::DoNotOptimize(nn::adamw(on, state_of, view<float const, 1>(norm),
                                       {.rate = 1e-6f, .step = number, .clip = 1.0f}));
  };
  auto const verify = [&]() -> std::string {
    // The first step moves by the rate, whatever the gradient.
    bool const good = std::abs(norm[0] - 0.5 * std::sqrt(double(count))) < 1e-3 * norm[0] &&
                      std::abs(p[n / 2] - (1 - 1e-6)) < 1e-7;
    return good ? "" : "the first step is wrong";
  };
  bench::measure(state, threads, {.bytes = 8.0 * 4.0 * static_cast<double>(n)}, verify,
                 [&] { step(1); });
}

std::string heads_name(std::string const& stage, nn::attention_shape const& s,
                       std::string const& type, int threads) {
  return stage + "/B" + std::to_string(s.batch) + "_heads" + std::to_string(s.heads) + "_kv" +
         std::to_string(s.kv_heads) + "_D" + std::to_string(s.head_dim) + "/" + type + "/S" +
         std::to_string(s.length) + "/threads" + std::to_string(threads);
}

}  // namespace

void bench::register_all() {
  for (int const threads : bench::thread_counts()) {
    for (nn::attention_shape const& s :
         {nn::attention_shape{8, 256, 4, 2, 64}, {1, 2048, 8, 2, 64}, {1, 1024, 8, 8, 128}}) {
      for (bool const back : {false, true}) {
        char const* const stage = back ? "attention_backward" : "attention";
        bench::add(heads_name(stage, s, "float", threads),
                   [=](benchmark::State& state) { attention<float>(state, s, threads, back); });
        bench::add(heads_name(stage, s, "bf16", threads),
                   [=](benchmark::State& state) { attention<bf16>(state, s, threads, back); });
      }
    }
    for (nn::attention_shape const& s :
         {nn::attention_shape{1, 4096, 32, 8, 128}, {16, 1024, 8, 2, 64}}) {
      bench::add(heads_name("attention_decode", s, "bf16", threads),
                 [=](benchmark::State& state) { decode<bf16>(state, s, threads); });
    }
    for (shunt::shape const& s : {shunt::shape{.tokens = 512, .hidden = 2048},
                                  shunt::shape{.tokens = 2048, .hidden = 256}}) {
      bench::add(bench::name("rms_norm", s, "bf16", threads),
                 [=](benchmark::State& state) { norm<bf16>(state, s, threads); });
    }
    std::string const of = "/threads" + std::to_string(threads);
    bench::add("cross_entropy/V256_H256/float/T2048" + of,
               [=](benchmark::State& state) { loss(state, 2048, 256, 256, threads); });
    bench::add("adamw/N4194304/float" + of,
               [=](benchmark::State& state) { adamw(state, 1 << 22, threads); });
  }
}
