#include "instruction_check.hpp"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>

namespace instruction_check {
namespace {

std::vector<instruction const*>& enlisted() {
  static std::vector<instruction const*> list;
  return list;
}

std::mt19937_64& rng() {
  static std::mt19937_64 engine(20260);
  return engine;
}

struct one : testing::Test {
  explicit one(instruction const* which) : which_(which) {}
  void TestBody() override {
    rng().seed(std::hash<std::string>{}(which_->name));
    which_->run();
  }

 private:
  instruction const* which_;
};

/// Zero, ±1, ±2, the ends, the middle, powers of two and their neighbors.
std::vector<u64> integers(int bits) {
  u64 const mask = ~u64{0} >> (64 - bits), top = u64{1} << (bits - 1);
  std::vector<u64> v{0,
                     1,
                     mask,
                     top,
                     top - 1,
                     top + 1,
                     mask - 1,
                     2,
                     3,
                     5,
                     mask - 6,
                     mask / 3,
                     mask / 3 * 2,
                     0x7f,
                     0x80,
                     0x81,
                     0xff,
                     0x100,
                     31,
                     32,
                     33,
                     63,
                     64,
                     top / 2,
                     top / 2 - 1,
                     0x1234567890abcdefu,
                     top | top >> 8 | 1,
                     top >> 1 | top >> 9 | 1,
                     10,
                     1000};
  for (int i = 1; i < bits; i += 5) v.push_back(u64{1} << i), v.push_back((u64{1} << i) - 1);
  for (u64& x : v) x &= mask;
  return v;
}

/// 2^p in a format with e exponent and m mantissa bits; 1 where the format does not have it.
u64 power_of_two(int e, int m, int p) {
  s64 const middle = s64((u64{1} << (e - 1)) - 1), field = middle + p;
  return u64(field > 0 && field < s64((u64{1} << e) - 1) ? field : middle) << m;
}

/// Of a format with e exponent and m mantissa bits, ends of a 64-bit word.
std::vector<u64> reals(int e, int m) {
  u64 const infinity = ((u64{1} << e) - 1) << m, unit = u64{1} << m, sign = u64{1} << (e + m);
  auto const power = [&](int p) { return power_of_two(e, m, p); };
  u64 const one = power(0);
  std::vector<u64> v{0,
                     one,
                     infinity,
                     infinity | unit >> 1,
                     1,
                     unit,
                     unit - 1,
                     infinity - 1,
                     power(1),
                     one | unit >> 1,
                     one + 1,
                     one - 1,
                     power(-1),
                     infinity | 1,
                     power(1) | unit >> 1,
                     unit >> 1,
                     unit + 1,
                     power(2) | unit >> 3,
                     power(-1) + 1,
                     power(m),
                     power(m + 1),
                     power(m - 1),
                     power(-m),
                     power(-m - 1),
                     power(-m - 1) + 1,
                     power(m) + 1,
                     power(m - 1) | 1,
                     power(m - 1) | 3,
                     power(7),
                     power(8),
                     power(7) - 1,
                     power(8) - 1,
                     power(15),
                     power(16),
                     power(15) - 1,
                     power(16) - 1,
                     power(31),
                     power(31) - 1,
                     power(32),
                     power(32) - 1,
                     power(63),
                     power(63) - 1,
                     power(64),
                     power(64) - 1,
                     power(126),
                     power(126) + 1,
                     power(127),
                     power(-126),
                     power(-126) - 1,
                     power(-126) + 1,
                     power(-127),
                     power(-14),
                     power(-14) - 1,
                     power(-24),
                     power(-25),
                     power(-25) + 1,
                     power(-149),
                     power(-150),
                     power(-150) + 1,
                     power(15) | (unit - 1),
                     one | unit >> 11,
                     one | unit >> 8,
                     one | unit >> 8 | unit >> 9,
                     one | unit >> 11 | 1,
                     one | unit >> 10 | unit >> 11,
                     one | unit >> 3,
                     one | unit >> 4,
                     one | unit >> 4 | 1,
                     power(8) + unit - (unit >> 3),
                     power(8) | unit >> 1 | unit >> 2 | unit >> 4,
                     one / 2};
  std::vector<u64> both;
  for (u64 const x : v) both.push_back(x), both.push_back(x | sign);
  return both;
}

std::vector<u64> pairs(std::vector<u64> const& halves) {
  std::vector<u64> v;
  for (std::size_t i = 0; i < halves.size(); ++i) {
    v.push_back(halves[i] << 16 | halves[i]);
    v.push_back(halves[i] << 16 | halves[(i * 7 + 3) % halves.size()]);
  }
  return v;
}

/// A number whose exponent is near that of one, in half of the cases; else any bits.
u64 random_real(int e, int m) {
  u64 const r = rng()(), all = ~u64{0} >> (63 - e - m);
  if ((r & 1) != 0) return rng()() & all;
  u64 const middle = (u64{1} << (e - 1)) - 1, spread = e > 5 ? 24 : 6;
  u64 const field = middle + (r >> 1) % spread - spread / 2;
  u64 fraction = rng()();
  if ((r >> 32 & 3) == 0) fraction &= ~u64{0} << (m - 3);  // few bits set: ties
  return (r >> 40 & 1) << (e + m) | field << m | (fraction & ((u64{1} << m) - 1));
}

u64 random_integer(int bits) {
  u64 const r = rng()(), mask = ~u64{0} >> (64 - bits);
  if ((r & 3) == 0) return u64(s64(rng()()) >> (r >> 8 & 63)) & mask;  // small, of both signs
  return rng()() & mask;
}

}  // namespace

#define INTEGER_VALUES(T)                                                              \
  template <> std::vector<u64> special_values<T>() { return integers(8 * sizeof(T)); } \
  template <> u64 random_value<T>() { return random_integer(8 * sizeof(T)); }
INTEGER_VALUES(u16)
INTEGER_VALUES(s16)
INTEGER_VALUES(u32)
INTEGER_VALUES(s32)
INTEGER_VALUES(u64)
INTEGER_VALUES(s64)
#define REAL_VALUES(T, e, m)                                               \
  template <> std::vector<u64> special_values<T>() { return reals(e, m); } \
  template <> u64 random_value<T>() { return random_real(e, m); }
REAL_VALUES(f32, 8, 23)
REAL_VALUES(f64, 11, 52)
REAL_VALUES(f16, 5, 10)
REAL_VALUES(bf16, 8, 7)
#define PAIR_VALUES(T, e, m)                                                      \
  template <> std::vector<u64> special_values<T>() { return pairs(reals(e, m)); } \
  template <> u64 random_value<T>() { return random_real(e, m) << 16 | random_real(e, m); }
PAIR_VALUES(f16x2, 5, 10)
PAIR_VALUES(bf16x2, 8, 7)
template <> std::vector<u64> special_values<count>() {
  return {0,  1, 31, 32,  33,  63,      64,      255,         16,
          15, 8, 65, 256, 257, 0x10000, ~u32{0}, 0x80000000u, 30};
}
template <> u64 random_value<count>() {
  u64 const r = rng()();
  return (r & 3) == 0 ? rng()() & 0xffffffff : (r >> 8) % 70;
}

instruction::instruction(char const* of, void (*how)()) : name(of), how_(how) {
  enlisted().push_back(this);
}
instruction::instruction(char const* of, check what) : name(of), what_(std::move(what)) {
  enlisted().push_back(this);
}

void complain(std::string const& what) { ADD_FAILURE() << what; }

std::string hex(u64 bits) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(bits));
  return text;
}

