// Products whose rows are rounded to int8: every output is held, bit by bit, against what it is defined to be,
// computed naively; and what the rounding loses against what is documented.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "support/expect_error.hpp"
#include "support/packed_formats.hpp"

namespace shunt::test {
namespace experts_int8_rows_test {

template <class Oracle> class ExpertsInt8Rows : public testing::Test {};
using integer_formats = testing::Types<int8_oracle, mxfp4_oracle>;
TYPED_TEST_SUITE(ExpertsInt8Rows, integer_formats);

/// How many units of its integer a number of the format is.
template <class Oracle> inline constexpr int units = std::same_as<Oracle, mxfp4_oracle> ? 2 : 1;

/// One output: for each group of k, the largest magnitude sets the scale, numbers are rounded, their products are
/// summed as integers, and added times both scales.
template <class Oracle, class T>
float defined(published const& w, int e, int n, T const* a, int K) {
  float c = 0.0f;
  int const wide = std::min(Oracle::columns, K);
  for (int first = 0; first < K; first += wide) {
    int const last = std::min(K, first + wide);
    float most = 0.0f;
    bool finite = true;
    for (int k = first; k < last; ++k) {
      most = std::max(most, std::abs(to_float(a[k])));
      finite = finite && std::isfinite(to_float(a[k]));
    }
    bool const none = most < 0x1p-100f;
    float const scale = !finite ? std::nanf("") : none ? 0.0f : most / 127.0f;
    std::int64_t sum = 0;
    for (int k = first; finite && !none && k < last; ++k) {
      double const exact = static_cast<double>(to_float(a[k])) * static_cast<double>(127.0f / most);
      double const weight = units<Oracle> * Oracle::value(w.code[w.at(e, n, k)]);
      sum += static_cast<std::int64_t>(std::nearbyint(exact) * weight);
    }
    float const half = scale / static_cast<float>(units<Oracle>);
    c = std::fmaf(static_cast<float>(sum), half * w.scale[w.block(e, n, first)], c);
  }
  return c;
}
template <class Oracle, class T>
guarded<float> all_defined(published const& w, product_case<T> const& x) {
  guarded<float> c = x.like_c();
  for (int r = 0; r < x.R; ++r) {
    for (int n = 0; n < x.N; ++n) {
      c.as(x.R, x.N)(r, n) =
          defined<Oracle>(w, x.expert[static_cast<std::size_t>(r)], n,
                          x.a.data() + static_cast<std::ptrdiff_t>(r) * x.K, x.K);
    }
  }
  return c;
}

template <class Oracle, class T>
void every_output(std::vector<index_t> const& lengths, int N, int K) {
  SCOPED_TRACE("N " + std::to_string(N) + " K " + std::to_string(K));
  product_case<T> const x(lengths, N, K, 3);
  auto const w = quantized_naively<Oracle>(x.w, x.E, N, K);
  auto const bytes = pack<Oracle>(on_host{}, w);
  auto const want = all_defined<Oracle>(w, x);
  EXPECT_TRUE(not_flat(in_double(want)));
  for (on_host const& on : host_and_tile_configs()) {
    guarded<float> c = x.like_c();
    fine(grouped_gemm(on, x.a.as(x.R, K), handle(bytes, x.E, N, K), x.rows, c.as(x.R, N), {},
                      {.int8_rows = true}));
    EXPECT_TRUE(same_bits(c, want)) << name_of(on);
  }
}

TYPED_TEST(ExpertsInt8Rows, EveryOutputIsWhatItIsDefinedToBe) {
  std::vector<index_t> few{0};
  for (index_t rows = 1; rows <= 30; ++rows) few.push_back(rows);
  every_output<TypeParam, float>(few, 1, 1);
  every_output<TypeParam, bf16>(few, 33, 31);
  every_output<TypeParam, float>(few, 5, 64);
  every_output<TypeParam, fp16>({1, 0, 72, 73}, 48, 66);
  every_output<TypeParam, float>({1, 2, 13}, 150, 2301);  // pieces, strips, an odd end
  every_output<TypeParam, float>({73, 1, 7}, 81, 1090);
  every_output<TypeParam, bf16>({150, 12, 1}, 131, 258);
}

// Gate and up at once, in any order, biases, factors, and gathered rows, some of which are not there.
TYPED_TEST(ExpertsInt8Rows, WhatIsFusedComesAfterTheSums) {
  constexpr int I = 37, N = 2 * I, K = 91, T = 19;
  product_case<float> x({3, 0, 40, 1}, N, K);
  auto const tokens = normal_values<float>(T * K, 5);
  guarded<index_t> const slot = rows_from(tokens, T, x);
  auto const factor = normal_values<float>(T, 6);
  auto const bias = normal_values<float>(static_cast<std::size_t>(x.E * N), 7);
  auto const logical = quantized_naively<TypeParam>(x.w, x.E, N, K);
  auto const want = all_defined<TypeParam>(logical, x);
  for (pair_layout const lies : {pair_layout{}, {pair_order::up_gate, 1}, {{}, 3}}) {
    auto const rows = pair_rows(I, lies.order == pair_order::up_gate, lies.block);
    published p = logical;  // the same rows where they lie
    for (int e = 0; e < x.E; ++e) {
      for (int n = 0; n < N; ++n) {
        int const from =
            rows[static_cast<std::size_t>(n)].first * I + rows[static_cast<std::size_t>(n)].second;
        for (int k = 0; k < K; ++k) p.code[p.at(e, n, k)] = logical.code[p.at(e, from, k)];
        for (int k = 0; k < K; k += std::min(TypeParam::columns, K)) {
          p.scale[p.block(e, n, k)] = logical.scale[p.block(e, from, k)];
        }
      }
    }
    auto const bytes = pack<TypeParam>(on_host{}, p, lies);
    for (on_host const& on : host_and_tile_configs()) {
      SCOPED_TRACE(name_of(on));
      guarded<float> c(static_cast<std::size_t>(x.R * I)), pre = x.like_c();
      fine(grouped_gemm(on, tokens.as(T, K), handle(bytes, x.E, N, K, lies), x.rows, c.as(x.R, I),
                        swiglu{},
                        {.gather = {slot.as(x.R)},
                         .bias = bias.as(x.E, N),
                         .pre = pre.as(x.R, N),
                         .scale = {factor, slot},
                         .int8_rows = true}));
      for (int r = 0; r < x.R; ++r) {
        int const e = x.expert[static_cast<std::size_t>(r)];
        std::array<float, N> sum{};
        for (int n = 0; n < N; ++n) {
          auto const& [half, i] = rows[static_cast<std::size_t>(n)];
          int const to = half * I + i;
          sum[static_cast<std::size_t>(to)] = want.as(x.R, N)(r, to) + bias.as(x.E, N)(e, n);
        }
        index_t const s = slot[static_cast<std::size_t>(r)];
        for (int n = 0; n < N; ++n)
          ASSERT_EQ(pre.as(x.R, N)(r, n), sum[static_cast<std::size_t>(n)]);
        for (int i = 0; i < I; ++i) {
          float const value = swiglu{}.value(sum[static_cast<std::size_t>(i)],
                                             sum[static_cast<std::size_t>(I + i)]);
          ASSERT_EQ(c.as(x.R, I)(r, i), s < 0 ? 0.0f : value * factor[static_cast<std::size_t>(s)]);
        }
      }
    }
  }
}

TYPED_TEST(ExpertsInt8Rows, TheLargestSumsFit) {
  constexpr int N = 17;
  for (int const K : {64, 65535, 65536}) {
    published w{1, N, K, 1, TypeParam::columns, {}, {}};
    int const least = std::same_as<TypeParam, mxfp4_oracle> ? 15 : 128;  // -6, -128
    int const most = std::same_as<TypeParam, mxfp4_oracle> ? 7 : 127;
    for (int i = 0; i < N * K; ++i)
      w.code.push_back(static_cast<std::uint8_t>(i / K % 2 ? most : least));
    w.scale.assign(static_cast<std::size_t>(N * w.column_blocks()), 1.0f);
    auto const bytes = pack<TypeParam>(on_host{}, w);
    product_case<float> x({3, 0}, N, K);
    for (int k = 0; k < K; ++k) {
      x.a.as(3, K)(0, k) = 0.3f;
      x.a.as(3, K)(1, k) = -0.3f;
      x.a.as(3, K)(2, k) = k % 2 ? -1.0f : 0.4f;
    }
    auto const want = all_defined<TypeParam>(w, x);
    for (on_host const& on : host_and_tile_configs()) {
      for (index_t const rows : {1, 3}) {
        guarded<index_t> offset(std::vector<index_t>{0, rows});
        guarded<float> c(static_cast<std::size_t>(rows * N));
        fine(grouped_gemm(on, x.a.as(3, K).slice(0, rows), handle(bytes, 1, N, K), {offset},
                          c.as(rows, N), {}, {.int8_rows = true}));
        EXPECT_EQ(std::memcmp(c.data(), want.data(), c.size() * sizeof(float)), 0)
            << name_of(on) << " K " << K;
      }
    }
  }
}

TYPED_TEST(ExpertsInt8Rows, WhatIsNotFiniteAndWhatIsSmall) {
  constexpr int R = 9, N = 20, K = 70;
  product_case<float> x({R}, N, K);
  float const infinite = std::numeric_limits<float>::infinity();
  auto row = x.a.as(R, K);
  row(1, 3) = std::nanf("");
  row(2, 69) = infinite;
  row(3, 0) = -infinite;
  for (int k = 0; k < K; ++k) {
    row(4, k) = 0.0f;
    row(5, k) *= 0x1p-110f;
    row(6, k) *= 0x1p120f;
    row(7, k) = k == 40 ? 0x1p-100f : 0x1p-149f;
  }
  auto w = quantized_naively<TypeParam>(x.w, 1, N, K);
  w.scale[w.block(0, 11, 0)] = std::nanf("");  // a row of weights that is none
  auto const bytes = pack<TypeParam>(on_host{}, w);
  auto const want = all_defined<TypeParam>(w, x);
  for (on_host const& on : host_and_tile_configs()) {
    for (index_t const together : {1, R}) {
      for (index_t first = 0; first < R; first += together) {
        guarded<index_t> offset(std::vector<index_t>{0, together});
        guarded<float> c(static_cast<std::size_t>(together * N));
        fine(grouped_gemm(on, x.a.as(R, K).slice(first, together), handle(bytes, 1, N, K), {offset},
                          c.as(together, N), {}, {.int8_rows = true}));
        for (index_t r = 0; r < together; ++r) {
          for (int n = 0; n < N; ++n) {
            float const got = c.as(together, N)(r, n), must = want.as(R, N)(first + r, n);
            bool const none = n == 11 || (first + r >= 1 && first + r <= 3);
            EXPECT_EQ(std::isnan(must), none) << "the oracle";
            EXPECT_TRUE(none ? std::isnan(got) : got == must)
                << name_of(on) << " row " << first + r << " column " << n << ": " << got << ", "
                << must;
          }
        }
      }
    }
  }
}

TYPED_TEST(ExpertsInt8Rows, ARowLosesWhatIsDocumented) {
  using F = typename TypeParam::format;
  constexpr int R = 40, N = 64, K = 512;
  for (double const power : {1.0, 3.0}) {  // cubes of normal numbers have heavy tails
    product_case<float> x({R}, N, K);
    for (float& v : x.a) {
      v = static_cast<float>(std::copysign(std::pow(std::abs(static_cast<double>(v)), power), v));
    }
    guarded<F> bytes = buffer_for<F>(1, N, K);
    fine(quantize_weights(on_host{}, x.w.as(1, N, K), bytes));
    auto const w = decoded(on_host{}, bytes, 1, N, K);
    guarded<float> c = x.like_c();
    fine(grouped_gemm(on_host{}, x.a.as(R, K), handle(bytes, 1, N, K), x.rows, c.as(R, N), {},
                      {.int8_rows = true}));
    double worst = 0, off = 0, all = 0;
    int const wide = std::min(TypeParam::columns, K);
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < N; ++n) {
        double sum = 0, bound = 0;
        for (int first = 0; first < K; first += wide) {
          double most = 0, weights = 0;
          for (int k = first; k < std::min(K, first + wide); ++k) {
            double const a = x.a.as(R, K)(r, k), b = w[static_cast<std::size_t>(n * K + k)];
            most = std::max(most, std::abs(a));
            weights += std::abs(b);
            sum += a * b;
          }
          bound += most / 254 * weights;
        }
        double const error = std::abs(static_cast<double>(c.as(R, N)(r, n)) - sum);
        worst = std::max(worst, error / bound);
        off += error * error;
        all += sum * sum;
      }
    }
    double const relative = std::sqrt(off / all);
    testing::Test::RecordProperty("relative_rms_" + std::to_string(static_cast<int>(power)),
                                  std::to_string(relative));
    EXPECT_LE(worst, 1.0);
    bool const groups = std::same_as<TypeParam, mxfp4_oracle>;
    double const most = power == 1.0 ? (groups ? 0.0058 : 0.0080) : (groups ? 0.0125 : 0.030);
    EXPECT_LE(relative, most) << power;
    EXPECT_GE(relative, most / 2) << "the bound is not tight: it would hide errors";
  }
}

