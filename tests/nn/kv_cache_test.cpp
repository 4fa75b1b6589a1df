#include "shunt/nn/kv_cache.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_kv_cache_test {

using test::expect_error;
using test::guarded;

struct sizes {
  index_t batch, length, heads, kv_heads, width;
};

template <class T> view<T const, 4> tokens(view<T const, 4> x, offset_t first, offset_t count) {
  return {x.data() + first * x.stride(1),
          {{x.extent(0), count, x.extent(2), x.extent(3)}},
          x.strides()};
}
template <class T> view<T, 4> tokens(view<T, 4> x, offset_t first, offset_t count) {
  return {x.data() + first * x.stride(1),
          {{x.extent(0), count, x.extent(2), x.extent(3)}},
          x.strides()};
}

template <class T> class CacheOf : public testing::Test {};
TYPED_TEST_SUITE(CacheOf, test::storage_types);

TYPED_TEST(CacheOf, AnyPiecesGiveTheBitsOfTheWholeSequence) {
  using T = TypeParam;
  for (sizes s : {sizes{2, 131, 4, 2, 24}, sizes{1, 9, 3, 3, 5}, sizes{3, 70, 8, 1, 64}}) {
    auto const count = [&](index_t heads) {
      return static_cast<std::size_t>(s.batch * s.length * heads * s.width);
    };
    auto const q = test::normal_values<T>(count(s.heads), 1);
    auto const k = test::normal_values<T>(count(s.kv_heads), 2);
    auto const v = test::normal_values<T>(count(s.kv_heads), 3);
    auto const vq = q.as(s.batch, s.length, s.heads, s.width);
    auto const vk = k.as(s.batch, s.length, s.kv_heads, s.width);
    auto const vv = v.as(s.batch, s.length, s.kv_heads, s.width);
    guarded<T> whole(q.size());
    guarded<std::byte> bytes(
        nn::attention_scratch_bytes(on_host{}, {s.batch, s.length, s.heads, s.kv_heads, s.width}));
    ASSERT_TRUE(nn::attention(on_host{}, vq, vk, vv, whole.as(s.batch, s.length, s.heads, s.width),
                              {}, bytes)
                    .ok());
    for (on_host const& on : test::host_configs()) {
      for (index_t piece : {1, 7, 64, 200}) {
        nn::kv_cache<T> cache{nullptr, s.batch, static_cast<index_t>(s.length + 3), s.kv_heads,
                              s.width};
        guarded<T> memory(static_cast<std::size_t>(cache.elements()));
        cache.memory = memory.data();
        guarded<std::byte> scratch(nn::cache_attend_scratch_bytes(on, s.width));
        guarded<T> out(q.size());
        auto const vo = out.as(s.batch, s.length, s.heads, s.width);
        for (index_t at = 0; at < s.length; at += piece) {
          index_t const n = std::min<index_t>(piece, s.length - at);
          status st = nn::cache_append(on, tokens(vk, at, n), tokens(vv, at, n), cache, at);
          ASSERT_TRUE(st.ok()) << st.message();
          st = nn::cache_attend(on, tokens(vq, at, n), cache, at, tokens(vo, at, n), scratch);
          ASSERT_TRUE(st.ok()) << st.message();
        }
        EXPECT_TRUE(test::same_bits(whole, out)) << piece << test::name_of(on);
      }
    }
  }
}

