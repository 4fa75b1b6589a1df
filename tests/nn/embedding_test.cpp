#include "shunt/nn/embedding.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_embedding_test {

using test::guarded;

struct sizes {
  std::size_t entries, width, tokens;
};
constexpr sizes cases[] = {{5, 3, 0}, {1, 1, 9}, {7, 33, 40}, {256, 130, 500}, {3, 8, 64}};

guarded<index_t> some_ids(sizes const& s, bool with_padding) {
  test::rng d(s.tokens);
  guarded<index_t> id(s.tokens);
  for (index_t& i : id) {
    i = static_cast<index_t>(d.below(static_cast<std::int64_t>(s.entries)));
    if (with_padding && d.below(5) == 0) i = -1;
  }
  return id;
}

template <class T> class EmbeddingOf : public testing::Test {};
TYPED_TEST_SUITE(EmbeddingOf, test::storage_types);

TYPED_TEST(EmbeddingOf, LooksUpRowsAndZerosForPadding) {
  using T = TypeParam;
  for (sizes s : cases) {
    auto const table = test::normal_values<T>(s.entries * s.width, 1);
    auto const id = some_ids(s, true);
    for (on_host const& on : test::host_configs()) {
      guarded<T> rows(s.tokens * s.width);
      status const st = nn::embedding(on, table.as(s.entries, s.width), id.as(s.tokens),
                                      rows.as(s.tokens, s.width));
      ASSERT_TRUE(st.ok()) << st.message();
      for (std::size_t t = 0; t < s.tokens; ++t) {
        for (std::size_t i = 0; i < s.width; ++i) {
          T const want = id[t] < 0 ? from_float<T>(0.0f)
                                   : table[static_cast<std::size_t>(id[t]) * s.width + i];
          ASSERT_EQ(to_float(rows[t * s.width + i]), to_float(want));
        }
      }
    }
  }
}

TYPED_TEST(EmbeddingOf, GradientSumsTheTokensOfEachEntry) {
  using T = TypeParam;
  for (sizes s : cases) {
    auto const d_rows = test::normal_values<T>(s.tokens * s.width, 1);
    auto const id = some_ids(s, true);
    std::vector<test::expectation> want(s.entries * s.width);
    for (std::size_t t = 0; t < s.tokens; ++t) {
      for (std::size_t i = 0; id[t] >= 0 && i < s.width; ++i) {
        auto const d = static_cast<double>(to_float(d_rows[t * s.width + i]));
        auto& to = want[static_cast<std::size_t>(id[t]) * s.width + i];
        to.value += d;
        to.magnitude += std::abs(d);
      }
    }
    guarded<float> first;
    for (on_host const& on : test::host_configs()) {
      guarded<float> d_table(s.entries * s.width);
      status st = nn::embedding_backward(on, d_rows.as(s.tokens, s.width), id.as(s.tokens),
                                         d_table.as(s.entries, s.width));
      ASSERT_TRUE(st.ok()) << st.message();
      EXPECT_TRUE(test::close(d_table, want, 16));
      if (first.size() == 0) first = d_table;
      EXPECT_TRUE(test::same_bits(first, d_table)) << test::name_of(on);
      st = nn::embedding_backward(on, d_rows.as(s.tokens, s.width), id.as(s.tokens),
                                  d_table.as(s.entries, s.width), {.accumulate = true});
      ASSERT_TRUE(st.ok()) << st.message();
      for (std::size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(d_table[i], 2 * want[i].value, 1e-5 * (want[i].magnitude + 1e-6));
      }
    }
  }
}

TEST(Embedding, LookUpAndGradientAreAdjoint) {
  sizes const s{11, 20, 60};
  auto const table = test::normal_values<float>(s.entries * s.width, 1);
  auto const d_rows = test::normal_values<float>(s.tokens * s.width, 2);
  auto const id = some_ids(s, true);
  guarded<float> rows(s.tokens * s.width), d_table(s.entries * s.width);
  ASSERT_TRUE(nn::embedding(on_host{}, table.as(s.entries, s.width), id.as(s.tokens),
                            rows.as(s.tokens, s.width))
                  .ok());
  ASSERT_TRUE(nn::embedding_backward(on_host{}, d_rows.as(s.tokens, s.width), id.as(s.tokens),
                                     d_table.as(s.entries, s.width))
                  .ok());
  double left = 0, right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) left += double{rows[i]} * d_rows[i];
  for (std::size_t i = 0; i < table.size(); ++i) right += double{table[i]} * d_table[i];
  EXPECT_NEAR(left, right, 1e-4);
  EXPECT_GT(std::abs(left), 1e-2);
}

TEST(Embedding, AnIdOutOfRangeIsRefusedBeforeAnythingIsWritten) {
  auto const table = test::normal_values<float>(5 * 4, 1);
  guarded<index_t> id(3);
  id[0] = 0;
  id[1] = 5;
  id[2] = 1;
  guarded<float> rows(12), d_table(20);
  status st = nn::embedding(on_host{}, table.as(5, 4), std::as_const(id).as(3), rows.as(3, 4));
  EXPECT_STREQ(st.message(), "embedding.id: entry 1 is 5; it must be below 5 (negative: none)");
  st = nn::embedding_backward(on_host{}, rows.as(3, 4), std::as_const(id).as(3), d_table.as(5, 4));
  EXPECT_EQ(st.code(), error::bad_argument);
  st = nn::embedding(on_host{}, table.as(5, 4), std::as_const(id).as(3), rows.as(4, 3));
  EXPECT_EQ(st.code(), error::bad_shape);
  st = nn::embedding(on_host{}, table.as(5, 4), view<index_t const, 1>(nullptr, {{3}}),
                     rows.as(3, 4));
  EXPECT_STREQ(st.message(), "embedding.id: the pointer is null; it must point to 3 elements");
  for (float v : rows) EXPECT_TRUE(std::isnan(v));
  for (float v : d_table) EXPECT_TRUE(std::isnan(v));
}

}  // namespace nn_embedding_test
}  // namespace shunt
