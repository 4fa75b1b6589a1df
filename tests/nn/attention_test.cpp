#include "shunt/nn/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_nn.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_attention_test {

using nn::attention_shape;
using test::expect_error;
using test::guarded;

constexpr attention_shape shapes[] = {
    {0, 5, 2, 1, 8},    {2, 0, 2, 1, 8},   {1, 1, 1, 1, 1},   {3, 1, 4, 2, 8},
    {1, 2, 1, 1, 33},   {2, 63, 2, 2, 16}, {1, 64, 3, 1, 8},  {1, 65, 2, 1, 20},
    {2, 130, 6, 2, 32}, {1, 47, 7, 7, 5},  {1, 97, 5, 1, 64}, {1, 200, 2, 1, 72},
};
std::string name_of(attention_shape const& s) {
  return "B" + std::to_string(s.batch) + " S" + std::to_string(s.length) + " heads" +
         std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " D" +
         std::to_string(s.head_dim);
}

/// q, k and v as parts of one projection [B,S,(heads + 2 kv_heads) D], as a model has them.
template <class T> struct packed {
  attention_shape s;
  guarded<T> all;
  packed(attention_shape shape, guarded<T> values) : s(shape), all(std::move(values)) {}
  explicit packed(attention_shape shape) : packed(shape, guarded<T>(count(shape))) {}
  packed(attention_shape shape, std::uint64_t seed)
      : packed(shape, test::normal_values<T>(count(shape), seed)) {}
  static std::size_t count(attention_shape const& s) {
    return static_cast<std::size_t>(s.batch * s.length * (s.heads + 2 * s.kv_heads) * s.head_dim);
  }
  view<T, 4> part(offset_t from, offset_t heads) {
    offset_t const d = s.head_dim, row = (s.heads + 2 * s.kv_heads) * d;
    return {all.data() + from * d, {{s.batch, s.length, heads, d}}, {{s.length * row, row, d, 1}}};
  }
  view<T, 4> q() { return part(0, s.heads); }
  view<T, 4> k() { return part(s.heads, s.kv_heads); }
  view<T, 4> v() { return part(s.heads + s.kv_heads, s.kv_heads); }
};

template <class T> guarded<T> copied(view<T, 4> x) {
  guarded<T> flat(static_cast<std::size_t>(x.size()));
  std::size_t n = 0;
  for (offset_t b = 0; b < x.extent(0); ++b) {
    for (offset_t s = 0; s < x.extent(1); ++s) {
      for (offset_t h = 0; h < x.extent(2); ++h) {
        for (offset_t d = 0; d < x.extent(3); ++d) flat[n++] = x(b, s, h, d);
      }
    }
  }
  return flat;
}

test::oracle::attention_sizes sizes_of(attention_shape const& s) {
  return {static_cast<std::size_t>(s.batch),    static_cast<std::size_t>(s.length),
          static_cast<std::size_t>(s.heads),    static_cast<std::size_t>(s.kv_heads),
          static_cast<std::size_t>(s.head_dim), 1.0 / std::sqrt(static_cast<double>(s.head_dim))};
}

template <class T> struct result {
  guarded<T> out;
  guarded<float> log_sum;
};
template <class T> result<T> run(on_host const& on, packed<T>& in) {
  auto const& s = in.s;
  result<T> r{guarded<T>(static_cast<std::size_t>(s.batch * s.length * s.heads * s.head_dim)),
              guarded<float>(static_cast<std::size_t>(s.batch * s.length * s.heads))};
  guarded<std::byte> bytes(nn::attention_scratch_bytes(on, s));
  status const st =
      nn::attention(on, in.q(), in.k(), in.v(), r.out.as(s.batch, s.length, s.heads, s.head_dim),
                    r.log_sum.as(s.batch, s.heads, s.length), bytes);
  EXPECT_TRUE(st.ok()) << st.message();
  return r;
}

template <class T> class AttentionOf : public testing::Test {};
TYPED_TEST_SUITE(AttentionOf, test::storage_types);

TYPED_TEST(AttentionOf, MatchesTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (attention_shape const& s : shapes) {
    packed<T> in(s, 1);
    auto const want =
        test::oracle::attention(sizes_of(s), test::in_double(copied(in.q())),
                                test::in_double(copied(in.k())), test::in_double(copied(in.v())));
    if (want.out.size() > 1) { ASSERT_TRUE(test::not_flat(want.out)); }
    bool first = true;
    result<T> reference;
    for (on_host const& on : test::host_configs()) {
      result<T> r = run(on, in);
      EXPECT_TRUE(test::close(r.out, want.out, 32)) << name_of(s);
      for (std::size_t i = 0; i < r.log_sum.size(); ++i) {
        EXPECT_NEAR(r.log_sum[i], want.log_sum[i], 2e-6 * (1 + std::abs(want.log_sum[i])));
      }
      if (first) reference = r;
      first = false;
      EXPECT_TRUE(test::same_bits(reference.out, r.out)) << name_of(s) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(reference.log_sum, r.log_sum)) << name_of(s);
    }
  }
}