bool device_is_done() {
  cudaError_t const e = cudaDeviceSynchronize();
  if (e != cudaSuccess) complain(std::string("the launch failed: ") + cudaGetErrorString(e));
  return e == cudaSuccess;
}

namespace {

/// One column of inputs per source: combinations of special values, then random ones.
std::vector<std::vector<u64>> inputs(std::vector<kind const*> const& kinds) {
  std::vector<std::vector<u64>> specials, columns(kinds.size());
  for (kind const* of : kinds) specials.push_back(of->specials());
  std::size_t most = 1;
  while (true) {  // as many of each as keep the combinations under 6000
    std::size_t product = 1;
    for (auto const& s : specials) product *= std::min(s.size(), most + 1);
    bool all = true;
    for (auto const& s : specials) all = all && s.size() <= most;
    if (product > 6000 || all) break;
    ++most;
  }
  std::size_t combinations = 1;
  for (auto const& s : specials) combinations *= std::min(s.size(), most);
  for (std::size_t i = 0; i < combinations; ++i) {
    std::size_t rest = i;
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      std::size_t const n = std::min(specials[k].size(), most);
      columns[k].push_back(specials[k][rest % n]);
      rest /= n;
    }
  }
  while (columns[0].size() < combinations + 4096 || columns[0].size() % 256 != 0) {
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      bool const special = columns[0].size() % 4 == 0;  // any of the list, also its far end
      columns[k].push_back(special ? specials[k][random_value<u32>() % specials[k].size()]
                                   : kinds[k]->random());
    }
  }
  return columns;
}

