// Weights in fewer bits: what their numbers mean, how they are rounded, and products with them, which
// have the bits of the float product with the decoded weights.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "support/experts_case.hpp"
#include "support/halves_apart.hpp"
#include "support/packed_formats.hpp"

namespace shunt::test {
namespace experts_formats_test {

template <class Oracle> class ExpertsFormats : public testing::Test {};
using all_formats =
    testing::Types<int8_oracle, fp8_oracle, mxfp4_oracle, nvfp4_oracle, int4_oracle<32>,
                   int4_oracle<128>, int8_group_oracle<32>, int8_group_oracle<128>>;
TYPED_TEST_SUITE(ExpertsFormats, all_formats);

TYPED_TEST(ExpertsFormats, EveryNumberMeansWhatTheFormatSays) {
  // Every code under scales of every kind; mxfp4: under each of its 256, nvfp4: of its 254. 300 rows, so
  // that fp8 has three blocks of them.
  int const codes = TypeParam::codes, K = 2 * codes + 5;
  published p{2, 300, K, TypeParam::rows, TypeParam::columns, {}, {}};
  if constexpr (std::same_as<TypeParam, nvfp4_oracle>) p.tensor = {-0x1.234568p-11f, 0x1.8p-140f};
  for (int i = 0; i < p.E * p.N * K; ++i) {
    int const code = (i + i / K) % codes;
    p.code.push_back(static_cast<std::uint8_t>(std::isnan(TypeParam::value(code)) ? 0 : code));
  }
  float const kinds[] = {1.0f,        0.0f,  0x1.fffffep-7f, -0x1.234568p-11f, 0x1p-149f,
                         0x1.8p-140f, 1e30f, 0.1f,           0x1.fffffep119f};
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.E * p.row_blocks() * p.column_blocks());
       ++i) {
    if constexpr (std::same_as<TypeParam, mxfp4_oracle>) {
      p.scale.push_back(static_cast<float>(mxfp4_oracle::scale_value(static_cast<int>(i % 255))));
    } else if constexpr (std::same_as<TypeParam, nvfp4_oracle>) {
      int const e4m3 = static_cast<int>(i % 127 + i / 127 % 2 * 128);
      std::size_t const e = i / static_cast<std::size_t>(p.N * p.column_blocks());
      p.e4m3.push_back(static_cast<std::uint8_t>(e4m3));
      p.scale.push_back(nvfp4_oracle::scale_of(e4m3, p.tensor[e]));
    } else {
      p.scale.push_back(kinds[i % std::size(kinds)]);
    }
  }
  auto const want = decoded_naively<TypeParam>(p);
  EXPECT_TRUE(not_flat(in_double(want)));
  auto const bytes = pack<TypeParam>(on_host{.threads = 1}, p);
  for (on_host const& on : host_configs()) {
    EXPECT_TRUE(same_bits(pack<TypeParam>(on, p), bytes)) << name_of(on);
    EXPECT_TRUE(same_bits(decoded(on, bytes, p.E, p.N, K), want)) << name_of(on);
  }
}

