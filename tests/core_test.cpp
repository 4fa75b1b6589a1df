// Views, status, arena, checks: what every module builds on.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "shunt/core/arena.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt {
namespace core_test {

/// What std::mdspan looks like to us: this standard library does not have it yet.
struct mdspan_like {
  using element_type = float;
  using value_type = float;
  float* p;
  std::array<std::size_t, 2> extents, strides;
  static constexpr std::size_t rank() { return 2; }
  float* data_handle() const { return p; }
  std::size_t extent(std::size_t d) const { return extents[d]; }
  std::size_t stride(std::size_t d) const { return strides[d]; }
};

static_assert(input<mdspan_like, on_host, 2>);
static_assert(output<mdspan_like, on_host, 2>);
static_assert(!input<mdspan_like, on_host, 3>);
static_assert(input<std::vector<float>, on_host, 1>);
static_assert(input<std::vector<float> const, on_host, 1>);
static_assert(!output<std::vector<float> const, on_host, 1>);
static_assert(!output<view<float const, 2>, on_host, 2>);
static_assert(!input<view<float, 2, space::device>, on_host, 2>);
static_assert(std::is_trivially_copyable_v<view<float, 4>>);
static_assert(std::is_trivially_copyable_v<status>);

TEST(View, IsRowMajorByDefault) {
  std::vector<int> values(24);
  for (int i = 0; i < 24; ++i) values[static_cast<std::size_t>(i)] = i;
  view<int, 3> v(values.data(), {{2, 3, 4}});
  EXPECT_EQ(v(1, 2, 3), 23);
  EXPECT_EQ(v[1](2, 3), 23);
  EXPECT_EQ(v.slice(1, 1)(0, 0, 0), 12);
  EXPECT_EQ(v.size(), 24);
}

TEST(View, KeepsStridesOfAnMdspan) {
  std::vector<float> values{0, 1, 2, 3, 4, 5};
  mdspan_like m{values.data(), {2, 2}, {3, 1}};
  auto const v = as_input<on_host, 2>(m);
  EXPECT_EQ(v(1, 1), 4.0f);
  EXPECT_TRUE(v.rows_contiguous());
}

TEST(View, AddressesPastTwoToThe31Elements) {
  // Battery 5: no element is touched, only its address is taken.
  view<std::uint8_t, 2> v(nullptr, {{3, 8}}, {{std::int64_t{1} << 31, 1}});
  EXPECT_EQ(&v(2, 7) - v.data(), (std::int64_t{1} << 32) + 7);
  view<float, 3> w(nullptr, {{512, 4096, 2048}});
  EXPECT_EQ(w.stride(0) * 511, std::int64_t{511} * 4096 * 2048);
}

TEST(Status, KeepsItsSentence) {
  status const bad = status::fail(error::bad_shape, "route.logits: extent 1 is %d", 7);
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.code(), error::bad_shape);
  EXPECT_STREQ(bad.message(), "route.logits: extent 1 is 7");
  EXPECT_TRUE(status{}.ok());
  EXPECT_STREQ(status{}.message(), "");
  EXPECT_EQ(std::string(status::fail(error::backend, "%0999d", 0).message()).size(), 223u);
  EXPECT_STREQ(first_of(status{}, bad, status::fail(error::backend, "later")).message(),
               bad.message());
}

TEST(Arena, MeasuresWhatItCarves) {
  auto const carve = [](arena<>& a) {
    struct pieces {
      double* a;
      char* b;
      float* c;
    };
    return pieces{a.take<double>(3), a.take<char>(1), a.take<float>(100)};
  };
  auto measured = arena<>::measuring();
  carve(measured);
  EXPECT_TRUE(measured.fits());
  for (std::size_t start = 0; start < 64; start += 7) {
    std::vector<std::byte> bytes(measured.needed() + start);
    arena<> exact(bytes.data() + start, measured.needed());
    auto const got = carve(exact);
    ASSERT_TRUE(exact.check("test").ok());
    ASSERT_NE(got.c, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(got.c) % 64, 0u);
    EXPECT_LE(reinterpret_cast<std::byte*>(got.c + 100), bytes.data() + bytes.size());
    EXPECT_GE(reinterpret_cast<std::byte*>(got.c), reinterpret_cast<std::byte*>(got.b) + 1);
  }
}

TEST(Arena, SaysHowMuchIsNeeded) {
  std::vector<std::byte> bytes(100);
  arena<> small(bytes);
  EXPECT_EQ(small.take<float>(1000), nullptr);
  status const bad = small.check("plan_dispatch");
  EXPECT_EQ(bad.code(), error::arena_too_small);
  EXPECT_STREQ(bad.message(),
               "plan_dispatch: the arena has 100 bytes; it must have 4096 (ask an arena that is "
               "measuring)");
  arena<> none;
  EXPECT_TRUE(none.check("x").ok());
  EXPECT_EQ(none.take<float>(1), nullptr);
  EXPECT_FALSE(none.check("x").ok());
}

TEST(Arena, HugeRequestsDoNotWrap) {
  std::vector<std::byte> bytes(100);
  arena<> a(bytes);
  EXPECT_EQ(a.take<double>(std::numeric_limits<offset_t>::max()), nullptr);
  EXPECT_FALSE(a.fits());
}

TEST(Check, NamesTheArgumentWhatItWasAndWhatItMustBe) {
  EXPECT_STREQ(check::extent("combine.rows", 1, 63, 64, "hidden").message(),
               "combine.rows: extent 1 is 63; it must be 64 (hidden)");
  EXPECT_STREQ(check::between("route.top_k", 9, 1, 8).message(),
               "route.top_k is 9; it must be from 1 to 8");
  EXPECT_STREQ(check::memory("x", view<float, 2>(nullptr, {{2, 3}})).message(),
               "x: the pointer is null; it must point to 6 elements");
  EXPECT_TRUE(check::memory("x", view<float, 2>(nullptr, {{0, 3}})).ok());
  EXPECT_STREQ(check::memory("x", view<float, 2>(nullptr, {{-1, 3}})).message(),
               "x: extent 0 is -1; it must be 0 or more");
  std::vector<float> values(8);
  EXPECT_STREQ(check::rows("x", view<float, 2>(values.data(), {{2, 2}}, {{4, 2}})).message(),
               "x: the last axis has stride 2; it must be 1 (contiguous)");
  auto* const crooked = reinterpret_cast<float*>(reinterpret_cast<char*>(values.data()) + 1);
  EXPECT_EQ(check::memory("x", view<float, 1>(crooked, {{1}})).code(), error::bad_argument);
  EXPECT_STREQ(check::fits_index("route.slots", 1 << 20, 1 << 12).message(),
               "route.slots is 1048576 x 4096; it must be at most 2147483647");
}

TEST(Check, SeesSharedMemory) {
  std::vector<float> values(16);
  view<float, 2> a(values.data(), {{2, 4}}), b(values.data() + 8, {{2, 4}});
  EXPECT_TRUE(check::apart("a", a, "b", b).ok());
  view<float, 2> c(values.data() + 7, {{1, 4}});
  EXPECT_STREQ(check::apart("a", a, "c", c).message(), "a and c share memory; they must not");
  EXPECT_TRUE(check::apart("a", a, "empty", view<float, 2>(values.data(), {{0, 4}})).ok());
}

}  // namespace core_test
}  // namespace shunt
