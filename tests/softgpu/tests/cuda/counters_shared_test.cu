// Bank conflicts against answers written by hand from the rules: 32 banks of 4 bytes; a warp's access
// of 8 bytes a lane goes in halves, of 16 in quarters.
#include <cstdint>
#include <string>

#include "counts.hpp"

namespace counters_shared_test {

template <class T> __global__ void shared_store(int stride, int modulus, T* out) {
  __shared__ T s[1100];
  volatile T* const v = s;
  v[threadIdx.x * stride % modulus] = T(threadIdx.x);
  if (out != nullptr) out[0] = s[0];
}

/// The conflicts of one warp's store of Ts at `stride`.
template <class T> std::uint64_t conflicts(int stride, int modulus = 1 << 20) {
  auto const c = counts_of([&] { shared_store<T><<<1, 32>>>(stride, modulus, nullptr); });
  EXPECT_EQ(c.shared_accesses, 1u);
  EXPECT_EQ(c.bank_conflicts, c.shared_wavefronts - (sizeof(T) <= 4 ? 1 : sizeof(T) / 4));
  return c.bank_conflicts;
}

TEST(SharedBanks, StridesOfFourBytes) {
  EXPECT_EQ(conflicts<int>(1), 0u);
  EXPECT_EQ(conflicts<int>(2), 1u);  // lanes i and i + 16 meet
  EXPECT_EQ(conflicts<int>(4), 3u);
  EXPECT_EQ(conflicts<int>(32), 31u);  // all in one bank
  EXPECT_EQ(conflicts<int>(33), 0u);
  EXPECT_EQ(conflicts<int>(0), 0u);  // one word goes to all
  EXPECT_EQ(conflicts<int>(1, 4), 0u);
  EXPECT_EQ(conflicts<int>(32, 128), 3u);  // four words of one bank, each for eight lanes
}

TEST(SharedBanks, BytesOfOneWordDoNotConflict) {
  EXPECT_EQ(conflicts<char>(1), 0u);
  EXPECT_EQ(conflicts<char>(2), 0u);
  EXPECT_EQ(conflicts<short>(2), 0u);
  EXPECT_EQ(conflicts<short>(4), 1u);
}

TEST(SharedBanks, EightBytesGoInHalves) {
  EXPECT_EQ(conflicts<double>(1), 0u);
  EXPECT_EQ(conflicts<double>(2), 2u);    // in each half, lanes i and i + 8 meet
  EXPECT_EQ(conflicts<double>(16), 30u);  // each half in one pair of banks
  EXPECT_EQ(conflicts<double>(17), 0u);
  EXPECT_EQ(conflicts<double>(0), 0u);
}

__global__ void shared_load16(int stride, float* out, bool write) {
  extern __shared__ float4 wide[];
  asm volatile("" ::: "memory");
  float4 v;
  unsigned const at = unsigned(__cvta_generic_to_shared(wide + threadIdx.x * stride));
  if (write) asm volatile("st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(at), "f"(1.0f));
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(at));
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

TEST(SharedBanks, SixteenBytesGoInQuarters) {
  device_array<float> out(std::size_t{32});
  auto const of = [&](int stride) {
    return counts_of([&] { shared_load16<<<1, 32, 16384>>>(stride, out.data, true); });
  };
  EXPECT_EQ(of(1).shared_wavefronts, 8u);  // four for the store, four for the load
  EXPECT_EQ(of(1).bank_conflicts, 0u);
  EXPECT_EQ(of(2).bank_conflicts, 2u * 4);   // lanes i and i + 4 of a quarter
  EXPECT_EQ(of(8).bank_conflicts, 2u * 28);  // eight lanes of a quarter in four banks
  EXPECT_EQ(of(9).bank_conflicts, 0u);
}

/// Loads the 8×8 matrices of a tile of 64-byte rows, plain or with its 16-byte pieces exchanged.
__global__ void matrices(unsigned* out, bool swizzled) {
  __shared__ __align__(128) unsigned char tile[32 * 64];
  unsigned const lane = threadIdx.x;
  for (unsigned i = lane; i < sizeof tile / 4; i += 32) reinterpret_cast<unsigned*>(tile)[i] = i;
  __syncwarp();
  unsigned const piece = swizzled ? (lane / 2) % 4 : 0;
  unsigned const at = unsigned(__cvta_generic_to_shared(tile + lane * 64 + piece * 16));
  unsigned a, b, c, d;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(at));
  out[lane] = a + b + c + d;
}

TEST(SharedBanks, LdmatrixReadsEightRowsAtATime) {
  device_array<unsigned> out(std::size_t{32});
  auto const plain = counts_of([&] { matrices<<<1, 32>>>(out.data, false); });
  EXPECT_EQ(plain.shared_accesses, 16u + 1u);
  EXPECT_EQ(plain.bank_conflicts, 4u * 3);  // rows r, r + 2, r + 4 and r + 6 share their banks
  auto const swizzled = counts_of([&] { matrices<<<1, 32>>>(out.data, true); });
  EXPECT_EQ(swizzled.bank_conflicts, 0u);
}

__global__ void shared_atomics(int* out, int stride) {
  __shared__ int s[1024];
  for (int i = threadIdx.x; i < 1024; i += 32) s[i] = 0;
  __syncwarp();
  atomicAdd(s + threadIdx.x * stride, int(threadIdx.x) + 1);
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x];
}

TEST(SharedBanks, AtomicsOnOneWordGoOneAfterTheOther) {
  device_array<int> out(std::size_t{32});
  EXPECT_EQ(counts_of([&] { shared_atomics<<<1, 32>>>(out.data, 1); }).bank_conflicts, 0u);
  EXPECT_EQ(counts_of([&] { shared_atomics<<<1, 32>>>(out.data, 0); }).bank_conflicts, 31u);
}

}  // namespace counters_shared_test
