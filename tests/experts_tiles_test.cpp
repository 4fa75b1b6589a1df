// Products of two bf16 operands on isa::amx, forward and both gradients: every output held, bit by bit, against the
// definition of docs/numerics.md, and against the sum in double. On a processor with tiles its own instructions
// run, in the build with tests/support/amx_emulation.hpp the same assembly does; elsewhere nothing can.
#include <gtest/gtest.h>
#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cmath>

#include "shunt/backend/host/gemm/dense.hpp"
#include "support/experts_case.hpp"
#include "support/halves_apart.hpp"
#include "support/oracle_tiles.hpp"

namespace shunt::test {
namespace experts_tiles_test {

class ExpertsTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (tile_configs().empty()) GTEST_SKIP() << "no tiles: " << to_string(host::available_isa());
  }
};

/// Outputs of the three products by definition.
guarded<float> chains_forward(product_case<bf16> const& x) {
  guarded<float> c = x.like_c();
  for (int r = 0; r < x.R; ++r) {
    for (int n = 0; n < x.N; ++n) {
      bf16 const* const w = x.w.data() + (x.expert[static_cast<std::size_t>(r)] * x.N + n) * x.K;
      bf16 const* const a = x.a.data() + r * x.K;
      c.as(x.R, x.N)(r, n) =
          tile_chain(x.K, [&](int k) { return a[k]; }, [&](int k) { return w[k]; });
    }
  }
  return c;
}
guarded<float> chains_dgrad(product_case<bf16> const& x) {
  guarded<float> da(x.a.size());
  for (int r = 0; r < x.R; ++r) {
    bf16 const* const w = x.w.data() + x.expert[static_cast<std::size_t>(r)] * x.N * x.K;
    bf16 const* const dc = x.dc.data() + r * x.N;
    for (int k = 0; k < x.K; ++k) {
      da.as(x.R, x.K)(r, k) =
          tile_chain(x.N, [&](int n) { return dc[n]; }, [&](int n) { return w[n * x.K + k]; });
    }
  }
  return da;
}
guarded<float> chains_wgrad(product_case<bf16> const& x) {
  guarded<float> dw(x.w.size());
  for (int e = 0; e < x.E; ++e) {
    int const first = x.offset[static_cast<std::size_t>(e)];
    int const rows = x.offset[static_cast<std::size_t>(e) + 1] - first;
    bf16 const *const dc = x.dc.data() + first * x.N, *const a = x.a.data() + first * x.K;
    for (int n = 0; n < x.N; ++n) {
      for (int k = 0; k < x.K; ++k) {
        dw.as(x.E, x.N, x.K)(e, n, k) = tile_chain(
            rows, [&](int r) { return dc[r * x.N + n]; }, [&](int r) { return a[r * x.K + k]; });
      }
    }
  }
  return dw;
}

template <class W>
guarded<float> forward(on_host const& on, product_case<bf16> const& x, W const& w) {
  guarded<float> c = x.like_c();
  status const s = grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, c.as(x.R, x.N));
  EXPECT_TRUE(s.ok()) << s.message();
  return c;
}
template <class W>
guarded<float> dgrad(on_host const& on, product_case<bf16> const& x, W const& w) {
  guarded<float> da(x.a.size());
  status const s = grouped_dgrad(on, x.dc.as(x.R, x.N), w, x.rows, da.as(x.R, x.K));
  EXPECT_TRUE(s.ok()) << s.message();
  return da;
}
guarded<float> wgrad(on_host const& on, product_case<bf16> const& x) {
  guarded<float> dw(x.w.size());
  status const s =
      grouped_wgrad(on, x.dc.as(x.R, x.N), x.a.as(x.R, x.K), x.rows, dw.as(x.E, x.N, x.K));
  EXPECT_TRUE(s.ok()) << s.message();
  return dw;
}

struct extents {
  int N, K;
};

