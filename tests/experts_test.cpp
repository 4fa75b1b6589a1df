// The grouped products against the oracle, on every instruction set and thread count, each gradient
// by itself.
#include <gtest/gtest.h>

#include "support/experts_case.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace experts_test {

struct extents {
  int N, K;
};
// Nothing is a multiple of anything, except where it is of everything; 259 and 300 resume a block.
constexpr extents battery_extents[] = {{1, 1}, {5, 3}, {33, 17}, {131, 259}, {64, 64}, {17, 300}};

template <class T> class ExpertsOf : public testing::Test {};
TYPED_TEST_SUITE(ExpertsOf, storage_types);

/// Calls run(policy, output) in every world; outputs of one arithmetic of products of Ts must be the same
/// bits. Calls check(output) with one of each.
template <class T, class Out, class Run, class Check>
void in_all_configs(std::size_t count, Run&& run, Check&& check) {
  for (auto const& configs : host_arithmetics<T>()) {
    guarded<Out> first;
    for (on_host const& on : configs) {
      guarded<Out> out(count);
      status const s = run(on, out);
      EXPECT_TRUE(s.ok()) << s.message();
      if (first.size() == 0) {
        first = out;
      } else {
        EXPECT_TRUE(same_bits(first, out)) << name_of(on);
      }
    }
    check(first);
  }
}

TYPED_TEST(ExpertsOf, ForwardIsTheFormula) {
  for (auto const& [name, lengths] : segment_battery()) {
    for (extents const& size : battery_extents) {
      int const N = size.N, K = size.K;
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(N) + " K " + std::to_string(K));
      product_case<TypeParam> x(lengths, N, K, 7, 3);
      auto const want =
          in_segments(product(in_double(x.a), in_double(x.w), {}, x.expert, N, K), x.expert);
      EXPECT_TRUE(want.size() < 2 || not_flat(want));
      in_all_configs<TypeParam, TypeParam>(
          x.dc.size(),
          [&](on_host const& on, auto& c) {
            return grouped_gemm(on, x.a.as(x.R, K), x.w.as(x.E, N, K), x.rows, c.as(x.R, N));
          },
          [&](auto const& got) { EXPECT_TRUE(close(in_segments(got, x.expert), want, K + 1)); });
    }
  }
}

TYPED_TEST(ExpertsOf, Battery13_DgradByItselfOnEachInstructionSet) {
  for (auto const& [name, lengths] : segment_battery()) {
    for (extents const& size : battery_extents) {
      int const N = size.N, K = size.K;
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(N) + " K " + std::to_string(K));
      product_case<TypeParam> x(lengths, N, K, 8, 2);
      auto const want =
          in_segments(product_to_rows(in_double(x.dc), in_double(x.w), x.expert, N, K), x.expert);
      EXPECT_TRUE(want.size() < 2 || not_flat(want));
      in_all_configs<float, TypeParam>(
          x.a.size(),
          [&](on_host const& on, auto& da) {
            return grouped_dgrad(on, x.dc.as(x.R, N), x.w.as(x.E, N, K), x.rows, da.as(x.R, K));
          },
          [&](auto const& got) { EXPECT_TRUE(close(in_segments(got, x.expert), want, N + 1)); });
    }
  }
}

// Segment starts that are no multiple of anything, and the honest bound instead of a flat one.
TYPED_TEST(ExpertsOf, Battery12_WgradOfAnySegmentStart) {
  for (auto const& [name, lengths] : segment_battery()) {
    for (extents const& size : battery_extents) {
      int const N = size.N, K = size.K;
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(N) + " K " + std::to_string(K));
      product_case<TypeParam> x(lengths, N, K, 9, 1);
      auto const want =
          product_to_weights(in_double(x.dc), in_double(x.a), {}, x.expert, x.E, N, K);
      index_t longest = 0;
      for (index_t n : lengths) longest = std::max(longest, n);
      in_all_configs<float, float>(
          x.w.size(),
          [&](on_host const& on, auto& dw) {
            return grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, dw.as(x.E, N, K));
          },
          [&](auto const& got) { EXPECT_TRUE(close(got, want, longest + 1)); });
    }
  }
}

