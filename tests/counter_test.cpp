#include "shunt/counter.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "support/guarded.hpp"

namespace shunt {
namespace counter_test {

using test::guarded;

TEST(Advance, AddsToEveryCounterAndWraps) {
  guarded<index_t> positions(std::vector<index_t>{3, -1, std::numeric_limits<index_t>::max()});
  ASSERT_TRUE(advance(on_host{}, positions).ok());
  EXPECT_EQ(positions[0], 4);
  EXPECT_EQ(positions[1], 0);
  EXPECT_EQ(positions[2], std::numeric_limits<index_t>::min());
  guarded<std::int64_t> step(std::vector<std::int64_t>{1ll << 40});
  ASSERT_TRUE(advance(on_host{}, step, -5).ok());
  EXPECT_EQ(step[0], (1ll << 40) - 5);
  guarded<std::uint64_t> token(std::vector<std::uint64_t>{1, 2, 3});
  view<std::uint64_t, 1> const apart(token.data(), {{2}}, {{2}});  // the first and the third
  ASSERT_TRUE(advance(on_host{}, apart, 1ull << 63).ok());
  EXPECT_EQ(token[0], (1ull << 63) + 1);
  EXPECT_EQ(token[1], 2u);
  EXPECT_EQ(token[2], (1ull << 63) + 3);
  ASSERT_TRUE(advance(on_host{}, view<index_t, 1>{}).ok());  // no counters
}

TEST(Advance, BadArgumentsAreSentences) {
  status const bad = advance(on_host{}, view<index_t, 1>(nullptr, {{2}}));
  EXPECT_EQ(bad.code(), error::null_pointer);
  EXPECT_NE(std::string(bad.message()).find("advance.counter: the pointer is null"),
            std::string::npos)
      << bad.message();
}

}  // namespace counter_test
}  // namespace shunt
