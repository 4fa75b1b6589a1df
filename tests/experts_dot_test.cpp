// Forward products of two bf16 operands: every output is one defined chain, of fused multiply-adds in
// ascending k or, on isa::avx512_bf16, of pairs; held against that chain bit by bit, and the sum in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "support/experts_case.hpp"
#include "support/halves_apart.hpp"

namespace shunt::test {
namespace experts_dot_test {

constexpr float least_normal = 0x1p-126f;
float without_small(float x) { return std::abs(x) < least_normal ? std::copysign(0.0f, x) : x; }
/// One step of a chain of pairs: denormal operands and results are zeros.
float step_of_pairs(float a, float w, float sum) {
  return without_small(std::fmaf(without_small(a), without_small(w), without_small(sum)));
}
/// What an output is defined to be: by pairs, k + 1 before k, a zero behind an odd end; or by fma.
float chain(bool pairs, bf16 const* a, bf16 const* w, int K) {
  float sum = 0.0f;
  for (int k = 0; pairs && k < K; k += 2) {
    bool const whole = k + 1 < K;
    sum = step_of_pairs(whole ? to_float(a[k + 1]) : 0.0f, whole ? to_float(w[k + 1]) : 0.0f, sum);
    sum = step_of_pairs(to_float(a[k]), to_float(w[k]), sum);
  }
  for (int k = 0; !pairs && k < K; ++k) sum = std::fmaf(to_float(a[k]), to_float(w[k]), sum);
  return sum;
}
bool by_pairs(on_host const& on) { return instructions_of(on) == isa::avx512_bf16; }

guarded<float> chains(bool pairs, product_case<bf16> const& x) {
  guarded<float> c = x.like_c();
  for (int r = 0; r < x.R; ++r) {
    for (int n = 0; n < x.N; ++n) {
      std::ptrdiff_t const row = (x.expert[static_cast<std::size_t>(r)] * x.N + n) * x.K;
      c.as(x.R, x.N)(r, n) = chain(pairs, x.a.data() + r * x.K, x.w.data() + row, x.K);
    }
  }
  return c;
}

template <class W> guarded<float> run(on_host const& on, product_case<bf16> const& x, W const& w) {
  guarded<float> c = x.like_c();
  status const s = grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, c.as(x.R, x.N));
  EXPECT_TRUE(s.ok()) << s.message();
  return c;
}

struct extents {
  int N, K;
};

TEST(ExpertsDot, EveryOutputIsItsChainHoweverTheWeightsLie) {
  std::vector<index_t> few{0};
  for (index_t rows = 1; rows <= 30; ++rows) few.push_back(rows);
  std::vector<index_t> const some{1, 0, 72, 73}, blocks{150, 12, 1}, deep{1, 5, 12};
  struct {
    extents size;
    std::vector<index_t> const& lengths;
  } const cases[] = {
      {{1, 1}, few},     {{5, 3}, few},        {{33, 17}, few},
      {{48, 64}, some},  {{18, 2301}, some},  // pieces of pairs, and an odd end
      {{40, 1030}, few}, {{131, 258}, blocks}, {{20, 6402}, deep}};  // few rows in pieces
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
    auto const sums = product(in_double(x.a), in_double(x.w), {}, x.expert, N, K);
    for (auto const& configs : host_arithmetics<bf16>()) {
      auto const want = chains(by_pairs(configs.front()), x);
      EXPECT_TRUE(close(want, sums, K));
      for (on_host const& on : configs) {
        SCOPED_TRACE(name_of(on));
        EXPECT_TRUE(same_bits(run(on, x, plain), want));
        EXPECT_TRUE(
            same_bits(run(on, x, expert_matrix<bf16>::packed(packed.data(), x.E, N, K)), want));
        EXPECT_TRUE(same_bits(run(on, x, expert_matrix<bf16>(ekn)), want));
        if (K < 100) { EXPECT_TRUE(same_bits(run(on, x, expert_matrix<bf16>(wide)), want)); }
      }
    }
  }
}

// Gate and up at once, in every order in which they may lie, of gathered rows, some of them not there.
TEST(ExpertsDot, PairsOfHalvesAndGatheredRows) {
  constexpr int I = 37, N = 2 * I, K = 91, T = 19;
  product_case<bf16> x({3, 0, 40, 1}, N, K);
  auto const tokens = normal_values<bf16>(T * K, 5);
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
  for (auto const& configs : host_arithmetics<bf16>()) {
    auto const want = chains(by_pairs(configs.front()), x);
    for (on_host const& on : configs) {
      for (auto const& w : lying) {
        guarded<float> c(static_cast<std::size_t>(x.R * I)), pre = x.like_c();
        ASSERT_TRUE(grouped_gemm(on, tokens.as(T, K), w, x.rows, c.as(x.R, I), swiglu{},
                                 {.gather = {slot.as(x.R)}, .pre = pre.as(x.R, N)})
                        .ok());
        EXPECT_TRUE(same_bits(pre, want)) << name_of(on) << " layout " << &w - lying;
        for (int r = 0; r < x.R; ++r) {
          for (int i = 0; i < I; ++i) {
            float const gate = want.as(x.R, N)(r, i), up = want.as(x.R, N)(r, I + i);
            ASSERT_EQ(c.as(x.R, I)(r, i), swiglu{}.value(gate, up)) << name_of(on);
          }
        }
      }
    }
  }
}