/// Values of a type in device memory, one behind the other.
struct values {
  values(kind const& of, std::vector<u64> const& bits) : bytes_(of.bytes), count_(bits.size()) {
    std::vector<char> host(count_ * bytes_);
    for (std::size_t i = 0; i < count_; ++i) std::memcpy(&host[i * bytes_], &bits[i], bytes_);
    if (cudaMalloc(&data, host.size()) != cudaSuccess) complain("cudaMalloc failed");
    cudaMemcpy(data, host.data(), host.size(), cudaMemcpyHostToDevice);
  }
  values(values&& other) noexcept
      : data(std::exchange(other.data, nullptr)), bytes_(other.bytes_), count_(other.count_) {}
  ~values() { cudaFree(data); }
  std::vector<u64> host() const {
    std::vector<char> raw(count_ * bytes_);
    cudaMemcpy(raw.data(), data, raw.size(), cudaMemcpyDeviceToHost);
    std::vector<u64> bits(count_);
    for (std::size_t i = 0; i < count_; ++i) std::memcpy(&bits[i], &raw[i * bytes_], bytes_);
    return bits;
  }
  void* data = nullptr;

 private:
  std::size_t bytes_, count_;
};

void run(check const& of) {
  auto const columns = inputs(of.sources);
  std::size_t const n = columns[0].size(), sources = columns.size();
  u64 const before = 0x5a5b5c5d5e5f6061u & ~u64{0} >> (64 - 8 * of.result->bytes);
  values full(*of.result, std::vector<u64>(n, before)),
      some(*of.result, std::vector<u64>(n, before));
  std::vector<values> in;
  for (std::size_t k = 0; k < sources; ++k) in.emplace_back(*of.sources[k], columns[k]);
  std::vector<void*> arguments{&full.data, &some.data};
  for (values& column : in) arguments.push_back(&column.data);
  cudaLaunchKernel(of.kernel, dim3(unsigned(n / 256)), dim3(256), arguments.data(), 0, nullptr);
  if (!device_is_done()) return;
  auto const got_full = full.host(), got_some = some.host();
  std::vector<u64> lane(sources);
  for (std::size_t i = 0, wrong = 0; i < n && wrong < 4; ++i) {
    for (std::size_t k = 0; k < sources; ++k) lane[k] = columns[k][i];
    wrong += !lane_is_right(of, got_full[i], before, true, "whole warp", lane.data());
    wrong += !lane_is_right(of, got_some[i], before, takes_part(unsigned(i)), "half of the lanes",
                            lane.data());
  }
}

}  // namespace

void instruction::run() const { how_ ? how_() : instruction_check::run(what_); }

bool lane_is_right(check const& of, u64 got, u64 before, bool part, char const* how,
                   u64 const* sources) {
  verdict const said =
      part ? of.model(of.function, got, sources) : verdict{got == before, false, 0};
  if (said.right) return true;
  std::string text = std::string(how) + ", of";
  for (std::size_t k = 0; k < of.sources.size(); ++k) text += " " + hex(sources[k]);
  text += ": got " + hex(got) + ", expected ";
  text += !part        ? "the lane to keep " + hex(before)
          : said.named ? hex(said.expected)
                       : std::string("something else");
  complain(text);
  return false;
}

TEST(InstructionCheck, NoticesAWrongResultAndATouchedLane) {
  void (*const none)(u32*, u32*, u32 const*) = nullptr;
  check const next = checked<u32, u32>(none, [](u32 a) { return a + 1; });
  check const even = checked<u32, u32>(none, [](u32 d, u32) { return d % 2 == 0; });
  u64 const five = 5;
  EXPECT_TRUE(lane_is_right(next, 6, 9, true, "", &five));
  EXPECT_NONFATAL_FAILURE(lane_is_right(next, 7, 9, true, "", &five), "got 0x7, expected 0x6");
  EXPECT_TRUE(lane_is_right(even, 6, 9, true, "", &five));
  EXPECT_NONFATAL_FAILURE(lane_is_right(even, 7, 9, true, "", &five), "something else");
  EXPECT_TRUE(lane_is_right(next, 9, 9, false, "", &five));
  EXPECT_NONFATAL_FAILURE(lane_is_right(next, 6, 9, false, "", &five), "the lane to keep 0x9");
}

}  // namespace instruction_check

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  using namespace instruction_check;
  for (instruction const* i : enlisted())
    testing::RegisterTest("Instruction", i->name, nullptr, nullptr, __FILE__, __LINE__,
                          [i]() -> testing::Test* { return new one(i); });
  return RUN_ALL_TESTS();
}
