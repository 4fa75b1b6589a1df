// mma.sync, ldmatrix and cp.async against the formulas of the PTX manual, on random values.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "device_array.hpp"

namespace matrix_test {

using word = std::uint32_t;

// Fragments: where element e of register r of a lane lies, as the manual's tables have it.
__global__ void bf16_k16(word const* a, word const* b, float const* c, float* d) {
  int const l = threadIdx.x;
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[l]), "=f"(d[32 + l]), "=f"(d[64 + l]), "=f"(d[96 + l])
      : "r"(a[l]), "r"(a[32 + l]), "r"(a[64 + l]), "r"(a[96 + l]), "r"(b[l]), "r"(b[32 + l]),
        "f"(c[l]), "f"(c[32 + l]), "f"(c[64 + l]), "f"(c[96 + l]));
}
__global__ void f16_k8(word const* a, word const* b, float const* c, float* d) {
  int const l = threadIdx.x;
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%8,%9,%10};"
      : "=f"(d[l]), "=f"(d[32 + l]), "=f"(d[64 + l]), "=f"(d[96 + l])
      : "r"(a[l]), "r"(a[32 + l]), "r"(b[l]), "f"(c[l]), "f"(c[32 + l]), "f"(c[64 + l]),
        "f"(c[96 + l]));
}
__global__ void tf32_k8(word const* a, word const* b, float const* c, float* d) {
  int const l = threadIdx.x;
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[l]), "=f"(d[32 + l]), "=f"(d[64 + l]), "=f"(d[96 + l])
      : "r"(a[l]), "r"(a[32 + l]), "r"(a[64 + l]), "r"(a[96 + l]), "r"(b[l]), "r"(b[32 + l]),
        "f"(c[l]), "f"(c[32 + l]), "f"(c[64 + l]), "f"(c[96 + l]));
}
__global__ void s8_k32(word const* a, word const* b, int const* c, int* d) {
  int const l = threadIdx.x;
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%11,%12,%13};"
      : "=r"(d[l]), "=r"(d[32 + l]), "=r"(d[64 + l]), "=r"(d[96 + l])
      : "r"(a[l]), "r"(a[32 + l]), "r"(a[64 + l]), "r"(a[96 + l]), "r"(b[l]), "r"(b[32 + l]),
        "r"(c[l]), "r"(c[32 + l]), "r"(c[64 + l]), "r"(c[96 + l]));
}

struct matrices {
  int k;
  std::vector<double> a, b, c;  // 16×k, k×8, 16×8
};

// Elements of `bits` bits; `encode` makes a value's bits, and values are exact in that type.
template <class Encode>
void fragments(matrices const& m, int bits, Encode encode, std::vector<word>& a,
               std::vector<word>& b) {
  int const per = 32 / bits;
  a.assign(32 * 16 * m.k * bits / 1024, 0);
  b.assign(32 * 8 * m.k * bits / 1024, 0);
  for (int lane = 0; lane < 32; ++lane) {
    int const group = lane >> 2, thread = lane % 4;
    // The manual: a_i of row group for the first half of each 8 rows … written out by element.
    for (int i = 0; i < int(a.size()) / 32 * per; ++i) {
      int const in_register = i % per, r = i / per;
      int const row = r % 2 == 0 ? group : group + 8;
      int const column = thread * per + in_register + (r >= 2 ? 4 * per : 0);
      a[32 * r + lane] |= encode(m.a[row * m.k + column]) << (bits * in_register % 32);
    }
    for (int i = 0; i < int(b.size()) / 32 * per; ++i) {
      int const in_register = i % per, r = i / per;
      int const row = thread * per + in_register + (r >= 1 ? 4 * per : 0);
      b[32 * r + lane] |= encode(m.b[row * 8 + group]) << (bits * in_register % 32);
    }
  }
}

matrices random_matrices(int k, double scale) {
  std::mt19937 rng(k);
  std::uniform_int_distribution<int> die(-100, 100);
  matrices m{k, {}, {}, {}};
  for (int i = 0; i < 16 * k; ++i) m.a.push_back(die(rng) * scale);
  for (int i = 0; i < 8 * k; ++i) m.b.push_back(die(rng) * scale);
  for (int i = 0; i < 128; ++i) m.c.push_back(die(rng));
  return m;
}

