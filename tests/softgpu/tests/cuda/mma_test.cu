// mma.sync in the shapes that matrix_test leaves out, against plain products; where each element
// lies is written down as the PTX manual has it. fp8 and the larger f64 shapes need a device of
// sm_90 or later.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "device_array.hpp"

namespace mma_test {

using word = std::uint32_t;

// Operands in PTX: how many registers D, A, B and C take.
#define OPERANDS_4424 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
#define OPERANDS_4214 " {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
#define OPERANDS_2422 " {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%8,%9};"
#define OPERANDS_2212 " {%0,%1}, {%2,%3}, {%4}, {%5,%6};"
#define OPERANDS_2112 " {%0,%1}, {%2}, {%3}, {%4,%5};"
#define OPERANDS_4844 \
  " {%0,%1,%2,%3}, {%4,%5,%6,%7,%8,%9,%10,%11}, {%12,%13,%14,%15}, {%16,%17,%18,%19};"
#define IN1(c, p) c(p[l])
#define IN2(c, p) IN1(c, p), c(p[32 + l])
#define IN4(c, p) IN2(c, p), c(p[64 + l]), c(p[96 + l])
#define IN8(c, p) IN4(c, p), c(p[128 + l]), c(p[160 + l]), c(p[192 + l]), c(p[224 + l])
#define KERNEL(name, ptx, T, S, cd, ca, nd, na, nb)                \
  __global__ void name(T const* a, T const* b, S const* c, S* d) { \
    int const l = threadIdx.x;                                     \
    asm volatile(ptx OPERANDS_##nd##na##nb##nd                     \
                 : IN##nd("=" cd, d)                               \
                 : IN##na(ca, a), IN##nb(ca, b), IN##nd(cd, c));   \
  }
#define MMA "mma.sync.aligned."

KERNEL(half_k16, MMA "m16n8k16.row.col.f32.f16.f16.f32", word, float, "f", "r", 4, 4, 2)
KERNEL(half_k16_half, MMA "m16n8k16.row.col.f16.f16.f16.f16", word, word, "r", "r", 2, 4, 2)
KERNEL(half_k8_half, MMA "m16n8k8.row.col.f16.f16.f16.f16", word, word, "r", "r", 2, 2, 1)
KERNEL(brain_k8, MMA "m16n8k8.row.col.f32.bf16.bf16.f32", word, float, "f", "r", 4, 2, 1)
KERNEL(tf32_k4, MMA "m16n8k4.row.col.f32.tf32.tf32.f32", word, float, "f", "r", 4, 2, 1)
KERNEL(s8_k16, MMA "m16n8k16.row.col.s32.s8.s8.s32", word, int, "r", "r", 4, 2, 1)
KERNEL(u8_s8_k16, MMA "m16n8k16.row.col.s32.u8.s8.s32", word, int, "r", "r", 4, 2, 1)
KERNEL(s8_u8_k32, MMA "m16n8k32.row.col.s32.s8.u8.s32", word, int, "r", "r", 4, 4, 2)
KERNEL(u8_k32, MMA "m16n8k32.row.col.satfinite.s32.u8.u8.s32", word, int, "r", "r", 4, 4, 2)
KERNEL(s8_m8, MMA "m8n8k16.row.col.s32.s8.s8.s32", word, int, "r", "r", 2, 1, 1)
KERNEL(e4m3_k32, MMA "m16n8k32.row.col.f32.e4m3.e4m3.f32", word, float, "f", "r", 4, 4, 2)
KERNEL(e4m3_e5m2_k32, MMA "m16n8k32.row.col.f32.e4m3.e5m2.f32", word, float, "f", "r", 4, 4, 2)
KERNEL(e5m2_e4m3_k16, MMA "m16n8k16.row.col.f32.e5m2.e4m3.f32", word, float, "f", "r", 4, 2, 1)
KERNEL(e5m2_k32_half, MMA "m16n8k32.row.col.f16.e5m2.e5m2.f16", word, word, "r", "r", 2, 4, 2)
KERNEL(f64_m8, MMA "m8n8k4.row.col.f64.f64.f64.f64", double, double, "d", "d", 2, 1, 1)
KERNEL(f64_k4, MMA "m16n8k4.row.col.f64.f64.f64.f64", double, double, "d", "d", 4, 2, 1)
KERNEL(f64_k8, MMA "m16n8k8.row.col.f64.f64.f64.f64", double, double, "d", "d", 4, 4, 2)
KERNEL(f64_k16, MMA "m16n8k16.row.col.f64.f64.f64.f64", double, double, "d", "d", 4, 8, 4)

struct cell {
  int row, column;
};
/// Element i of a lane's fragment of A, which has m rows and k columns of `bits` bits.
cell place_a(int m, int k, int bits, int lane, int i) {
  int const g = lane / 4, t = lane % 4;
  if (bits == 16 && k == 8) return {i < 2 ? g : g + 8, 2 * t + (i & 1)};
  if (bits == 16)
    return {i < 2 || (i >= 4 && i < 6) ? g : g + 8, 2 * t + (i & 1) + (i < 4 ? 0 : 8)};
  if (bits == 8 && m == 8) return {g, 4 * t + i};
  if (bits == 8 && k == 16) return {i < 4 ? g : g + 8, 4 * t + (i & 3)};
  if (bits == 8)
    return {i < 4 || (i >= 8 && i < 12) ? g : g + 8, 4 * t + (i & 3) + (i < 8 ? 0 : 16)};
  if (m == 8) return {g, t};
  if (bits == 64 && k == 16) return {i % 2 == 0 ? g : g + 8, (i % 2 == 0 ? 2 * i : 2 * i - 2) + t};
  return {i == 0 || i == 2 ? g : g + 8, i < 2 ? t : t + 4};
}
cell place_b(int k, int bits, int lane, int i) {
  int const g = lane / 4, t = lane % 4;
  if (bits == 16) return {2 * t + (i & 1) + (i < 2 ? 0 : 8), g};
  if (bits == 8) return {4 * t + (i & 3) + (i < 4 ? 0 : 16), g};
  return {t + 4 * i + 0 * k, g};
}
cell place_c(int m, int lane, int i) {
  int const g = lane / 4, t = lane % 4;
  return m == 8 ? cell{g, 2 * t + i} : cell{i < 2 ? g : g + 8, 2 * t + (i & 1)};
}

struct element {
  int bits;
  std::uint64_t (*encode)(double);
  int lowest = -8, highest = 8;
};
std::uint64_t as_float(double x) {
  float const f = float(x);
  word w;
  std::memcpy(&w, &f, 4);
  return w;
}
std::uint64_t as_double(double x) {
  std::uint64_t w;
  std::memcpy(&w, &x, 8);
  return w;
}
/// Small integers, exact in each of these: sign, exponent and the top bits of the mantissa.
std::uint64_t small(double x, int exponent_bits, int mantissa_bits) {
  if (x == 0) return 0;
  int e = 0;
  double const f = std::frexp(std::fabs(x), &e);
  auto const mantissa = std::uint64_t(std::ldexp(2 * f - 1, mantissa_bits));
  std::uint64_t const exponent = std::uint64_t(e - 1 + (1 << (exponent_bits - 1)) - 1);
  return std::uint64_t(x < 0) << (exponent_bits + mantissa_bits) | exponent << mantissa_bits |
         mantissa;
}
constexpr element half{16, [](double x) { return small(x, 5, 10); }};
constexpr element brain{16, [](double x) { return small(x, 8, 7); }};
constexpr element tf32{32, as_float};
constexpr element s8{8, [](double x) { return std::uint64_t(std::uint8_t(int(x))); }, -128, 127};
constexpr element u8{8, [](double x) { return std::uint64_t(std::uint8_t(int(x))); }, 0, 255};
constexpr element e4m3{8, [](double x) { return small(x, 4, 3); }};
constexpr element e5m2{8, [](double x) { return small(x, 5, 2); }, -4, 4};
constexpr element f64{64, as_double};

/// `halves`: the sums are f16, two to a register.
template <class T, class S>
void check(void (*kernel)(T const*, T const*, S const*, S*), int m, int k, element ea, element eb,
           bool halves = false) {
  std::mt19937 rng(unsigned(m * 100 + k));
  auto const die = [&](element e) { return int(rng() % (e.highest - e.lowest + 1)) + e.lowest; };
  std::vector<double> a, b, c;
  for (int i = 0; i < m * k; ++i) a.push_back(die(ea));
  for (int i = 0; i < 8 * k; ++i) b.push_back(die(eb));
  for (int i = 0; i < m * 8; ++i) c.push_back(die(half));
  int const bits = ea.bits, width = 8 * int(sizeof(T)), per = width / bits;
  std::vector<std::uint64_t> ra(32 * m * k / 32 / per), rb(32 * k * 8 / 32 / per);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < m * k / 32; ++i) {
      cell const at = place_a(m, k, bits, lane, i);
      ra[i / per * 32 + lane] |= ea.encode(a[at.row * k + at.column]) << (bits * (i % per) % 64);
    }
    for (int i = 0; i < k / 4; ++i) {
      cell const at = place_b(k, bits, lane, i);
      rb[i / per * 32 + lane] |= eb.encode(b[at.row * 8 + at.column]) << (bits * (i % per) % 64);
    }
  }
  auto const raw = [](std::vector<std::uint64_t> const& from) {
    std::vector<T> out(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) std::memcpy(&out[i], &from[i], sizeof(T));
    return out;
  };
  int const sums = m / 4, in_register = halves ? 2 : 1;
  std::vector<S> rc(std::size_t(32 * sums / in_register));
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < sums; ++i) {
      cell const at = place_c(m, lane, i);
      double const x = c[at.row * 8 + at.column];
      if (halves)
        rc[i / 2 * 32 + lane] =
            S(word(rc[i / 2 * 32 + lane]) | word(small(x, 5, 10)) << (i % 2 * 16));
      else
        rc[i * 32 + lane] = S(x);
    }
  device_array<T> da(raw(ra)), db(raw(rb));
  device_array<S> dc(rc), dd(rc.size());
  kernel<<<1, 32>>>(da.data, db.data, dc.data, dd.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const d = dd.host();
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < sums; ++i) {
      cell const at = place_c(m, lane, i);
      double expected = c[at.row * 8 + at.column];
      for (int x = 0; x < k; ++x) expected += a[at.row * k + x] * b[x * 8 + at.column];
      if (halves)
        ASSERT_EQ(word(d[i / 2 * 32 + lane]) >> (i % 2 * 16) & 0xffff, small(expected, 5, 10))
            << at.row << ' ' << at.column;
      else
        ASSERT_EQ(double(d[i * 32 + lane]), expected) << at.row << ' ' << at.column;
    }
}