// A row has the same bits alone as among others, wherever in a tile it stands.
TEST(ExpertsDot, Battery16_RowsDoNotDependOnTheirNeighbors) {
  constexpr int R = 100, N = 50, K = 333;
  product_case<bf16> const x({R}, N, K);
  for (isa which : {isa::best, std::min(host::available_isa(), isa::avx512_bf16)}) {
    on_host const on{.instructions = which};
    auto const all = run(on, x, expert_matrix<bf16>(x.w.as(1, N, K)));
    for (index_t rows : {1, 2, 5, 13, 73}) {
      for (index_t first : {0, R - rows}) {
        guarded<float> some(static_cast<std::size_t>(rows * N));
        guarded<index_t> offset(std::vector<index_t>{0, rows});
        ASSERT_TRUE(grouped_gemm(on, x.a.as(R, K).slice(first, rows), x.w.as(1, N, K),
                                 {offset.as(2)}, some.as(rows, N))
                        .ok());
        EXPECT_EQ(std::memcmp(some.data(), all.data() + first * N, some.size() * sizeof(float)), 0)
            << name_of(on);
      }
    }
  }
}

/// One output of one row.
float one(on_host const& on, std::vector<float> const& a, std::vector<float> const& w) {
  product_case<bf16> x({1}, 1, static_cast<int>(a.size()));
  for (std::size_t k = 0; k < a.size(); ++k) {
    x.a[k] = from_float<bf16>(a[k]);
    x.w[k] = from_float<bf16>(w[k]);
  }
  return run(on, x, expert_matrix<bf16>(x.w.as(1, 1, x.K)))[0];
}

TEST(ExpertsDot, TheOrderOfAPairAndWhatIsTooSmall) {
  for (on_host const& on : host_configs()) {
    SCOPED_TRACE(name_of(on));
    bool const pairs = by_pairs(on);
    // 1 + 2^-24 is 1, and 1 + 2^-23 + 2^-24 is 1 + 2^-22: a pair adds its second product first.
    float const two = one(on, {1, 0, 0x1p-12f, 0x1p-12f}, {1, 0, 0x1p-11f, 0x1p-12f});
    EXPECT_EQ(two, pairs ? 1 + 0x1p-23f : 1 + 0x1p-22f);
    // Denormal operands, of either side; results; and sums on the way.
    EXPECT_EQ(one(on, {0x1p-130f}, {0x1p20f}), pairs ? 0.0f : 0x1p-110f);
    EXPECT_EQ(one(on, {0x1p20f}, {-0x1p-127f}), pairs ? 0.0f : -0x1p-107f);
    EXPECT_EQ(one(on, {0x1p-100f}, {0x1p-30f}), pairs ? 0.0f : 0x1p-130f);
    EXPECT_EQ(one(on, {0x1p-100f}, {0x1p-26f}), 0x1p-126f);
    EXPECT_EQ(one(on, {1, 0x1p-100f}, {0x1p-126f, 0x1p-27f}), pairs ? 0x1p-126f : 0x1.8p-126f);
    // What is no number stays so, and in its row.
    EXPECT_TRUE(std::isnan(one(on, {1, 0, 1}, {1, INFINITY, 1})));
    EXPECT_EQ(one(on, {1, 2, 1}, {1, INFINITY, 1}), INFINITY);
  }
}

// The rule is one of types: another type on either side, and the gradients, are chains of fma everywhere.
TEST(ExpertsDot, AllOtherProductsAreTheSameBitsEverywhere) {
  constexpr int N = 21, K = 67;
  product_case<bf16> const x({3, 20}, N, K);
  guarded<float> wide_w(x.w.size()), wide_a(x.a.size()), first;
  for (std::size_t i = 0; i < x.w.size(); ++i) wide_w[i] = to_float(x.w[i]);
  for (std::size_t i = 0; i < x.a.size(); ++i) wide_a[i] = to_float(x.a[i]);
  auto const want = chains(false, x);
  guarded<float> da_first, dw_first;
  for (on_host const& on : host_configs()) {
    SCOPED_TRACE(name_of(on));
    EXPECT_TRUE(same_bits(run(on, x, wide_w.as(x.E, N, K)), want));
    guarded<float> c = x.like_c(), da(x.a.size()), dw(x.w.size());
    auto const w = x.w.as(x.E, N, K);
    ASSERT_TRUE(grouped_gemm(on, wide_a.as(x.R, K), w, x.rows, c.as(x.R, N)).ok());
    EXPECT_TRUE(same_bits(c, want));
    ASSERT_TRUE(grouped_dgrad(on, x.dc.as(x.R, N), w, x.rows, da.as(x.R, K)).ok());
    ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, dw.as(x.E, N, K)).ok());
    if (da_first.size() == 0) {
      da_first = da;
      dw_first = dw;
    }
    EXPECT_TRUE(same_bits(da, da_first) && same_bits(dw, dw_first));
  }
}

TEST(ExpertsDot, RunsWhereTheProcessorAndTheEnvironmentAllow) {
  isa const most = host::detect_isa();
  char const* const asked = std::getenv("SHUNT_ISA");
  for (isa which :
       {isa::portable, isa::avx2, isa::avx512, isa::avx512_vnni, isa::avx512_bf16, isa::amx}) {
    if (asked != nullptr && std::strcmp(asked, to_string(which)) == 0) {
      EXPECT_EQ(host::available_isa(), std::min(which, most));
    }
    bool const there = which <= host::available_isa();
    EXPECT_EQ(check::policy(on_host{.instructions = which}).ok(), there) << to_string(which);
    EXPECT_EQ(instructions_of({.instructions = which}), there ? which : host::available_isa());
  }
  if (asked == nullptr) { EXPECT_EQ(host::available_isa(), most); }
  if (asked != nullptr) { EXPECT_EQ(instructions_of({}), host::available_isa()); }
#if defined(SHUNT_EMULATE_AVX512)  // the emulated tests are there for all of AVX-512
  if (asked == nullptr) { EXPECT_EQ(instructions_of({}), isa::avx512_bf16); }
#endif
}

}  // namespace experts_dot_test
}  // namespace shunt::test