TEST(Experts, Battery01_ExpertWithoutRowsGetsZeroGradients) {
  product_case<float> x({0, 3, 0}, 9, 20);
  for (on_host const& on : host_configs()) {
    guarded<float> dw(x.w.size()), db(27);
    ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, 9), x.a.as(x.R, 20), x.rows, dw.as(3, 9, 20),
                              {.d_bias = db.as(3, 9)})
                    .ok());
    EXPECT_TRUE(all_finite(dw) && all_finite(db));
    for (std::size_t i = 0; i < 180; ++i) EXPECT_EQ(dw[i], 0.0f);
    for (std::size_t i = 360; i < 540; ++i) EXPECT_EQ(dw[i], 0.0f);
    for (std::size_t i : {0u, 8u, 18u, 26u}) EXPECT_EQ(db[i], 0.0f);
  }
}

TEST(Experts, Battery01_NoTokensIsNoError) {
  product_case<float> x({0, 0}, 4, 5);
  guarded<float> none, dw(x.w.size());
  EXPECT_TRUE(grouped_gemm(on_host{}, none.as(0, 5), x.w.as(2, 4, 5), x.rows, none.as(0, 4)).ok());
  EXPECT_TRUE(grouped_dgrad(on_host{}, none.as(0, 4), x.w.as(2, 4, 5), x.rows, none.as(0, 5)).ok());
  EXPECT_TRUE(grouped_wgrad(on_host{}, none.as(0, 4), none.as(0, 5), x.rows, dw.as(2, 4, 5)).ok());
  for (float v : dw) EXPECT_EQ(v, 0.0f);
}

TEST(Experts, NoExpertsIsNoError) {
  guarded<index_t> offset(std::vector<index_t>{0});
  guarded<float> none;
  segments<> const rows{offset.as(1)};
  EXPECT_TRUE(grouped_gemm(on_host{}, none.as(0, 5), none.as(0, 4, 5), rows, none.as(0, 4)).ok());
  EXPECT_TRUE(grouped_wgrad(on_host{}, none.as(0, 4), none.as(0, 5), rows, none.as(0, 4, 5)).ok());
}

TEST(Experts, RowsOutsideEverySegmentAreNotWritten) {
  product_case<float> x({3, 4}, 6, 7, 1, 5);
  guarded<float> c = x.like_c();
  ASSERT_TRUE(grouped_gemm(on_host{}, x.a.as(x.R, 7), x.w.as(2, 6, 7), x.rows, c.as(x.R, 6)).ok());
  for (std::size_t i = 7 * 6; i < c.size(); ++i) EXPECT_TRUE(std::isnan(c[i]));
}

// The bits of a row do not depend on how many rows stand beside it, or where in a tile it stands.
TEST(Experts, Battery16_RowsDoNotDependOnTheirNeighbors) {
  constexpr int N = 70, K = 300;
  product_case<float> x({257}, N, K);
  guarded<float> all = x.like_c();
  ASSERT_TRUE(
      grouped_gemm(on_host{}, x.a.as(257, K), x.w.as(1, N, K), x.rows, all.as(257, N)).ok());
  for (index_t T : {1, 4, 16, 64, 257}) {
    for (index_t first : {0, 257 - T}) {
      guarded<float> some(static_cast<std::size_t>(T * N));
      guarded<index_t> offset(std::vector<index_t>{0, T});
      ASSERT_TRUE(grouped_gemm(on_host{}, x.a.as(257, K).slice(first, T), x.w.as(1, N, K),
                               {offset.as(2)}, some.as(T, N))
                      .ok());
      EXPECT_EQ(std::memcmp(some.data(), all.data() + first * N, some.size() * sizeof(float)), 0);
    }
  }
}

// A NaN in a row of padding, inside a segment or behind all, stays in that row.
TEST(Experts, Battery17_NanInPaddingRowsStaysThere) {
  constexpr int N = 20, K = 40;
  product_case<float> x({5, 9}, N, K, 1, 3);
  guarded<index_t> slot(static_cast<std::size_t>(x.R));
  for (int r = 0; r < x.R; ++r) slot[static_cast<std::size_t>(r)] = r;
  slot[4] = slot[10] = -1;
  guarded<float> clean = x.like_c(), dirty = x.like_c(), dw(x.w.size()), dw_dirty(x.w.size());
  auto const run = [&](guarded<float>& c, guarded<float>& dw_out) {
    ASSERT_TRUE(grouped_gemm(on_host{}, x.a.as(x.R, K), x.w.as(2, N, K), x.rows, c.as(x.R, N),
                             identity{}, {.gather = {slot.as(x.R)}})
                    .ok());
    ASSERT_TRUE(grouped_wgrad(on_host{}, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows,
                              dw_out.as(2, N, K),
                              {.gather_dc = {slot.as(x.R)}, .gather_a = {slot.as(x.R)}})
                    .ok());
  };
  run(clean, dw);
  for (int r : {4, 10, 14, 15, 16}) {
    for (int k = 0; k < K; ++k) x.a.as(x.R, K)(r, k) = untouched<float>();
    for (int n = 0; n < N; ++n) x.dc.as(x.R, N)(r, n) = untouched<float>();
  }
  run(dirty, dw_dirty);
  EXPECT_TRUE(same_bits(clean, dirty));
  EXPECT_TRUE(same_bits(dw, dw_dirty));
  EXPECT_TRUE(all_finite(dw));
}