// Layouts of weights: rows, packed, [E,K,N], any strides.
TEST_F(ExpertsTiles, EveryOutputIsItsChainHoweverTheWeightsLie) {
  std::vector<index_t> few{0};
  for (index_t rows = 1; rows <= 34; ++rows) few.push_back(rows);
  std::vector<index_t> const some{1, 0, 64, 65}, blocks{150, 12, 1}, one{1}, three{3, 17};
  struct {
    extents size;
    std::vector<index_t> const& lengths;
  } const cases[] = {{{1, 1}, one},        {{5, 3}, few},       {{33, 17}, few},
                     {{48, 64}, some},     {{18, 2301}, three}, {{40, 1030}, some},
                     {{131, 258}, blocks}, {{1100, 33}, three}};
  for (auto const& [size, lengths] : cases) {
    int const N = size.N, K = size.K;
    SCOPED_TRACE("N " + std::to_string(N) + " K " + std::to_string(K));
    product_case<bf16> const x(lengths, N, K, 3);
    expert_matrix<bf16> const plain(x.w.as(x.E, N, K));
    guarded<bf16> packed(static_cast<std::size_t>(plain.packed_elements())), turned(x.w.size());
    ASSERT_TRUE(pack_weights(on_host{}, plain, packed).ok());
    guarded<bf16> apart(2 * x.w.size());
    view<bf16, 3> const ekn(turned.data(), {{x.E, N, K}}, {{N * K, 1, N}}),
        wide(apart.data(), {{x.E, N, K}}, {{2 * N * K, 2 * K, 2}});
    for (int e = 0; e < x.E; ++e) {
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < K; ++k) ekn(e, n, k) = wide(e, n, k) = x.w.as(x.E, N, K)(e, n, k);
      }
    }
    expert_matrix<bf16> const lying[] = {
        plain, expert_matrix<bf16>::packed(packed.data(), x.E, N, K), ekn, wide};
    auto const want = chains_forward(x), want_da = chains_dgrad(x), want_dw = chains_wgrad(x);
    EXPECT_TRUE(close(want, product(in_double(x.a), in_double(x.w), {}, x.expert, N, K),
                      std::min(K, 17 + (K + 31) / 32)));
    for (on_host const& on : tile_configs()) {
      SCOPED_TRACE(name_of(on));
      for (auto const& w : lying) {
        EXPECT_TRUE(same_bits(forward(on, x, w), want)) << "layout " << &w - lying;
        EXPECT_TRUE(same_bits(dgrad(on, x, w), want_da)) << "layout " << &w - lying;
      }
      EXPECT_TRUE(same_bits(wgrad(on, x), want_dw));
    }
  }
}

// One matrix, as linear layers and the gate projection have it; every length of a sum up to three steps and one term.
TEST_F(ExpertsTiles, SumsOfEveryLength) {
  for (int K = 1; K <= 97; ++K) {
    product_case<bf16> const x({19}, 21, K, static_cast<std::uint64_t>(K));
    product_case<bf16> const turned({K}, 21, 19, static_cast<std::uint64_t>(K + 100));
    product_case<bf16> const across({19}, K, 21, static_cast<std::uint64_t>(K + 200));
    on_host const on{.threads = 1, .instructions = isa::amx};
    guarded<float> y = x.like_c(), dw(turned.w.size()), dx(across.a.size());
    host::dense(on, x.a.as(19, K), x.w.as(21, K), y.as(19, 21));
    host::dense_wgrad(on, turned.dc.as(K, 21), turned.a.as(K, 19), dw.as(21, 19));
    host::dense_dgrad(on, across.dc.as(19, K), across.w.as(K, 21), dx.as(19, 21));
    ASSERT_TRUE(same_bits(y, chains_forward(x))) << K;
    ASSERT_TRUE(same_bits(dw, chains_wgrad(turned))) << K;
    ASSERT_TRUE(same_bits(dx, chains_dgrad(across))) << K;
  }
}

