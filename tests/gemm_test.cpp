// The dense products that the gate projection and the linear layers use: bit for bit one chain of
// fma, for any sizes, types, threads, instruction sets and a pool of the caller's.
#include <gtest/gtest.h>
#include <pthread.h>

#include <cmath>
#include <utility>

#include "shunt/backend/host/gemm/dense.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace gemm_test {

struct sizes {
  int R, N, K;
};
constexpr sizes all_sizes[] = {{0, 4, 5},     {1, 1, 1},    {1, 300, 70},  {2, 16, 257},
                               {6, 16, 256},  {7, 33, 17},  {12, 32, 512}, {97, 129, 31},
                               {200, 8, 513}, {13, 160, 5}, {300, 20, 70}, {40, 300, 600},
                               {1, 9, 48},    {3, 21, 80},  {6, 13, 1600}, {11, 19, 784}};

/// The chain itself: what every output is defined to be.
template <class A, class B> float chain(int count, A a, B b) {
  float sum = 0.0f;
  for (int i = 0; i < count; ++i) sum = std::fmaf(a(i), b(i), sum);
  return sum;
}

template <class T> class Gemm : public testing::Test {};
TYPED_TEST_SUITE(Gemm, storage_types);

TYPED_TEST(Gemm, EveryOutputIsOneChainInEveryWorld) {
  using T = TypeParam;
  for (sizes const& each : all_sizes) {
    int const R = each.R, N = each.N, K = each.K;
    SCOPED_TRACE("R " + std::to_string(R) + " N " + std::to_string(N) + " K " + std::to_string(K));
    auto const size = [](int a, int b) { return static_cast<std::size_t>(a * b); };
    auto const xs = normal_values<T>(size(R, K), 1), ws = normal_values<T>(size(N, K), 2),
               ds = normal_values<T>(size(R, N), 3);
    auto const x = xs.as(R, K), w = ws.as(N, K), d = ds.as(R, N);
    guarded<float> want_y(size(R, N)), want_dx(size(R, K)), want_dw(size(N, K));
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < N; ++n) {
        want_y.as(R, N)(r, n) = chain(
            K, [&](int k) { return to_float(x(r, k)); }, [&](int k) { return to_float(w(n, k)); });
      }
      for (int k = 0; k < K; ++k) {
        want_dx.as(R, K)(r, k) = chain(
            N, [&](int n) { return to_float(d(r, n)); }, [&](int n) { return to_float(w(n, k)); });
      }
    }
    for (int n = 0; n < N; ++n) {
      for (int k = 0; k < K; ++k) {
        want_dw.as(N, K)(n, k) = chain(
            R, [&](int r) { return to_float(d(r, n)); }, [&](int r) { return to_float(x(r, k)); });
      }
    }
    for (on_host const& on : host_configs()) {
      guarded<float> y(size(R, N)), dx(size(R, K)), dw(size(N, K));
      host::dense(on, x, w, y.as(R, N));
      host::dense_dgrad(on, d, w, dx.as(R, K));
      host::dense_wgrad(on, d, x, dw.as(N, K));
      EXPECT_TRUE(same_bits(y, want_y)) << name_of(on);
      EXPECT_TRUE(same_bits(dx, want_dx)) << name_of(on);
      EXPECT_TRUE(same_bits(dw, want_dw)) << name_of(on);
    }
  }
}

TYPED_TEST(Gemm, AddsOntoWhatIsThere) {
  using T = TypeParam;
  constexpr int R = 10, N = 21, K = 300;
  auto const x = normal_values<T>(R * K, 1), w = normal_values<T>(N * K, 2),
             d = normal_values<T>(R * N, 3);
  guarded<T> plain(R * N), onto(R * N);
  guarded<float> dw(N * K), dw_onto(N * K), sums(R * N);
  for (T& v : onto) v = from_float<T>(0.5f);
  for (float& v : dw_onto) v = 0.5f;
  host::dense(on_host{}, x.as(R, K), w.as(N, K), sums.as(R, N));
  host::dense(on_host{}, x.as(R, K), w.as(N, K), plain.as(R, N));
  host::dense(on_host{}, x.as(R, K), w.as(N, K), onto.as(R, N), true);
  host::dense_wgrad(on_host{}, d.as(R, N), x.as(R, K), dw.as(N, K));
  host::dense_wgrad(on_host{}, d.as(R, N), x.as(R, K), dw_onto.as(N, K), true);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    EXPECT_EQ(plain[i], from_float<T>(sums[i]));
    EXPECT_EQ(onto[i], from_float<T>(0.5f + sums[i]));
  }
  for (std::size_t i = 0; i < dw.size(); ++i) EXPECT_EQ(dw_onto[i], 0.5f + dw[i]);
}

// An engine's own pool, whose workers come one after another, and products inside a job of Shunt's.
TEST(GemmPool, RunsOnAnyPoolAndInsideAJob) {
  constexpr int R = 100, N = 200, K = 50;
  auto const x = normal_values<float>(R * K, 1), w = normal_values<float>(N * K, 2);
  guarded<float> want(R * N);
  host::dense(on_host{.threads = 1}, x.as(R, K), w.as(N, K), want.as(R, N));
  host_runner const one_by_one{.workers = 5,
                               .run = [](void*, int workers, void (*body)(void*, int), void* c) {
                                 for (int i = workers; i-- > 0;) body(c, i);
                               }};
  guarded<float> y(R * N);
  host::dense(on_host{.runner = &one_by_one}, x.as(R, K), w.as(N, K), y.as(R, N));
  EXPECT_TRUE(same_bits(want, y));
  std::vector<guarded<float>> many(6, guarded<float>(R * N));
  host::parallel(on_host{.threads = 3}, 6, [&](std::int64_t i, int) {
    host::dense(on_host{.threads = 3}, x.as(R, K), w.as(N, K),
                many[static_cast<std::size_t>(i)].as(R, N));
  });
  for (auto const& one : many) EXPECT_TRUE(same_bits(want, one));
}

// The documented bound on a worker's stack: a thread with little more than that suffices.
TEST(GemmPool, AWorkerFitsTheDocumentedStack) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's frames are larger";
#endif
  constexpr int R = 30, N = 40, K = 300;
  struct work_type {
    guarded<float> x = normal_values<float>(R * K, 1), w = normal_values<float>(N * K, 2);
    guarded<float> y = guarded<float>(R * N);
  } work;
  pthread_attr_t small;
  pthread_attr_init(&small);
  ASSERT_EQ(pthread_attr_setstacksize(&small, 288 * 1024), 0);  // 250 KB and what a thread needs
  pthread_t thread{};
  auto const run = [](void* context) -> void* {
    auto& mine = *static_cast<work_type*>(context);
    host::dense(on_host{.threads = 1}, std::as_const(mine.x).as(R, K),
                std::as_const(mine.w).as(N, K), mine.y.as(R, N));
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &small, run, &work), 0);
  pthread_join(thread, nullptr);
  EXPECT_TRUE(all_finite(work.y));
}

}  // namespace gemm_test
}  // namespace shunt::test