TYPED_TEST(ExpertsFormats, RoundsToTheNearestInEveryLayout) {
  using F = typename TypeParam::format;
  struct {
    int E, N, K;
  } const shapes[] = {{1, 1, 1}, {2, 34, 131}, {1, 150, 300}};
  for (auto const& s : shapes) {
    auto w = normal_values<float>(product_case<float>::count(s.E * s.N, s.K), 5, 0.1);
    // Ties, and numbers on both sides of one: halves of a step under a largest number of 127, 448
    // and 6 steps.
    for (std::size_t i = 0; i + 1 < w.size(); i += 7) w[i] = std::ldexp(std::round(w[i] * 64), -7);
    w[0] = std::same_as<F, int8_channel> || shunt::detail::is_int8_group<F> ? 127 / 128.0f
           : std::same_as<F, mxfp4>                                         ? 0.75f
           : std::same_as<F, nvfp4>                                         ? 21.0f
           : is_int4<F>                                                     ? 7.5f / 64
                                                                            : 3.5f;
    auto const want = quantized_naively<TypeParam>(w, s.E, s.N, s.K);
    for (bool const paired : {false, true}) {
      if (paired && s.N % 2 != 0) continue;
      for (pair_layout const lies : {pair_layout{}, {pair_order::up_gate, 1}, {{}, 3}}) {
        auto const pairs = paired ? std::optional(lies) : std::nullopt;
        expert_matrix<float> const from =
            paired ? expert_matrix<float>(w.as(s.E, s.N, s.K), lies) : w.as(s.E, s.N, s.K);
        for (on_host const& on : {on_host{.threads = 1}, on_host{.threads = 3}}) {
          auto bytes = buffer_for<F>(s.E, s.N, s.K, pairs);
          fine(quantize_weights(on, from, bytes));
          EXPECT_TRUE(same_bits(bytes, pack<TypeParam>(on, want, pairs))) << s.N << " " << paired;
          EXPECT_TRUE(same_bits(decoded(on, bytes, s.E, s.N, s.K, pairs),
                                decoded_naively<TypeParam>(want)));
        }
      }
    }
    if (s.N % 2 != 0) continue;
    halves_apart<float> const apart(w, s.E, s.N / 2, s.K, 3);
    auto bytes = buffer_for<F>(s.E, s.N, s.K, pair_layout{});
    fine(quantize_weights(on_host{.threads = 3}, apart.weights(), bytes));
    EXPECT_TRUE(same_bits(bytes, pack<TypeParam>(on_host{}, want, pair_layout{}))) << s.N;
  }
}

/// What a weight x may lose, m being the largest that shares its scale, `all` that of its expert.
template <class F> double bound_of(double x, double m, double all) {
  if (std::same_as<F, int8_channel> || shunt::detail::is_int8_group<F>) return m / 254;
  if (std::same_as<F, mxfp4>) return m / 4;
  if (std::same_as<F, nvfp4>) return std::max(m * 17 / 96, m / 6 + all / 458752);
  if (is_int4<F>) return std::max(m / 15, m - 7.0 / 8 * std::numeric_limits<float>::max());
  return std::max(std::abs(x) / 16, m / 448 / 1024);
}

TYPED_TEST(ExpertsFormats, AWeightLosesWhatIsDocumented) {
  using F = typename TypeParam::format;
  constexpr int N = 130, K = 260;
  for (double const power : {1.0, 3.0}) {  // cubes of normal numbers have heavy tails
    auto w = normal_values<float>(N * K, 9);
    for (float& x : w) x = static_cast<float>(std::copysign(std::pow(std::abs(x), power), x));
    auto bytes = buffer_for<F>(1, N, K);
    fine(quantize_weights(on_host{}, w.as(1, N, K), bytes));
    auto const got = decoded(on_host{}, bytes, 1, N, K);
    published const p = quantized_naively<TypeParam>(w, 1, N, K);
    std::vector<double> most(p.scale.size());
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < K; ++k) {
        double& m = most[p.block(0, n, k)];
        m = std::max(m, static_cast<double>(std::abs(w[p.at(0, n, k)])));
      }
    double worst = 0;
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < K; ++k) {
        std::size_t const i = p.at(0, n, k);
        double const x = w[i], m = most[p.block(0, n, k)];
        double const all = *std::max_element(most.begin(), most.end());
        worst = std::max(worst, std::abs(got[i] - x) / bound_of<F>(x, m, all));
      }
    EXPECT_LE(worst, 1 + 1e-4);
    EXPECT_GE(worst, 0.7) << "the bound is not tight: it would hide errors";
  }
}

