// Dense products, as the gate projection and the linear layers use them.
#include <shunt/backend/host/gemm/dense.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"

namespace {

using shunt::bf16;
using shunt::on_host;
using shunt::shape;
using shunt::view;

/// x [T,H], w [I,H]; `which`: 0 forward, 1 dgrad, 2 wgrad.
template <class T> void run(benchmark::State& state, shape const& s, int which, int threads) {
  std::int64_t const R = s.tokens, N = s.intermediate, K = s.hidden;
  auto const count = [](std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); };
  auto const x = bench::noise<T>(count(R, K), 1, 1), w = bench::noise<T>(count(N, K), 1, 2),
             d = bench::noise<T>(count(R, N), 1, 3);
  std::vector<float> out(which == 0 ? count(R, N) : which == 1 ? count(R, K) : count(N, K));
  view<T const, 2> const xv(x.data(), {{R, K}}), wv(w.data(), {{N, K}}), dv(d.data(), {{R, N}});
  on_host const on{.threads = threads};
  auto const call = [&] {
    if (which == 0) shunt::host::dense(on, xv, wv, view<float, 2>(out.data(), {{R, N}}));
    if (which == 1) shunt::host::dense_dgrad(on, dv, wv, view<float, 2>(out.data(), {{R, K}}));
    if (which == 2) shunt::host::dense_wgrad(on, dv, xv, view<float, 2>(out.data(), {{N, K}}));
  };
  auto const verify = [&] {
    std::vector<float> got;
    std::vector<double> want;
    auto const f = [](T v) { return static_cast<double>(shunt::to_float(v)); };
    std::int64_t const rows = which == 2 ? N : R, columns = which == 0 ? N : K;
    for (std::int64_t i = 0; i < rows; i += rows / 5 + 1) {
      for (std::int64_t j = 0; j < columns; j += columns / 5 + 1) {
        double sum = 0;
        if (which == 0)
          for (std::int64_t k = 0; k < K; ++k) sum += f(xv(i, k)) * f(wv(j, k));
        if (which == 1)
          for (std::int64_t n = 0; n < N; ++n) sum += f(dv(i, n)) * f(wv(n, j));
        if (which == 2)
          for (std::int64_t r = 0; r < R; ++r) sum += f(dv(r, i)) * f(xv(r, j));
        got.push_back(out[count(i, columns) + static_cast<std::size_t>(j)]);
        want.push_back(sum);
      }
    }
    return bench::compare(got.data(), want.data(), want.size(), 1e-4);
  };
  double const bytes = sizeof(T) * (which == 0   ? double(R * K + N * K)
                                    : which == 1 ? double(R * N + N * K)
                                                 : double(R * N + R * K)) +
                       4.0 * static_cast<double>(out.size());
  bench::measure(state, threads, {.flops = 2.0 * double(R) * double(N) * double(K), .bytes = bytes},
                 verify, call);
}

}  // namespace

void bench::register_all() {
  constexpr char const* stages[] = {"gemm_forward", "gemm_dgrad", "gemm_wgrad"};
  for (int const threads : bench::thread_counts()) {
    // A linear layer of a small model, a gate projection, a head of 4096 tokens.
    for (shape const& s : {shape{512, 256, 256, 0, 0}, shape{512, 2048, 64, 0, 0},
                           shape{4096, 256, 256, 0, 0}, shape{512, 1024, 1024, 0, 0}}) {
      for (int which = 0; which < 3; ++which) {
        bench::add(bench::name(stages[which], s, "f32", threads),
                   [=](benchmark::State& state) { run<float>(state, s, which, threads); });
        bench::add(bench::name(stages[which], s, "bf16", threads),
                   [=](benchmark::State& state) { run<bf16>(state, s, which, threads); });
      }
    }
  }
}