TEST(Mma, Halves) {
  check(half_k16, 16, 16, half, half);
  check(half_k16_half, 16, 16, half, half, true);
  check(half_k8_half, 16, 8, half, half, true);
  check(brain_k8, 16, 8, brain, brain);
}
TEST(Mma, Tf32) { check(tf32_k4, 16, 4, tf32, tf32); }
TEST(Mma, Bytes) {
  check(s8_k16, 16, 16, s8, s8);
  check(u8_s8_k16, 16, 16, u8, s8);
  check(s8_u8_k32, 16, 32, s8, u8);
  check(u8_k32, 16, 32, u8, u8);
  check(s8_m8, 8, 16, s8, s8);
}
TEST(Mma, EightBitFloats) {
  check(e4m3_k32, 16, 32, e4m3, e4m3);
  check(e4m3_e5m2_k32, 16, 32, e4m3, e5m2);
  check(e5m2_e4m3_k16, 16, 16, e5m2, e4m3);
  check(e5m2_k32_half, 16, 32, e5m2, e5m2, true);
}
TEST(Mma, Doubles) {
  check(f64_m8, 8, 4, f64, f64);
  check(f64_k4, 16, 4, f64, f64);
  check(f64_k8, 16, 8, f64, f64);
  check(f64_k16, 16, 16, f64, f64);
}

