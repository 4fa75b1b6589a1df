// 4-bit integers as compressed-tensors, GPTQ and AWQ publish them: each becomes the same packed bytes,
// which mean (number - zero point) times scale, and products with them have the bits of the float product.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/experts_case.hpp"
#include "support/packed_formats.hpp"

namespace shunt::test {
namespace pack_int4_test {

/// A checkpoint's experts [E,N,K], before any packing.
template <class T> struct published_int4 {
  int E, N, K, group;
  std::vector<int> number, zero;
  std::vector<T> scale;

  published_int4(int experts, int rows, int columns, int wide, int most_zero)
      : E(experts), N(rows), K(columns), group(wide) {
    rng d(17);
    for (int i = 0; i < E * N * K; ++i) number.push_back(static_cast<int>(d.below(16)));
    for (int i = 0; i < E * N * groups(); ++i) {
      zero.push_back(static_cast<int>(d.below(most_zero + 1)));
      scale.push_back(from_float<T>(0.01f * static_cast<float>(1 + d.below(90)) - 0.2f));
    }
  }
  int groups() const { return (K + group - 1) / group; }
  std::size_t at(int e, int n, int k) const {
    return static_cast<std::size_t>((e * N + n) * K + k);
  }
  std::size_t of(int e, int n, int g) const {
    return static_cast<std::size_t>((e * N + n) * groups() + g);
  }
  std::vector<float> weights() const {
    std::vector<float> w;
    for (int e = 0; e < E; ++e)
      for (int n = 0; n < N; ++n)
        for (int k = 0; k < K; ++k) {
          std::size_t const g = of(e, n, k / group);
          w.push_back(static_cast<float>((number[at(e, n, k)] - zero[g]) *
                                         static_cast<double>(to_float(scale[g]))));
        }
    return w;
  }
  /// Eight numbers of four bits a word, [E, high, wide / 8 or high / 8, wide]: where(i) is the place of
  /// number i of a word, get(e, r, c) the number of row r and column c.
  template <class Get, class Where>
  std::vector<std::int32_t> words(int high, int wide, bool along_rows, Get get, Where where) const {
    int const rows = along_rows ? high / 8 : high, columns = along_rows ? wide : wide / 8;
    std::vector<std::uint32_t> w(static_cast<std::size_t>(E * rows * columns));
    for (int e = 0; e < E; ++e)
      for (int r = 0; r < high; ++r)
        for (int c = 0; c < wide; ++c) {
          int const row = along_rows ? r / 8 : r, column = along_rows ? c : c / 8;
          auto const bits = static_cast<std::uint32_t>(get(e, r, c)) & 15u;
          w[static_cast<std::size_t>((e * rows + row) * columns + column)] |=
              bits << 4 * where(along_rows ? r % 8 : c % 8);
        }
    return {w.begin(), w.end()};
  }
  std::vector<T> scales_by_columns() const {
    std::vector<T> s;
    for (int e = 0; e < E; ++e)
      for (int g = 0; g < groups(); ++g)
        for (int n = 0; n < N; ++n) s.push_back(scale[of(e, n, g)]);
    return s;
  }
};

template <int Group, class T>
guarded<int4_group<Group>> by_pairs(on_host const& on, published_int4<T> const& p) {
  std::vector<std::uint8_t> two(p.number.size() / 2), zero(p.zero.begin(), p.zero.end());
  for (std::size_t i = 0; i < p.number.size(); ++i) {
    two[i / 2] = static_cast<std::uint8_t>(two[i / 2] | p.number[i] << i % 2 * 4);
  }
  auto bytes = buffer_for<int4_group<Group>>(p.E, p.N, p.K);
  fine(pack_int4(on, view<std::uint8_t const, 3>(two.data(), {{p.E, p.N, p.K / 2}}),
                 view<T const, 3>(p.scale.data(), {{p.E, p.N, p.groups()}}),
                 view<std::uint8_t const, 3>(zero.data(), {{p.E, p.N, p.groups()}}), bytes));
  return bytes;
}
template <int Group, class T>
guarded<int4_group<Group>> by_gptq(on_host const& on, published_int4<T> const& p, int zero_less) {
  auto const in_order = [](int i) { return i; };
  auto const numbers = p.words(
      p.K, p.N, true, [&](int e, int k, int n) { return p.number[p.at(e, n, k)]; }, in_order);
  auto const zeros = p.words(
      p.groups(), p.N, false,
      [&](int e, int g, int n) { return p.zero[p.of(e, n, g)] - zero_less; }, in_order);
  auto const scales = p.scales_by_columns();
  auto bytes = buffer_for<int4_group<Group>>(p.E, p.N, p.K);
  fine(pack_gptq(on, view<std::int32_t const, 3>(numbers.data(), {{p.E, p.K / 8, p.N}}),
                 view<std::int32_t const, 3>(zeros.data(), {{p.E, p.groups(), p.N / 8}}),
                 view<T const, 3>(scales.data(), {{p.E, p.groups(), p.N}}), bytes, {}, zero_less));
  return bytes;
}
template <int Group, class T>
guarded<int4_group<Group>> by_awq(on_host const& on, published_int4<T> const& p) {
  // Bits 4 i of a word are of column order[i].
  auto const place = [](int column) {
    constexpr int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (int i = 0; i < 8; ++i)
      if (order[i] == column) return i;
    return -1;
  };
  auto const numbers =
      p.words(p.K, p.N, false, [&](int e, int k, int n) { return p.number[p.at(e, n, k)]; }, place);
  auto const zeros = p.words(
      p.groups(), p.N, false, [&](int e, int g, int n) { return p.zero[p.of(e, n, g)]; }, place);
  auto const scales = p.scales_by_columns();
  auto bytes = buffer_for<int4_group<Group>>(p.E, p.N, p.K);
  fine(pack_awq(on, view<std::int32_t const, 3>(numbers.data(), {{p.E, p.K, p.N / 8}}),
                view<std::int32_t const, 3>(zeros.data(), {{p.E, p.groups(), p.N / 8}}),
                view<T const, 3>(scales.data(), {{p.E, p.groups(), p.N}}), bytes));
  return bytes;
}

template <int Group, class T> void every_layout(int N, int K) {
  published_int4<T> const p(2, N, K, Group, 15);
  auto const want = p.weights();
  EXPECT_TRUE(not_flat(in_double(want)));
  auto const bytes = by_pairs<Group>(on_host{.threads = 1}, p);
  EXPECT_TRUE(same_bits(by_gptq<Group>(on_host{.threads = 3}, p, 0), bytes));
  EXPECT_TRUE(same_bits(by_awq<Group>(on_host{.threads = 3}, p), bytes));
  for (on_host const& on : host_configs()) {
    EXPECT_TRUE(same_bits(decoded(on, bytes, p.E, N, K), want)) << name_of(on);
  }
  // GPTQ's first format: 1 to 16.
  published_int4<T> more = p;
  for (int& z : more.zero) ++z;
  auto const later = by_gptq<Group>(on_host{}, more, 1);
  EXPECT_TRUE(same_bits(decoded(on_host{}, later, p.E, N, K), more.weights()));
}
TEST(PackInt4, EveryLayoutMeansTheSame) {
  every_layout<32, bf16>(40, 96);
  every_layout<32, float>(136, 200);  // the last group of a row has 8 columns
  every_layout<128, fp16>(64, 256);
  every_layout<128, float>(8, 136);
}

template <int Group> void products() {
  constexpr int N = 72, K = 264;
  published_int4<fp16> const p(1, N, K, Group, 15);
  auto const bytes = by_awq<Group>(on_host{}, p);
  auto const floats = p.weights();
  for (int const rows : {1, 2, 3, 4, 5, 30}) {
    auto const a = normal_values<float>(static_cast<std::size_t>(rows * K), 8);
    guarded<index_t> const offset(std::vector<index_t>{0, rows});
    guarded<float> want(static_cast<std::size_t>(rows * N)), got(want.size());
    fine(grouped_gemm(on_host{.threads = 1}, a.as(rows, K),
                      view<float const, 3>(floats.data(), {{1, N, K}}), {offset},
                      want.as(rows, N)));
    EXPECT_TRUE(not_flat(in_double(want)));
    for (on_host const& on : host_configs()) {
      fine(grouped_gemm(on, a.as(rows, K), handle(bytes, 1, N, K), {offset}, got.as(rows, N)));
      EXPECT_TRUE(same_bits(got, want)) << rows << " rows, " << name_of(on);
    }
  }
}
TEST(PackInt4, AProductWithZeroPointsHasTheBitsOfTheFloatProduct) {
  products<32>();
  products<128>();
}

TEST(PackInt4, ErrorsAreSentences) {
  on_host const on;
  guarded<std::uint8_t> two(4 * 32);
  guarded<float> scale(100);
  guarded<int4_group<32>> bytes(10000);
  guarded<std::int32_t> words(1000);
  view<std::uint8_t const, 3> const none;
  expect_error(pack_int4(on, two.as(1, 4, 32), scale.as(1, 4, 3), none, bytes), error::bad_shape,
               "pack_int4.scale: extent 2 is 3; it must be 2 (groups of a row)");
  expect_error(pack_int4(on, two.as(1, 4, 32), scale.as(1, 4, 2), two.as(1, 3, 2), bytes),
               error::bad_shape, "pack_int4.zero: extent 1 is 3; it must be 4 (rows of numbers)");
  guarded<int4_group<32>> few(7);
  expect_error(pack_int4(on, two.as(1, 4, 32), scale.as(1, 4, 2), none, few), error::bad_shape,
               "pack_int4.packed: it has 7 elements; it must have 672");
  expect_error(pack_gptq(on, words.as(1, 8, 16), words.as(1, 2, 3), scale.as(1, 2, 16), bytes),
               error::bad_shape,
               "pack_gptq.zero: extent 2 is 24; it must be 16 (rows, eight of a word)");
  expect_error(pack_gptq(on, words.as(1, 8, 16), words.as(1, 2, 2), scale.as(1, 4, 16), bytes),
               error::bad_shape,
               "pack_gptq.scale: extent 1 is 4; it must be 2 (groups of the columns)");
  expect_error(
      pack_gptq(on, words.as(1, 8, 16), words.as(1, 2, 2), scale.as(1, 2, 16), bytes, {}, 2),
      error::bad_argument, "pack_gptq.zero_less: it is 2; it must be 0 or 1");
  expect_error(pack_awq(on, words.as(1, 64, 2), words.as(1, 2, 2), scale.as(1, 2, 8), bytes),
               error::bad_shape, "pack_awq.scale: extent 2 is 8; it must be 16 (rows)");
}

}  // namespace pack_int4_test
}  // namespace shunt::test