TYPED_TEST(AttentionOf, GradientsMatchTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (attention_shape const& s : shapes) {
    packed<T> in(s, 1);
    result<T> forward = run(on_host{}, in);
    auto d_out = test::normal_values<T>(forward.out.size(), 9);
    auto const want = test::oracle::attention_backward(
        sizes_of(s), test::in_double(copied(in.q())), test::in_double(copied(in.k())),
        test::in_double(copied(in.v())), test::in_double(forward.out), test::in_double(d_out));
    bool first = true;
    guarded<T> reference;
    for (on_host const& on : test::host_configs()) {
      packed<T> d(s);
      guarded<std::byte> bytes(nn::attention_backward_scratch_bytes(on, s));
      status const st = nn::attention_backward(
          on, in.q(), in.k(), in.v(), forward.out.as(s.batch, s.length, s.heads, s.head_dim),
          std::as_const(forward.log_sum).as(s.batch, s.heads, s.length),
          d_out.as(s.batch, s.length, s.heads, s.head_dim), d.q(), d.k(), d.v(), bytes);
      ASSERT_TRUE(st.ok()) << st.message();
      EXPECT_TRUE(test::close(copied(d.q()), want.d_q, 32)) << "d_q " << name_of(s);
      EXPECT_TRUE(test::close(copied(d.k()), want.d_k, 32)) << "d_k " << name_of(s);
      EXPECT_TRUE(test::close(copied(d.v()), want.d_v, 32)) << "d_v " << name_of(s);
      if (first) reference = d.all;
      first = false;
      EXPECT_TRUE(test::same_bits(reference, d.all)) << name_of(s) << test::name_of(on);
    }
  }
}

TEST(Attention, OracleGradientsMatchCentralDifferences) {
  test::oracle::attention_sizes const s{1, 5, 2, 1, 3, 0.6};
  auto q = test::in_double(test::normal_values<float>(30, 1));
  auto k = test::in_double(test::normal_values<float>(15, 2));
  auto v = test::in_double(test::normal_values<float>(15, 3));
  auto const d_out = test::in_double(test::normal_values<float>(30, 4));
  auto loss = [&] {
    auto const out = test::oracle::values_of(test::oracle::attention(s, q, k, v).out);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * d_out[i];
    return sum;
  };
  auto const out = test::oracle::values_of(test::oracle::attention(s, q, k, v).out);
  auto const got = test::oracle::attention_backward(s, q, k, v, out, d_out);
  auto check = [&](std::vector<double>& x, test::oracle::expected const& g) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const kept = x[i], step = 1e-5;
      x[i] = kept + step;
      double const up = loss();
      x[i] = kept - step;
      double const down = loss();
      x[i] = kept;
      EXPECT_NEAR(g[i].value, (up - down) / (2 * step), 1e-8);
    }
  };
  check(q, got.d_q);
  check(k, got.d_k);
  check(v, got.d_v);
}

// A token's output does not depend on what follows it, on the other sequences of the batch, or on
// where the blocks of queries fall.
TEST(Attention, Battery16_BitsDoNotDependOnLaterTokensOrTheBatch) {
  attention_shape const whole{3, 150, 4, 2, 24};
  packed<float> in(whole, 7);
  result<float> const all = run(on_host{}, in);
  for (index_t length : {1, 4, 16, 47, 64, 65, 149}) {
    attention_shape const part{1, length, 4, 2, 24};
    packed<float> one(part);
    std::size_t const row = 8 * 24;
    std::copy_n(in.all.data() + 150 * row, static_cast<std::size_t>(length) * row, one.all.data());
    result<float> const alone = run(on_host{}, one);
    EXPECT_EQ(0, std::memcmp(alone.out.data(), all.out.data() + 150 * 4 * 24,
                             alone.out.size() * sizeof(float)))
        << length;
  }
}

TEST(Attention, GivenScaleIsUsedAndLargeScoresDoNotOverflow) {
  attention_shape const s{1, 80, 1, 1, 16};
  packed<float> in(s, 3);
  guarded<float> out(80 * 16);
  guarded<std::byte> bytes(nn::attention_scratch_bytes(on_host{}, s));
  ASSERT_TRUE(nn::attention(on_host{}, in.q(), in.k(), in.v(), out.as(1, 80, 1, 16), {}, bytes,
                            {.scale = 500.0f})
                  .ok());
  auto sizes = sizes_of(s);
  sizes.scale = 500.0;
  auto const want =
      test::oracle::attention(sizes, test::in_double(copied(in.q())),
                              test::in_double(copied(in.k())), test::in_double(copied(in.v())));
  EXPECT_TRUE(test::all_finite(out));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], want.out[i].value, 1e-3);
}

TEST(Attention, BadArgumentsAreSentences) {
  attention_shape const s{1, 4, 4, 2, 8};
  packed<float> in(s, 1);
  guarded<float> out(4 * 4 * 8);
  guarded<std::byte> bytes(nn::attention_scratch_bytes(on_host{}, s));
  auto const o = out.as(1, 4, 4, 8);
  expect_error(nn::attention(on_host{}, in.q(), in.k(), in.v().slice(0, 0), o, {}, bytes),
               "attention.v: extent 0 is 0; it must be 1 (sequences)");
  expect_error(nn::attention(on_host{}, in.part(0, 3), in.k(), in.v(),
                             view<float, 4>(out.data(), {{1, 4, 3, 8}}), {}, bytes),
               "3 heads and 2 key/value heads; the first must be a multiple");
  expect_error(nn::attention(on_host{}, in.q(), in.k(), in.v(), o, {}, arena<>{}),
               "attention: the arena has 0 bytes; it must have");
  expect_error(nn::attention(on_host{}, in.q(), in.k(), in.v(), in.q(), {}, bytes),
               "attention.out and attention.q share memory");
  guarded<float> few(3);
  expect_error(nn::attention(on_host{}, in.q(), in.k(), in.v(), o, few.as(1, 1, 3), bytes),
               "attention.log_sum: extent 1 is 1; it must be 4 (heads)");
  for (float v : out) EXPECT_TRUE(std::isnan(v)) << "an error came after the first write";
}

}  // namespace nn_attention_test
}  // namespace shunt