// Gate and up at once, in every order in which they may lie, odd halves too; gathered rows, some not there.
TEST_F(ExpertsTiles, PairsOfHalvesAndGatheredRows) {
  for (int const I : {37, 48}) {
    int const N = 2 * I, K = 91, T = 19;
    product_case<bf16> x({3, 0, 70, 1}, N, K);
    auto const tokens = normal_values<bf16>(static_cast<std::size_t>(T * K), 5);
    guarded<index_t> const slot = rows_from(tokens, T, x);
    expert_matrix<bf16> const whole(x.w.as(x.E, N, K), pair_layout{});
    guarded<bf16> packed(static_cast<std::size_t>(whole.packed_elements()));
    ASSERT_TRUE(pack_weights(on_host{}, whole, packed).ok());
    guarded<bf16> const turns(
        laid_out(std::vector<bf16>(x.w.begin(), x.w.end()), x.E, N, K, true, 3));
    halves_apart<bf16> const apart(x.w, x.E, I, K, 1);
    expert_matrix<bf16> const lying[] = {
        whole,
        {turns.as(x.E, N, K), pair_layout{pair_order::up_gate, 3}},
        apart.weights(),
        expert_matrix<bf16>::packed(packed.data(), x.E, N, K, pair_layout{})};
    auto const want = chains_forward(x), want_da = chains_dgrad(x), want_dw = chains_wgrad(x);
    for (on_host const& on : tile_configs()) {
      SCOPED_TRACE(name_of(on));
      for (auto const& w : lying) {
        guarded<float> c(static_cast<std::size_t>(x.R * I)), pre = x.like_c();
        ASSERT_TRUE(grouped_gemm(on, tokens.as(T, K), w, x.rows, c.as(x.R, I), swiglu{},
                                 {.gather = {slot.as(x.R)}, .pre = pre.as(x.R, N)})
                        .ok());
        EXPECT_TRUE(same_bits(pre, want)) << "layout " << &w - lying;
        for (int r = 0; r < x.R; ++r) {
          for (int i = 0; i < I; ++i) {
            float const gate = want.as(x.R, N)(r, i), up = want.as(x.R, N)(r, I + i);
            ASSERT_EQ(c.as(x.R, I)(r, i), swiglu{}.value(gate, up));
          }
        }
        EXPECT_TRUE(same_bits(dgrad(on, x, w), want_da)) << "layout " << &w - lying;
      }
      guarded<float> dw(x.w.size());
      ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), tokens.as(T, K), x.rows, dw.as(x.E, N, K),
                                {.gather_a = {slot.as(x.R)}})
                      .ok());
      EXPECT_TRUE(same_bits(dw, want_dw));
    }
  }
}

// A row has the same bits alone as among others, whatever these hold, and so has an expert's gradient.
TEST_F(ExpertsTiles, Battery16_RowsDoNotDependOnTheirNeighbors) {
  constexpr int R = 100, N = 50, K = 333;
  on_host const on{.instructions = isa::amx};
  product_case<bf16> x({R}, N, K);
  auto const all = forward(on, x, expert_matrix<bf16>(x.w.as(1, N, K)));
  for (index_t rows : {1, 2, 5, 16, 17, 65}) {
    for (index_t first : {0, R - rows}) {
      guarded<float> some(static_cast<std::size_t>(rows * N));
      guarded<index_t> offset(std::vector<index_t>{0, rows});
      ASSERT_TRUE(grouped_gemm(on, x.a.as(R, K).slice(first, rows), x.w.as(1, N, K), {offset.as(2)},
                               some.as(rows, N))
                      .ok());
      EXPECT_EQ(std::memcmp(some.data(), all.data() + first * N, some.size() * sizeof(float)), 0);
    }
  }
  for (int k = 0; k < K; ++k) {  // row 7, between rows that are no numbers
    x.a.as(R, K)(6, k) = from_float<bf16>(NAN);
    x.a.as(R, K)(8, k) = from_float<bf16>(INFINITY);
  }
  auto const beside = forward(on, x, expert_matrix<bf16>(x.w.as(1, N, K)));
  EXPECT_EQ(std::memcmp(beside.data() + 7 * N, all.data() + 7 * N, N * sizeof(float)), 0);
  EXPECT_TRUE(std::isnan(beside[6 * N]));
}

// NaN behind the last term of a sum: in the next row, the next expert and the packed panel's last rows.
TEST_F(ExpertsTiles, WhatLiesBehindASumIsNotRead) {
  constexpr int N = 20, K = 35;
  product_case<bf16> x({5, 3, 2}, N, K, 9);
  auto const want = chains_forward(x), want_da = chains_dgrad(x), want_dw = chains_wgrad(x);
  for (int k = 0; k < N * K; ++k) x.w[static_cast<std::size_t>(N * K + k)] = from_float<bf16>(NAN);
  for (int r = 5; r < 8; ++r) {  // the second expert and its rows
    for (int k = 0; k < K; ++k) x.a.as(x.R, K)(r, k) = from_float<bf16>(NAN);
    for (int n = 0; n < N; ++n) x.dc.as(x.R, N)(r, n) = from_float<bf16>(NAN);
  }
  product_case<bf16> none({70}, 64, 64);  // leaves NaN in all that a worker computes in
  for (auto* const all : {&none.a, &none.w, &none.dc}) {
    for (bf16& v : *all) v = from_float<bf16>(NAN);
  }
  for (on_host const& on : tile_configs()) {
    expert_matrix<bf16> const w(x.w.as(x.E, N, K));
    EXPECT_TRUE(std::isnan(forward(on, none, none.w.as(1, 64, 64))[0]));
    auto const c = forward(on, x, w), da = dgrad(on, x, w), dw = wgrad(on, x);
    for (int r : {0, 4, 8, 9}) {
      EXPECT_EQ(std::memcmp(c.data() + r * N, want.data() + r * N, N * sizeof(float)), 0) << r;
      EXPECT_EQ(std::memcmp(da.data() + r * K, want_da.data() + r * K, K * sizeof(float)), 0) << r;
    }
    for (int e : {0, 2}) {
      EXPECT_EQ(
          std::memcmp(dw.data() + e * N * K, want_dw.data() + e * N * K, N * K * sizeof(float)), 0)
          << e;
    }
    EXPECT_TRUE(std::isnan(c[6 * N]) && std::isnan(da[6 * K]) && std::isnan(dw[N * K]));
  }
}