// Rows gathered through slots of tokens equal a permuted copy; slot -1 reads as a row of zeros.
TYPED_TEST(ExpertsOf, Battery06_GatheredRowsAreThePermutedOnes) {
  constexpr int N = 35, K = 300, T = 23, top_k = 3;
  product_case<TypeParam> x({7, 0, 40, 1}, N, K);
  auto const tokens = normal_values<TypeParam>(T * K, 5),
             d_tokens = normal_values<TypeParam>(T * N, 6);
  guarded<index_t> slot(static_cast<std::size_t>(x.R));
  guarded<TypeParam> copy(x.a.size()), d_copy(x.dc.size());
  rng d(3);
  for (int r = 0; r < x.R; ++r) {
    auto& s = slot[static_cast<std::size_t>(r)];
    s = r % 11 == 5 ? -1 : static_cast<index_t>(d.below(T * top_k));
    for (int k = 0; k < K; ++k) {
      copy.as(x.R, K)(r, k) = s < 0 ? TypeParam{} : tokens.as(T, K)(s / top_k, k);
    }
    for (int n = 0; n < N; ++n) {
      d_copy.as(x.R, N)(r, n) = s < 0 ? TypeParam{} : d_tokens.as(T, N)(s / top_k, n);
    }
  }
  row_gather<> const gather{slot.as(x.R), top_k};
  for (on_host const& on : host_configs()) {
    guarded<float> c = x.like_c(), c2 = x.like_c(), da(x.a.size()), da2(x.a.size());
    guarded<float> dw(x.w.size()), dw2(x.w.size());
    auto const w = x.w.as(x.E, N, K);
    ASSERT_TRUE(grouped_gemm(on, copy.as(x.R, K), w, x.rows, c.as(x.R, N)).ok());
    ASSERT_TRUE(
        grouped_gemm(on, tokens.as(T, K), w, x.rows, c2.as(x.R, N), identity{}, {.gather = gather})
            .ok());
    ASSERT_TRUE(grouped_dgrad(on, d_copy.as(x.R, N), w, x.rows, da.as(x.R, K)).ok());
    ASSERT_TRUE(
        grouped_dgrad(on, d_tokens.as(T, N), w, x.rows, da2.as(x.R, K), {.gather = gather}).ok());
    ASSERT_TRUE(
        grouped_wgrad(on, d_copy.as(x.R, N), copy.as(x.R, K), x.rows, dw.as(x.E, N, K)).ok());
    ASSERT_TRUE(grouped_wgrad(on, d_tokens.as(T, N), tokens.as(T, K), x.rows, dw2.as(x.E, N, K),
                              {.gather_dc = gather, .gather_a = gather})
                    .ok());
    EXPECT_TRUE(same_bits(c, c2) && same_bits(da, da2) && same_bits(dw, dw2)) << name_of(on);
  }
}