// Tokens that all sequences have in common at one position in memory, then each sequence by itself
// at positions of its own, where the others have no room: those are left out and get zeros.
TYPED_TEST(CacheOf, PositionsInMemoryGiveTheBitsOfTheWholeSequence) {
  using T = TypeParam;
  sizes const s{3, 70, 4, 2, 24};
  auto const count = [&](index_t heads) {
    return static_cast<std::size_t>(s.batch * s.length * heads * s.width);
  };
  auto const q = test::normal_values<T>(count(s.heads), 1);
  auto const k = test::normal_values<T>(count(s.kv_heads), 2);
  auto const v = test::normal_values<T>(count(s.kv_heads), 3);
  auto const vq = q.as(s.batch, s.length, s.heads, s.width);
  auto const vk = k.as(s.batch, s.length, s.kv_heads, s.width);
  auto const vv = v.as(s.batch, s.length, s.kv_heads, s.width);
  guarded<T> whole(q.size());
  guarded<std::byte> bytes(
      nn::attention_scratch_bytes(on_host{}, {s.batch, s.length, s.heads, s.kv_heads, s.width}));
  auto const want = whole.as(s.batch, s.length, s.heads, s.width);
  ASSERT_TRUE(nn::attention(on_host{}, vq, vk, vv, want, {}, bytes).ok());
  for (on_host const& on : test::host_configs()) {
    index_t const capacity = s.length, common = 41, rest = s.length - common;
    nn::kv_cache<T> cache{nullptr, s.batch, capacity, s.kv_heads, s.width};
    guarded<T> memory(static_cast<std::size_t>(cache.elements()));
    cache.memory = memory.data();
    guarded<std::byte> scratch(nn::cache_attend_scratch_bytes(on, s.width));
    auto const feed = [&](std::vector<index_t> const& at, index_t first, index_t n, index_t b,
                          index_t last) {
      guarded<index_t> positions(at);
      view<index_t, 1> const p = positions;
      guarded<T> out(static_cast<std::size_t>(s.batch * n * s.heads * s.width));
      auto const made = out.as(s.batch, n, s.heads, s.width);
      status st = nn::cache_append(on, tokens(vk, first, n), tokens(vv, first, n), cache, p);
      ASSERT_TRUE(st.ok()) << st.message();
      st = nn::cache_attend(on, tokens(vq, first, n), cache, p, made, scratch);
      ASSERT_TRUE(st.ok()) << st.message();
      for (index_t i = 0; i < s.batch * n * s.heads * s.width; ++i) {
        index_t const d = i % s.width, h = i / s.width % s.heads, t = i / s.width / s.heads % n,
                      sequence = i / s.width / s.heads / n;
        bool const in = sequence >= b && sequence < last;
        ASSERT_EQ(to_float(made(sequence, t, h, d)),
                  in ? to_float(want(sequence, first + t, h, d)) : 0.0f)
            << sequence << " " << t << test::name_of(on);
      }
    };
    feed({0}, 0, common, 0, s.batch);
    for (index_t b = 0; b < s.batch; ++b) {
      std::vector<index_t> at(static_cast<std::size_t>(s.batch), b % 2 == 0 ? common + 1 : -1);
      at[static_cast<std::size_t>(b)] = common;
      feed(at, common, rest, b, b + 1);
    }
  }
}

TEST(Cache, BadArgumentsAreSentences) {
  nn::kv_cache<float> cache{nullptr, 2, 8, 1, 4};
  guarded<float> memory(static_cast<std::size_t>(cache.elements())), k(2 * 3 * 4), out(2 * 3 * 4);
  auto const vk = k.as(2, 3, 1, 4);
  expect_error(nn::cache_append(on_host{}, vk, vk, cache, 0),
               "cache_append.cache: the pointer is null");
  cache.memory = memory.data();
  expect_error(nn::cache_append(on_host{}, vk, vk, cache, 6),
               "tokens 6 to 9 of a sequence; the cache must have room for them and has 8");
  expect_error(nn::cache_append(on_host{}, k.as(1, 6, 1, 4), k.as(1, 6, 1, 4), cache, 0),
               "cache_append.cache is for 2 sequences; it must be for 1");
  expect_error(nn::cache_attend(on_host{}, vk, cache, 0, out.as(2, 3, 1, 4), arena<>{}),
               "cache_attend: the arena has 0 bytes");
  expect_error(nn::cache_attend(on_host{}, vk, cache, -1, out.as(2, 3, 1, 4), arena<>{}),
               "tokens -1 to 2");
  guarded<index_t> positions(3);
  expect_error(nn::cache_append(on_host{}, vk, vk, cache, view<index_t, 1>(positions)),
               "kv_cache.first_position: extent 0 is 3; it must be 2 (sequences, or 1 for all)");
}

}  // namespace nn_kv_cache_test
}  // namespace shunt