// A row of int8 whose largest number is the largest float: 127 times its scale was infinite.
TYPED_TEST(ExpertsFormats, Battery41_TheLargestFloatsDecodeToFiniteNumbers) {
  using F = typename TypeParam::format;
  constexpr int N = 37, K = 40;
  float const largest = std::numeric_limits<float>::max();
  guarded<float> w(static_cast<std::size_t>(N * K));
  for (int n = 0; n < N; ++n) {  // each row begins with another of the largest floats
    float most = largest;
    for (int i = 0; i < n; ++i) most = std::nextafter(most, 0.0f);
    for (int k = 0; k < K; ++k) {
      w[static_cast<std::size_t>(n * K + k)] =
          (k % 2 == 0 ? 1.0f : -1.0f) * most / float(1 + k % 9);
    }
  }
  w[static_cast<std::size_t>((N - 1) * K)] = to_float(bf16{0x7f7f});  // that of bf16
  published const want = quantized_naively<TypeParam>(w, 1, N, K);
  std::vector<float> const meant = decoded_naively<TypeParam>(want);
  for (on_host const& on : host_configs()) {
    auto bytes = buffer_for<F>(1, N, K);
    fine(quantize_weights(on, w.as(1, N, K), bytes));
    auto const got = decoded(on, bytes, 1, N, K);
    EXPECT_TRUE(same_bits(got, meant)) << name_of(on);
    for (std::size_t i = 0; i < w.size(); ++i) {
      double const x = static_cast<double>(w[i]), m = static_cast<double>(largest);
      double const bound = std::same_as<F, fp8_block> ? std::abs(x) / 16 : bound_of<F>(x, m, m);
      ASSERT_TRUE(std::isfinite(got[i])) << name_of(on) << " " << i << " " << x;
      ASSERT_LE(std::abs(static_cast<double>(got[i]) - x), bound * (1 + 1e-4)) << i;
    }
  }
}

TYPED_TEST(ExpertsFormats, WhatIsNotFiniteTakesItsOwnGroupOfItsRow) {
  using F = typename TypeParam::format;
  constexpr int N = 40, K = 300;
  auto w = normal_values<float>(N * K, 3);
  auto const clean = w;
  float const bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  int const row[] = {0, 17, 39}, column[] = {0, 150, 299};
  for (std::size_t i = 0; i < 3; ++i) w[static_cast<std::size_t>(row[i] * K + column[i])] = bad[i];
  auto without = clean;  // what counts for the scales
  for (std::size_t i = 0; i < 3; ++i) without[static_cast<std::size_t>(row[i] * K + column[i])] = 0;
  auto bytes = buffer_for<F>(1, N, K), reference = buffer_for<F>(1, N, K);
  fine(quantize_weights(on_host{}, w.as(1, N, K), bytes));
  fine(quantize_weights(on_host{}, without.as(1, N, K), reference));
  auto const got = decoded(on_host{}, bytes, 1, N, K),
             want = decoded(on_host{}, reference, 1, N, K);
  int const wide = std::min(TypeParam::columns, K);
  int nans = 0;
  for (int n = 0; n < N; ++n) {
    for (int k = 0; k < K; ++k) {
      bool taken = false;
      for (int i = 0; i < 3; ++i) taken = taken || (n == row[i] && k / wide == column[i] / wide);
      auto const at = static_cast<std::size_t>(n * K + k);
      nans += taken;
      EXPECT_EQ(std::isnan(got[at]), taken) << n << " " << k;
      if (!taken) { EXPECT_EQ(got[at], want[at]) << n << " " << k; }
    }
  }
  EXPECT_GE(nans, 3);
  // Zeros stay zero, and so does what is too small for any scale.
  guarded<float> none(N * K);
  for (float& x : none) x = 0.0f;
  none[5] = 0x1p-149f;
  fine(quantize_weights(on_host{}, none.as(1, N, K), bytes));
  for (float x : decoded(on_host{}, bytes, 1, N, K)) EXPECT_EQ(x, 0.0f);
}