template <class Sum, class Kernel, class Encode>
void check(Kernel kernel, int k, int bits, double scale, Encode encode) {
  matrices const m = random_matrices(k, scale);
  std::vector<word> a, b;
  fragments(m, bits, encode, a, b);
  std::vector<Sum> c(128);
  auto const place = [](int lane, int i) {  // row and column of c_i
    return std::pair{i < 2 ? lane >> 2 : (lane >> 2) + 8, lane % 4 * 2 + (i & 1)};
  };
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i)
      c[32 * i + lane] = Sum(m.c[place(lane, i).first * 8 + place(lane, i).second]);
  device_array<word> da(a), db(b);
  device_array<Sum> dc(c), dd(std::size_t{128});
  kernel<<<1, 32>>>(da.data, db.data, dc.data, dd.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const d = dd.host();
  double largest = 0;
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      auto const [row, column] = place(lane, i);
      double expected = m.c[row * 8 + column];
      for (int x = 0; x < k; ++x) expected += m.a[row * k + x] * m.b[x * 8 + column];
      // Small integers over a power of two: every sum is exact.
      EXPECT_EQ(double(d[32 * i + lane]), expected) << "row " << row << " column " << column;
      largest = std::max(largest, std::fabs(expected));
    }
  EXPECT_GT(largest, 10);
}

word bf16_bits(double x) {
  float const f = float(x);
  word w;
  std::memcpy(&w, &f, 4);
  return w >> 16;
}
word f16_bits(double x) {
  __half_raw const h = __half(float(x));
  return h.x;
}
word f32_bits(double x) {
  float const f = float(x);
  word w;
  std::memcpy(&w, &f, 4);
  return w;
}

TEST(Matrix, Bf16) { check<float>(bf16_k16, 16, 16, 0.25, bf16_bits); }
TEST(Matrix, F16) { check<float>(f16_k8, 8, 16, 0.25, f16_bits); }
TEST(Matrix, Tf32) { check<float>(tf32_k8, 8, 32, 0.25, f32_bits); }
TEST(Matrix, S8) {
  check<int>(s8_k32, 32, 8, 1, [](double x) { return word(std::uint8_t(int(x))); });
}

__global__ void load_matrices(std::uint16_t const* in, word* plain, word* turned) {
  __shared__ alignas(16) std::uint16_t s[4][8][8];
  for (int i = threadIdx.x; i < 256; i += 32) (&s[0][0][0])[i] = in[i];
  __syncthreads();
  auto const at =
      static_cast<unsigned>(__cvta_generic_to_shared(&s[threadIdx.x / 8][threadIdx.x % 8][0]));
  int const l = threadIdx.x;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(plain[l]), "=r"(plain[32 + l]), "=r"(plain[64 + l]), "=r"(plain[96 + l])
               : "r"(at));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(turned[l]), "=r"(turned[32 + l]), "=r"(turned[64 + l]), "=r"(turned[96 + l])
               : "r"(at));
}

TEST(Matrix, LoadMatrix) {
  std::vector<std::uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = std::uint16_t(i * 37 + 5);
  device_array<std::uint16_t> da(in);
  device_array<word> plain(std::size_t{128}), turned(std::size_t{128});
  load_matrices<<<1, 32>>>(da.data, plain.data, turned.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const p = plain.host(), t = turned.host();
  for (int m = 0; m < 4; ++m)
    for (int l = 0; l < 32; ++l)
      for (int e = 0; e < 2; ++e) {
        EXPECT_EQ(p[32 * m + l] >> (16 * e) & 0xffff, in[m * 64 + l / 4 * 8 + l % 4 * 2 + e]);
        EXPECT_EQ(t[32 * m + l] >> (16 * e) & 0xffff, in[m * 64 + (l % 4 * 2 + e) * 8 + l / 4]);
      }
}

__global__ void async_copy(float const* in, float* out, int groups_left, int bytes) {
  __shared__ alignas(16) float s[2][128];
  int const t = threadIdx.x;
  for (int k = 0; k < 2; ++k)
    for (int i = 0; i < 4; ++i) s[k][4 * t + i] = -1;
  for (int k = 0; k < 2; ++k) {
    auto const to = static_cast<unsigned>(__cvta_generic_to_shared(&s[k][4 * t]));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(in + 128 * k + 4 * t), "r"(bytes));
    asm volatile("cp.async.commit_group;");
  }
  if (groups_left == 1)
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  else
    asm volatile("cp.async.wait_all;" ::: "memory");
  for (int k = 0; k < 2 - groups_left; ++k)  // reading the rest would be an error
    for (int i = 0; i < 4; ++i) out[128 * k + 4 * t + i] = s[k][4 * t + i];
}

TEST(Matrix, AsyncCopyArrivesWhenWaitedFor) {
  std::vector<float> in(256);
  for (int i = 0; i < 256; ++i) in[i] = float(i);
  device_array<float> da(in), out(std::size_t{256});
  async_copy<<<1, 32>>>(da.data, out.data, 0, 16);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(out.host(), in);
  async_copy<<<1, 32>>>(da.data, out.data, 1, 16);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 128; ++i) EXPECT_EQ(out.host()[i], in[i]) << i;
  async_copy<<<1, 32>>>(da.data, out.data, 0, 8);  // the rest of each piece is zero
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(out.host()[i], i % 4 < 2 ? in[i] : 0.0f) << i;
}

}  // namespace matrix_test
