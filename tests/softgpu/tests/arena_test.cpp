// The allocator: guards, addresses that come again, memory that is reserved before it may be used.
#include "memory/arena.hpp"

#include <gtest/gtest.h>

namespace arena_test {

using namespace softgpu;

allocation constants() {
  allocation a;
  a.constant = true;
  return a;
}

TEST(Arena, AddressesComeAgainOnlyAfterAllOthers) {
  constexpr std::uint64_t bytes = std::uint64_t{150} << 20;  // the constants' part: 1 GiB
  std::uint64_t const kept = arena::allocate(1000, constants());
  ASSERT_NE(kept, 0u);
  std::uint64_t before = kept;
  int laps = 0;
  for (int i = 0; i < 14; ++i) {
    std::uint64_t const at = arena::allocate(bytes, constants());
    ASSERT_NE(at, 0u) << i;
    EXPECT_TRUE(at >= kept + 1000 + 512 || at + bytes + 512 <= kept) << i;
    laps += at < before;
    if (i < 6) EXPECT_EQ(laps, 0) << i;
    before = at;
    EXPECT_TRUE(arena::release(at));
    EXPECT_FALSE(arena::release(at));
  }
  EXPECT_GE(laps, 1);
  EXPECT_TRUE(arena::release(kept));
}

TEST(Arena, WhatIsFullSaysSo) {
  std::uint64_t const half = arena::allocate(std::uint64_t{600} << 20, constants());
  ASSERT_NE(half, 0u);
  EXPECT_EQ(arena::allocate(std::uint64_t{600} << 20, constants()), 0u);
  EXPECT_TRUE(arena::release(half));
  EXPECT_EQ(arena::allocate(arena::capacity + 1, {}), 0u);
}

TEST(Arena, AGapBetweenTwoIsFound) {
  std::uint64_t const first = arena::allocate(5000, {}), second = arena::allocate(5000, {});
  EXPECT_GE(second, first + 5000 + 512);
  EXPECT_EQ(arena::nearest(first + 5100)->address, first);
  EXPECT_FALSE(arena::find(first + 5000));
  EXPECT_TRUE(arena::covers(first + 10, 4990));
  EXPECT_FALSE(arena::covers(first + 10, 4991));
  EXPECT_TRUE(arena::release(first));
  EXPECT_TRUE(arena::release(second));
}

TEST(Arena, ReservedMemoryIsNobodysUntilItIsOpened) {
  allocation kind;
  kind.closed = true;
  std::uint64_t const at = arena::allocate(100, kind);
  EXPECT_FALSE(arena::is_open(at, 100));
  EXPECT_TRUE(arena::covers(at, 100));
  arena::open(at);
  EXPECT_TRUE(arena::is_open(at, 100));
  EXPECT_FALSE(arena::is_open(at, 101));
  EXPECT_TRUE(arena::retire(at));
  EXPECT_FALSE(arena::retire(at));  // there is one free of it
  EXPECT_TRUE(arena::release(at));
  EXPECT_FALSE(arena::is_open(at, 1));
}

}  // namespace arena_test