/// One output of one row.
float one(std::vector<float> const& a, std::vector<float> const& w) {
  product_case<bf16> x({1}, 1, static_cast<int>(a.size()));
  for (std::size_t k = 0; k < a.size(); ++k) {
    x.a[k] = from_float<bf16>(a[k]);
    x.w[k] = from_float<bf16>(w[k]);
  }
  on_host const on{.threads = 1, .instructions = isa::amx};
  return forward(on, x, expert_matrix<bf16>(x.w.as(1, 1, x.K)))[0];
}

TEST_F(ExpertsTiles, TheOrderOfAStepAndWhatIsTooSmall) {
  // 1 + 2^-24 is 1: even terms are added to each other first, odd ones too, then both sums.
  EXPECT_EQ(one({1, 0, 0x1p-12f, 0, 0x1p-12f}, {1, 0, 0x1p-12f, 0, 0x1p-12f}), 1.0f);
  EXPECT_EQ(one({1, 0x1p-12f, 0, 0x1p-12f}, {1, 0x1p-12f, 0, 0x1p-12f}), 1 + 0x1p-23f);
  // Denormal operands, of either side; results; and sums on the way.
  EXPECT_EQ(one({0x1p-130f}, {0x1p20f}), 0.0f);
  EXPECT_EQ(one({0x1p20f}, {-0x1p-127f}), 0.0f);
  EXPECT_EQ(one({0x1p-100f}, {0x1p-30f}), 0.0f);
  EXPECT_EQ(one({0x1p-100f}, {0x1p-26f}), 0x1p-126f);
  EXPECT_EQ(one({0x1p-100f, 0x1p-100f}, {0x1.8p-26f, -0x1p-26f}), 0.0f);  // 2^-127 is left
  // What is no number stays so.
  EXPECT_TRUE(std::isnan(one({1, 0, 1}, {1, INFINITY, 1})));
  EXPECT_TRUE(std::isnan(one({INFINITY, INFINITY}, {1, -1})));
  EXPECT_EQ(one({1, 2, 1}, {1, INFINITY, 1}), INFINITY);
  EXPECT_EQ(one({-1}, {0}), 0.0f);
  EXPECT_FALSE(std::signbit(one({-1}, {0})));
}

// Onto what is there; empty segments; rows with a factor are floats, whose bits are those of every instruction set.
TEST_F(ExpertsTiles, AccumulatesAndLeavesFactorsToFma) {
  constexpr int N = 21, K = 67;
  product_case<bf16> const x({3, 0, 20}, N, K);
  auto const da = chains_dgrad(x), dw = chains_wgrad(x);
  auto const factor = normal_values<float>(static_cast<std::size_t>(x.R), 4);
  on_host const plain{.threads = 1, .instructions = isa::avx512_vnni};
  for (on_host const& on : tile_configs()) {
    guarded<float> onto_da(x.a.size()), onto_dw(x.w.size());
    for (std::size_t i = 0; i < x.a.size(); ++i) onto_da[i] = 0.25f * static_cast<float>(i % 9);
    for (std::size_t i = 0; i < x.w.size(); ++i) onto_dw[i] = 0.25f * static_cast<float>(i % 7);
    auto const w = x.w.as(x.E, N, K);
    ASSERT_TRUE(
        grouped_dgrad(on, x.dc.as(x.R, N), w, x.rows, onto_da.as(x.R, K), {.accumulate = true})
            .ok());
    ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, onto_dw.as(x.E, N, K),
                              {.accumulate = true})
                    .ok());
    for (std::size_t i = 0; i < x.a.size(); ++i) {
      ASSERT_EQ(onto_da[i], 0.25f * static_cast<float>(i % 9) + da[i]);
    }
    for (std::size_t i = 0; i < x.w.size(); ++i) {
      ASSERT_EQ(onto_dw[i], 0.25f * static_cast<float>(i % 7) + dw[i]);
    }
    guarded<float> scaled(x.w.size()), want(x.w.size());
    for (auto const& [policy, to] : {std::pair{on, &scaled}, std::pair{plain, &want}}) {
      ASSERT_TRUE(grouped_wgrad(policy, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, to->as(x.E, N, K),
                                {.scale = {factor.as(x.R)}})
                      .ok());
    }
    EXPECT_TRUE(same_bits(scaled, want));
  }
}