TEST(ExpertsInt8RowsErrors, AreSentences) {
  on_host const on;
  guarded<float> a(64), c(64), w(64);
  guarded<index_t> offset(std::vector<index_t>{0, 1});
  gemm_options<> const asked{.int8_rows = true};
  expect_error(
      grouped_gemm(on, a.as(1, 8), w.as(1, 8, 8), {offset}, c.as(1, 8), {}, asked),
      error::bad_argument,
      "grouped_gemm.int8_rows: it is set; rows are rounded for weights in int8_channel or mxfp4 "
      "only");
  guarded<fp8_block> eight(3000);
  expect_error(
      grouped_gemm(on, a.as(1, 8), expert_matrix<fp8_block>::packed(eight.data(), 1, 8, 8),
                   {offset}, c.as(1, 8), {}, asked),
      error::bad_argument,
      "grouped_gemm.int8_rows: it is set; rows are rounded for weights in int8_channel or mxfp4 "
      "only");
  constexpr int K = 65537;
  guarded<float> wide(K);
  guarded<int8_channel> bytes = buffer_for<int8_channel>(1, 1, K);
  c[0] = 7.0f;
  expect_error(
      grouped_gemm(on, wide.as(1, K), handle(bytes, 1, 1, K), {offset}, c.as(1, 1), {}, asked),
      error::bad_shape,
      "grouped_gemm.int8_rows: it is set, and the rows have 65537 columns; they must be at most "
      "65536");
  EXPECT_EQ(c[0], 7.0f);
}

}  // namespace experts_int8_rows_test
}  // namespace shunt::test
