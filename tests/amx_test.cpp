// The tile instructions, one by one, against a naive definition: on a processor with AMX its own, in the build with
// tests/support/amx_emulation.hpp the emulator that stands for them in all other tests of isa::amx.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "support/oracle_tiles.hpp"

#if defined(__x86_64__)
namespace shunt::test {
namespace amx_test {

struct alignas(64) shapes {
  unsigned char palette = 1, first_row = 0, unused[14] = {};
  unsigned short row_bytes[16] = {};
  unsigned char rows[16] = {};
};
using tile = std::vector<unsigned char>;  // of 16 rows of 64 bytes

void configure(shapes const& s) { __asm__ __volatile__("ldtilecfg %0" : : "m"(s) : "memory"); }
void release() { __asm__ __volatile__("tilerelease" : : : "memory"); }
/// Tile 0: rows x columns floats; 1: rows x pairs; 2: pairs x columns.
shapes shapes_of(int rows, int pairs, int columns) {
  shapes s;
  int const row[3] = {rows, rows, pairs}, words[3] = {columns, pairs, columns};
  for (int t = 0; t < 3; ++t) {
    s.rows[t] = static_cast<unsigned char>(row[t]);
    s.row_bytes[t] = static_cast<unsigned short>(4 * words[t]);
  }
  return s;
}
enum class kind { bf16, ss, su, us, uu };
template <kind Kind> void multiply() {
  if constexpr (Kind == kind::bf16) __asm__ __volatile__("tdpbf16ps %%tmm2, %%tmm1, %%tmm0" : :);
  if constexpr (Kind == kind::ss) __asm__ __volatile__("tdpbssd %%tmm2, %%tmm1, %%tmm0" : :);
  if constexpr (Kind == kind::su) __asm__ __volatile__("tdpbsud %%tmm2, %%tmm1, %%tmm0" : :);
  if constexpr (Kind == kind::us) __asm__ __volatile__("tdpbusd %%tmm2, %%tmm1, %%tmm0" : :);
  if constexpr (Kind == kind::uu) __asm__ __volatile__("tdpbuud %%tmm2, %%tmm1, %%tmm0" : :);
}
/// c += a b by the instruction; operands lie in rows of 64 bytes.
template <kind Kind> tile product(shapes const& s, tile const& c, tile const& a, tile const& b) {
  tile out = c;
  configure(s);
  long const stride = 64;
  __asm__ __volatile__(
      "tileloadd (%0,%3,1), %%tmm0\n\ttileloaddt1 (%1,%3,1), %%tmm1\n\ttileloadd (%2,%3), %%tmm2"
      :
      : "r"(c.data()), "r"(a.data()), "r"(b.data()), "r"(stride)
      : "memory");
  multiply<Kind>();
  __asm__ __volatile__("tilestored %%tmm0, (%0,%1,1)" : : "r"(out.data()), "r"(stride) : "memory");
  release();
  return out;
}
template <class T> T at(tile const& x, int row, int i) {
  T value;
  std::memcpy(&value, x.data() + 64 * row + static_cast<int>(sizeof(T)) * i, sizeof value);
  return value;
}
float bf16_at(tile const& x, int row, int i) {
  return to_float(bf16{at<std::uint16_t>(x, row, i)});
}

class Amx : public testing::Test {
 protected:
  std::mt19937_64 random{1};
  void SetUp() override {
    if (host::available_isa() != isa::amx) GTEST_SKIP() << "no tiles on this machine";
  }
  /// Any bytes; small: bf16 numbers whose products are about 2^-126; plain: ordinary ones.
  tile numbers(char const* which) {
    tile x(1024);
    for (std::size_t i = 0; i < 512; ++i) {
      std::uint64_t const r = random();
      auto bits = static_cast<std::uint16_t>(r);
      if (*which == 's') bits = static_cast<std::uint16_t>((bits & 0x807f) | ((60 + r % 9) << 7));
      if (*which == 'p') bits = static_cast<std::uint16_t>((bits & 0x807f) | ((124 + r % 6) << 7));
      if (*which == 'd') bits = static_cast<std::uint16_t>(bits & (r & 0x10000 ? 0x807f : 0x8000));
      if (*which == 'd' && r % 3 == 0) bits = static_cast<std::uint16_t>(0x3f80 | (bits & 0x8000));
      std::memcpy(&x[2 * i], &bits, 2);
    }
    return x;
  }
  tile floats(char const* which) {
    tile x(1024);
    for (std::size_t i = 0; i < 256; ++i) {
      auto bits = static_cast<std::uint32_t>(random());
      if (*which != 'a') bits = (bits & 0x807fffff) | (*which == 's' ? 0x00800000u : 0x3f000000u);
      if (*which == 'd') bits &= 0x807fffff;
      std::memcpy(&x[4 * i], &bits, 4);
    }
    return x;
  }
};

TEST_F(Amx, DotProductsOfBf16AreTheDefinition) {
  for (char const* which : {"plain", "small", "denormal", "any"}) {
    for (auto const& [rows, pairs, columns] : std::vector<std::array<int, 3>>{
             {16, 16, 16}, {1, 16, 16}, {16, 1, 16}, {16, 16, 1}, {7, 5, 3}, {12, 16, 16}}) {
      tile const c = floats(which), a = numbers(which), b = numbers(which);
      tile const out = product<kind::bf16>(shapes_of(rows, pairs, columns), c, a, b);
      for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 16; ++n) {
          float want = at<float>(c, m, n);
          if (m < rows && n < columns) {
            float even = 0, odd = 0;
            for (int k = 0; k < pairs; ++k) {
              even = tile_fma(bf16_at(a, m, 2 * k), bf16_at(b, k, 2 * n), even);
              odd = tile_fma(bf16_at(a, m, 2 * k + 1), bf16_at(b, k, 2 * n + 1), odd);
            }
            want = tile_add(want, tile_add(even, odd));
          }
          float const is = at<float>(out, m, n);
          if (std::isnan(want)) {
            ASSERT_TRUE(std::isnan(is)) << which << m << ' ' << n;
          } else {
            ASSERT_EQ(std::memcmp(&is, &want, 4), 0) << which << ' ' << is << ' ' << want;
          }
        }
      }
    }
  }
}
TEST_F(Amx, MxcsrIsNeitherReadNorWritten) {
  tile const c = floats("plain"), a = numbers("plain"), b = numbers("plain");
  shapes const s = shapes_of(16, 16, 16);
  tile const want = product<kind::bf16>(s, c, a, b);
  unsigned before = 0, upward = 0x5f80, now = 0;  // round up
  __asm__ __volatile__("stmxcsr %0\n\tldmxcsr %1" : "=m"(before) : "m"(upward));
  tile const out = product<kind::bf16>(s, c, a, b);
  __asm__ __volatile__("stmxcsr %0\n\tldmxcsr %1" : "=m"(now) : "m"(before));
  EXPECT_EQ(now, upward);
  EXPECT_EQ(out, want);
}