#if defined(__x86_64__)
/// A pool of one thread that multiplies by tiles itself, of other shapes, before and after every job.
struct runner_with_tiles {
  struct alignas(64) shapes {
    unsigned char palette = 1, first_row = 0, unused[14] = {};
    unsigned short row_bytes[16] = {4, 4, 4};
    unsigned char rows[16] = {1, 1, 1};
  };
  float sum = 0.0f;
  int jobs = 0;

  void add_six() {  // 1 2 + 4 1
    shapes const one;
    bf16 const a[2] = {from_float<bf16>(1), from_float<bf16>(4)};
    bf16 const b[2] = {from_float<bf16>(2), from_float<bf16>(1)};
    long const stride = 64;
    __asm__ __volatile__(
        "ldtilecfg %0\n\ttileloadd (%1,%4,1), %%tmm0\n\ttileloadd (%2,%4,1), %%tmm1\n\t"
        "tileloadd (%3,%4,1), %%tmm2\n\ttdpbf16ps %%tmm2, %%tmm1, %%tmm0\n\t"
        "tilestored %%tmm0, (%1,%4,1)"
        :
        : "m"(one), "r"(&sum), "r"(a), "r"(b), "r"(stride)
        : "memory");  // and leaves its tiles as they are
  }
  static void run(void* self, int workers, void (*body)(void*, int), void* context) {
    auto* const own = static_cast<runner_with_tiles*>(self);
    for (int w = 0; w < workers; ++w) {
      own->add_six();
      body(context, w);
      own->add_six();
      ++own->jobs;
    }
  }
};
TEST_F(ExpertsTiles, BesideARunnerWithTilesOfItsOwn) {
  product_case<bf16> const x({40, 3}, 33, 70);
  runner_with_tiles own;
  host_runner const runner{.self = &own, .workers = 3, .run = runner_with_tiles::run};
  on_host const on{.runner = &runner, .instructions = isa::amx};
  EXPECT_TRUE(same_bits(forward(on, x, x.w.as(2, 33, 70)), chains_forward(x)));
  EXPECT_TRUE(same_bits(wgrad(on, x), chains_wgrad(x)));
  EXPECT_GE(own.jobs, 2);
  EXPECT_EQ(own.sum, static_cast<float>(12 * own.jobs));
}
#endif

#if defined(__linux__)
// A forked child has the permission, and tiles of its own.
TEST_F(ExpertsTiles, RunInAForkedChild) {
  product_case<bf16> const x({40}, 33, 70);
  on_host const on{.threads = 1, .instructions = isa::amx};
  auto const want = forward(on, x, x.w.as(1, 33, 70));
  pid_t const child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto const again = forward(on, x, x.w.as(1, 33, 70));
    _exit(std::memcmp(again.data(), want.data(), want.size() * sizeof(float)) == 0 ? 0 : 1);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  EXPECT_TRUE(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}
#endif

#if defined(SHUNT_EMULATE_AMX)
// The assembly did run: as many products as the sizes say, 4 loads for the 4 products of a step of two by two tiles.
TEST_F(ExpertsTiles, TakeOneLoadAProduct) {
  constexpr int N = 64, K = 1024;
  product_case<bf16> const x({64}, N, K);
  on_host const on{.threads = 1, .instructions = isa::amx};
  (void)forward(on, x, x.w.as(1, N, K));  // what is asked for once
  long const products = tiles::counts.products, loads = tiles::counts.loads;
  (void)forward(on, x, x.w.as(1, N, K));
  long const steps = K / 32, pieces = steps / 16;
  EXPECT_EQ(tiles::counts.products - products, 4 * 4 * steps);
  EXPECT_EQ(tiles::counts.loads - loads, 4 * 4 * steps + 4 * 4 * (pieces - 1));  // sums come back
}
#endif

}  // namespace experts_tiles_test
}  // namespace shunt::test