// ldmatrix, stmatrix and movmatrix: lane 8·m + r names row r of matrix m; lane l holds row l/4,
// columns 2·(l%4) and the next, of each; transposed: column l/4, rows 2·(l%4) and the next.
__global__ void move_matrices(std::uint16_t const* in, word* held, std::uint16_t* out) {
  __shared__ alignas(16) std::uint16_t s[4][8][8], plain[2][8][8], turned[1][8][8];
  int const l = threadIdx.x;
  for (int i = l; i < 256; i += 32) (&s[0][0][0])[i] = in[i];
  __syncwarp();
  auto const at = [](void* p) { return word(__cvta_generic_to_shared(p)); };
  word r[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(at(&s[3][l % 8][0]))
               : "memory");
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[1]), "=r"(r[2])
               : "r"(at(&s[l / 8 % 2][l % 8][0]))
               : "memory");
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r[3]) : "r"(r[0]));
  for (int k = 0; k < 4; ++k) held[32 * k + l] = r[k];
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(
                   at(&plain[l / 8 % 2][l % 8][0])),
               "r"(r[0]), "r"(r[3])
               : "memory");
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(at(&turned[0][l % 8][0])),
      "r"(r[1])
      : "memory");
  __syncwarp();
  for (int i = l; i < 64; i += 32) {
    out[i] = (&plain[0][0][0])[i];
    out[64 + i] = (&plain[1][0][0])[i];
    out[128 + i] = (&turned[0][0][0])[i];
  }
}

TEST(Mma, MatricesMove) {
  std::vector<std::uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = std::uint16_t(i * 37 + 5);
  device_array<std::uint16_t> from(in), out(std::size_t{192});
  device_array<word> held(std::size_t{128});
  move_matrices<<<1, 32>>>(from.data, held.data, out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const h = held.host();
  auto const element = [&](int m, int r, int c) { return in[64 * m + 8 * r + c]; };
  for (int l = 0; l < 32; ++l)
    for (int e = 0; e < 2; ++e) {
      int const row = l / 4, column = 2 * (l % 4) + e;
      auto const half = [&](int k) { return h[32 * k + l] >> (16 * e) & 0xffff; };
      EXPECT_EQ(half(0), element(3, row, column)) << l;
      EXPECT_EQ(half(1), element(0, column, row)) << l;
      EXPECT_EQ(half(2), element(1, column, row)) << l;
      EXPECT_EQ(half(3), element(3, column, row)) << l;
    }
  auto const stored = out.host();
  for (int r = 0; r < 8; ++r)
    for (int c = 0; c < 8; ++c) {
      EXPECT_EQ(stored[8 * r + c], element(3, r, c));
      EXPECT_EQ(stored[64 + 8 * r + c], element(3, c, r));
      EXPECT_EQ(stored[128 + 8 * r + c], element(0, r, c));  // turned twice
    }
}

}  // namespace mma_test