template <class A, class B> tile sums_of_bytes(tile const& c, tile const& a, tile const& b) {
  tile out = c;
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      auto sum = static_cast<std::int64_t>(at<std::int32_t>(c, m, n));
      for (int k = 0; k < 64; ++k) {
        sum += std::int64_t{at<A>(a, m, k)} * std::int64_t{at<B>(b, k / 4, 4 * n + k % 4)};
      }
      auto const wrapped = static_cast<std::uint32_t>(sum);
      std::memcpy(&out[static_cast<std::size_t>(64 * m + 4 * n)], &wrapped, 4);
    }
  }
  return out;
}
TEST_F(Amx, DotProductsOfBytesAreExact) {
  using s8 = signed char;
  using u8 = unsigned char;
  shapes const s = shapes_of(16, 16, 16);
  for (int round = 0; round < 3; ++round) {
    tile const c = floats("any"), a = numbers("any"), b = numbers("any");
    EXPECT_EQ(product<kind::ss>(s, c, a, b), (sums_of_bytes<s8, s8>(c, a, b)));
    EXPECT_EQ(product<kind::su>(s, c, a, b), (sums_of_bytes<s8, u8>(c, a, b)));
    EXPECT_EQ(product<kind::us>(s, c, a, b), (sums_of_bytes<u8, s8>(c, a, b)));
    EXPECT_EQ(product<kind::uu>(s, c, a, b), (sums_of_bytes<u8, u8>(c, a, b)));
  }
}