/// Forward with all that can be fused to it, of quantized weights and of floats.
template <class T, class W> struct outputs {
  guarded<T> act, pre, plain;
};
template <class T, class W>
outputs<T, W> run(on_host const& on, product_case<T> const& x, expert_matrix<W> const& w,
                  guarded<index_t> const& slot, guarded<float> const& gate,
                  guarded<float> const& bias) {
  outputs<T, W> out{guarded<T>(x.dc.size() / 2), guarded<T>(x.dc.size()), guarded<T>(x.dc.size())};
  fine(grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, out.act.as(x.R, x.N / 2), swiglu{},
                    {.gather = {slot, 2},
                     .bias = bias.as(x.E, x.N),
                     .pre = out.pre.as(x.R, x.N),
                     .scale = {gate, slot}}));
  fine(grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, out.plain.as(x.R, x.N)));
  return out;
}

template <class F, class T> void same_as_floats(int N, int K, std::optional<pair_layout> pairs) {
  product_case<T> const x({0, 1, 2, 3, 4, 5, 6, 7, 10, 50, 97}, N, K);
  guarded<index_t> slot(static_cast<std::size_t>(x.R));
  for (int r = 0; r < x.R; ++r) {
    slot[static_cast<std::size_t>(r)] = r % 9 == 8 ? -1 : 2 * ((r * 5) % x.R) + r % 2;
  }
  auto const gate = normal_values<float>(static_cast<std::size_t>(2 * x.R), 21);
  auto const bias = normal_values<float>(static_cast<std::size_t>(x.E * N), 22);
  auto const w = pairs ? expert_matrix<T>(x.w.as(x.E, N, K), *pairs)
                       : expert_matrix<T>(x.w.as(x.E, N, K), pair_layout{});
  auto const lies = pairs ? pairs : std::optional(pair_layout{});
  auto bytes = buffer_for<F>(x.E, N, K, lies);
  fine(quantize_weights(on_host{}, w, bytes));
  auto const values = decoded(on_host{}, bytes, x.E, N, K, lies);
  expert_matrix<float> const floats(view<float const, 3>(values.data(), {{x.E, N, K}}), *lies);
  on_host const plain{.threads = 1};
  auto const want = run<T, float>(plain, x, floats, slot, gate, bias);
  EXPECT_TRUE(all_finite(in_segments(want.act, x.expert)));
  for (on_host const& on : host_configs()) {
    auto const got = run<T, F>(on, x, handle(bytes, x.E, N, K, lies), slot, gate, bias);
    std::string const what = name_of(on) + ", N " + std::to_string(N) + ", K " + std::to_string(K);
    EXPECT_TRUE(same_bits(got.act, want.act)) << what;
    EXPECT_TRUE(same_bits(got.pre, want.pre)) << what;
    EXPECT_TRUE(same_bits(got.plain, want.plain)) << what;
  }
}

TYPED_TEST(ExpertsFormats, AProductHasTheBitsOfTheFloatProductWithTheDecodedWeights) {
  using F = typename TypeParam::format;
  same_as_floats<F, float>(74, 290, {});
  same_as_floats<F, bf16>(258, 131, pair_layout{pair_order::up_gate, 1});
  same_as_floats<F, float>(2, 1, pair_layout{pair_order::gate_up, 3});
  same_as_floats<F, float>(64, 512, {});
}

TYPED_TEST(ExpertsFormats, ExpertsAreSliced) {
  using F = typename TypeParam::format;
  constexpr int E = 3, N = 20, K = 40;
  product_case<float> const x({4, 5, 6}, N, K);
  auto bytes = buffer_for<F>(E, N, K);
  fine(quantize_weights(on_host{}, x.w.as(E, N, K), bytes));
  auto const all = decoded(on_host{}, bytes, E, N, K);
  guarded<float> last(N * K);
  fine(dequantize_weights(on_host{}, handle(bytes, E, N, K).slice(2, 1), last.as(1, N, K)));
  EXPECT_EQ(std::memcmp(last.data(), all.data() + 2 * N * K, last.size() * sizeof(float)), 0);
}

}  // namespace experts_formats_test
}  // namespace shunt::test