TYPED_TEST(ExpertsOf, Battery27_WgradAddsOrOverwrites) {
  constexpr int N = 21, K = 37;
  product_case<TypeParam> x({5, 0, 300}, N, K);
  auto const old = normal_values<float>(x.w.size(), 4), old_bias = normal_values<float>(63, 5);
  auto const factor = normal_values<float>(static_cast<std::size_t>(x.R), 6);
  guarded<std::uint8_t> frozen(std::vector<std::uint8_t>{1, 0, 0});
  for (on_host const& on : host_configs()) {
    guarded<float> made(x.w.size()), added = old, kept = old, bias(63), bias_added = old_bias;
    auto const run = [&](auto& dw, auto& db, bool add, bool freeze) {
      ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, dw.as(3, N, K),
                                {.scale = {factor.as(x.R)},
                                 .accumulate = add,
                                 .d_bias = db.as(3, N),
                                 .frozen = freeze ? view<std::uint8_t const, 1>(frozen.as(3))
                                                  : view<std::uint8_t const, 1>{}})
                      .ok());
    };
    run(made, bias, false, false);
    run(added, bias_added, true, false);
    auto const want =
        product_to_weights(in_double(x.dc), in_double(x.a), in_double(factor), x.expert, 3, N, K);
    EXPECT_TRUE(close(made, want, 302));
    for (std::size_t i = 0; i < made.size(); ++i) ASSERT_EQ(added[i], old[i] + made[i]);
    for (std::size_t i = 0; i < bias.size(); ++i) ASSERT_EQ(bias_added[i], old_bias[i] + bias[i]);
    std::vector<expectation> want_bias(63);
    for (std::size_t r = 0; r < x.expert.size(); ++r) {
      for (std::size_t n = 0; n < N; ++n) {
        double const v =
            static_cast<double>(factor[r]) * static_cast<double>(to_float(x.dc[r * N + n]));
        auto& sum = want_bias[static_cast<std::size_t>(x.expert[r]) * N + n];
        sum.value += v;
        sum.magnitude += std::abs(v);
      }
    }
    EXPECT_TRUE(close(bias, want_bias, 302));
    guarded<float> none = old_bias;
    run(kept, none, false, true);  // expert 0 is frozen: nothing of it is written
    EXPECT_EQ(std::memcmp(kept.data(), old.data(), N * K * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(kept.data() + N * K, made.data() + N * K, 2 * N * K * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(none.data(), old_bias.data(), N * sizeof(float)), 0);
  }
}

TYPED_TEST(ExpertsOf, DgradAddsAndScales) {
  constexpr int N = 30, K = 45;
  product_case<TypeParam> x({4, 20}, N, K);
  auto const factor = normal_values<float>(static_cast<std::size_t>(x.R), 6);
  auto const old = normal_values<TypeParam>(x.a.size(), 7);
  auto want = product_to_rows(in_double(x.dc), in_double(x.w), x.expert, N, K);
  for (std::size_t i = 0; i < want.size(); ++i) {
    auto const f = static_cast<double>(factor[i / K]);
    auto const o = static_cast<double>(to_float(old[i]));
    want[i] = {want[i].value * f + o, want[i].magnitude * std::abs(f) + std::abs(o)};
  }
  for (on_host const& on : host_configs()) {
    guarded<TypeParam> da = old;
    ASSERT_TRUE(grouped_dgrad(on, x.dc.as(x.R, N), x.w.as(2, N, K), x.rows, da.as(x.R, K),
                              {.scale = {factor.as(x.R)}, .accumulate = true})
                    .ok());
    EXPECT_TRUE(close(da, want, N + 3)) << name_of(on);
  }
}

// Rows, columns and pointers aligned to their element and to nothing else.
TYPED_TEST(ExpertsOf, Battery26_AlignedToTheElementOnly) {
  for (auto const& configs : host_arithmetics<TypeParam>()) {
    constexpr int N = 19, K = 67, R = 29;
    product_case<TypeParam> x({R}, N, K);
    guarded<float> want = x.like_c();
    ASSERT_TRUE(
        grouped_gemm(configs.front(), x.a.as(R, K), x.w.as(1, N, K), x.rows, want.as(R, N)).ok());
    for (std::size_t shift : {1u, 3u}) {
      guarded<TypeParam> a(R * (K + 2) + shift), w(N * (K + 3) + shift);
      view<TypeParam, 2> const av(a.data() + shift, {{R, K}}, {{K + 2, 1}});
      view<TypeParam, 3> const wv(w.data() + shift, {{1, N, K}}, {{N * (K + 3), K + 3, 1}});
      for (int r = 0; r < R; ++r) {
        for (int k = 0; k < K; ++k) av(r, k) = x.a.as(R, K)(r, k);
      }
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < K; ++k) wv(0, n, k) = x.w.as(N, K)(n, k);
      }
      for (on_host const& on : configs) {
        guarded<float> c(R * (N + 1) + shift), packed_like(R * N);
        view<float, 2> const cv(c.data() + shift, {{R, N}}, {{N + 1, 1}});
        ASSERT_TRUE(grouped_gemm(on, av, wv, x.rows, cv).ok());
        for (int r = 0; r < R; ++r) {
          for (int n = 0; n < N; ++n) packed_like.as(R, N)(r, n) = cv(r, n);
        }
        EXPECT_TRUE(same_bits(want, packed_like)) << name_of(on);
      }
    }
  }
}

}  // namespace experts_test
}  // namespace shunt::test