TEST_F(Amx, RowsAreLoadedAndStoredWithTheirStride) {
  shapes s = shapes_of(5, 16, 16);
  s.row_bytes[0] = 20;
  tile from = numbers("any"), to(1024, 0xee);
  from.resize(4096, 7);
  configure(s);
  long const apart = 100, back = -64;
  __asm__ __volatile__("tileloadd 4(%0,%1,2), %%tmm0" : : "r"(from.data()), "r"(apart) : "memory");
  __asm__ __volatile__("tilestored %%tmm0, (%0,%1)" : : "r"(&to[512]), "r"(back) : "memory");
  __asm__ __volatile__("tilezero %%tmm0\n\ttilestored %%tmm0, (%0,%1)"
                       :
                       : "r"(&to[640]), "r"(-back)
                       : "memory");
  shapes read;
  __asm__ __volatile__("sttilecfg %0" : "=m"(read) : : "memory");
  release();
  shapes none;
  __asm__ __volatile__("sttilecfg %0" : "=m"(none) : : "memory");
  EXPECT_EQ(std::memcmp(&read, &s, 64), 0);
  EXPECT_EQ(none.palette, 0);
  for (std::size_t r = 0; r < 16; ++r) {
    bool const stored = r <= 8 && r >= 4, zeroed = r >= 10 && r <= 14;
    for (std::size_t i = 0; i < 64; ++i) {
      unsigned const want = stored && i < 20   ? from[4 + 200 * (8 - r) + i]
                            : zeroed && i < 20 ? 0u
                                               : 0xeeu;
      EXPECT_EQ(to[64 * r + i], want) << r << ' ' << i;
    }
  }
}

TEST_F(Amx, ThreadsHaveTilesOfTheirOwn) {
  shapes const s = shapes_of(16, 16, 16);
  tile const c = floats("plain"), a = numbers("plain"), b = numbers("plain");
  tile const want = product<kind::bf16>(s, c, a, b);
  long const stride = 64;
  configure(s);
  __asm__ __volatile__("tileloadd (%0,%1,1), %%tmm0" : : "r"(c.data()), "r"(stride) : "memory");
  tile other;
  std::thread([&] { other = product<kind::bf16>(s, c, a, b); }).join();
  tile mine(1024);
  __asm__ __volatile__("tilestored %%tmm0, (%0,%1,1)" : : "r"(mine.data()), "r"(stride) : "memory");
  release();
  EXPECT_EQ(other, want);
  EXPECT_EQ(mine, c);
}

// What ends a process, and by which signal.
using AmxDeathTest = Amx;
TEST_F(AmxDeathTest, Faults) {
  using killed_by = testing::KilledBySignal;
  tile x(1024);
  long const stride = 64;
  auto const load = [&] {
    __asm__ __volatile__("tileloadd (%0,%1,1), %%tmm2" : : "r"(x.data()), "r"(stride) : "memory");
  };
  release();
  EXPECT_EXIT(load(), killed_by(SIGILL), "");
  EXPECT_EXIT(multiply<kind::bf16>(), killed_by(SIGILL), "");
  for (auto const& [rows, pairs, columns] :
       std::vector<std::array<int, 3>>{{16, 15, 16}, {15, 16, 16}, {16, 16, 15}}) {
    shapes s = shapes_of(16, 16, 16);
    if (rows < 16) s.rows[1] = 15;
    if (pairs < 16) s.row_bytes[1] = 60;
    if (columns < 16) s.row_bytes[2] = 60;
    EXPECT_EXIT((configure(s), multiply<kind::bf16>()), killed_by(SIGILL), "");
  }
  EXPECT_EXIT((configure(shapes_of(0, 0, 0)), load()), killed_by(SIGILL), "");
  shapes bad[5];
  for (shapes& s : bad) s = shapes_of(16, 16, 16);
  bad[0].palette = 2;
  bad[1].unused[3] = 1;
  bad[2].rows[1] = 17;
  bad[3].row_bytes[2] = 65;
  bad[4].rows[0] = 0;
  for (shapes const& s : bad) EXPECT_EXIT(configure(s), killed_by(SIGSEGV), "");
}

}  // namespace amx_test
}  // namespace shunt::test
#endif
