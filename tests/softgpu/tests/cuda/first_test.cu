// The first things a device must do: blocks and threads, shared memory and barriers, shuffles,
// atomics, calls, switches, printf.
#include <numeric>
#include <vector>

#include "device_array.hpp"

namespace first_test {

__constant__ float scale[4] = {1, 2, 3, 4};
__device__ int counter = 7;

__global__ void add(float const* a, float const* b, float* c, int n) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i] * scale[i & 3];
}

TEST(First, VectorAdd) {
  std::vector<float> a(1000), b(1000);
  std::iota(a.begin(), a.end(), 0.0f);
  std::iota(b.begin(), b.end(), 5.0f);
  device_array<float> da(a), db(b), dc(std::vector<float>(1000, -1));
  add<<<4, 256>>>(da.data, db.data, dc.data, 1000);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const c = dc.host();
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(c[i], a[i] + b[i] * (i % 4 + 1)) << i;
}

__global__ void reduce(float const* a, float* out, int n) {
  __shared__ float s[256];
  extern __shared__ float dynamic[];
  int const t = threadIdx.x;
  float v = 0;
  for (int i = t; i < n; i += 256) v += a[i];
  s[t] = v;
  dynamic[t] = v;
  __syncthreads();
  for (int d = 128; d >= 1; d /= 2) {
    if (t < d) s[t] += s[t + d];
    __syncthreads();
  }
  v = dynamic[255 - t];
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(~0u, v, o);
  if (t % 32 == 0) atomicAdd(out + 1, v);
  if (t == 0) out[0] = s[0];
}

TEST(First, ReductionsWithSharedMemoryAndShuffles) {
  std::vector<float> a(5000);
  std::iota(a.begin(), a.end(), -1000.0f);
  device_array<float> da(a), out(std::vector<float>(2, 0));
  reduce<<<1, 256, 256 * sizeof(float)>>>(da.data, out.data, 5000);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  float const expected =
      std::accumulate(a.begin(), a.end(), 0.0f, [](float x, float y) { return x + y; });
  EXPECT_NEAR(out.host()[0], expected, 64);
  EXPECT_NEAR(out.host()[1], expected, 64);
}

__device__ __noinline__ int gcd(int a, int b) { return b == 0 ? a : gcd(b, a % b); }

__global__ void calls(int* o, int k) {
  int const t = threadIdx.x;
  int r;
  switch (o[t]) {
    case 0: r = k; break;
    case 1: r = k * k; break;
    case 2: r = k + 5; break;
    case 3: r = k / 7; break;
    case 4: r = gcd(k, t + 1); break;
    case 5: r = __popc(k); break;
    case 6: r = __clz(k); break;
    default: r = -1;
  }
  o[t] = r;
  atomicAdd(&counter, 1);
}

TEST(First, CallsAndSwitches) {
  std::vector<int> kind(64);
  for (int i = 0; i < 64; ++i) kind[i] = i % 8;
  device_array<int> d(kind);
  calls<<<1, 64>>>(d.data, 360);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = d.host();
  for (int i = 0; i < 64; ++i) {
    int const k = 360;
    int const expected[] = {k, k * k, k + 5, k / 7, std::gcd(k, i + 1), 4, 23, -1};
    EXPECT_EQ(r[i], expected[i % 8]) << i;
  }
  int n = 0;
  ASSERT_EQ(cudaMemcpyFromSymbol(&n, counter, sizeof n), cudaSuccess);
  EXPECT_EQ(n, 7 + 64);
}

__device__ int (*table[2])(int, int);
__device__ __noinline__ int twice(int a, int) { return 2 * a; }
__global__ void indirect(int* o) {
  if (threadIdx.x == 0) table[0] = gcd, table[1] = twice;
  __syncthreads();
  int local[8];
  for (int i = 0; i < 8; ++i) local[i] = o[i];
  o[threadIdx.x] = table[threadIdx.x & 1](local[threadIdx.x & 7] + 12, 18);
}

TEST(First, FunctionPointersAndLocalArrays) {
  std::vector<int> in(32);
  std::iota(in.begin(), in.end(), 0);
  device_array<int> d(in);
  indirect<<<1, 32>>>(d.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = d.host();
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(r[i], i % 2 ? 2 * (i % 8 + 12) : std::gcd(i % 8 + 12, 18)) << i;
}

__global__ void spin_lock(int* lock, int* total) {  // needs forward progress of every lane
  bool done = false;
  while (!done)
    if (atomicCAS(lock, 0, 1) == 0) {
      *(int volatile*)total = *(int volatile*)total + 1;
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
}

TEST(First, LanesThatSpinOnEachOtherFinish) {
  device_array<int> lock(std::vector<int>{0}), total(std::vector<int>{0});
  spin_lock<<<4, 64>>>(lock.data, total.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(total.host()[0], 256);
}

__global__ void chain(int* flags) {  // every block waits for the one after it
  if (threadIdx.x != 0) return;
  if (blockIdx.x + 1 < gridDim.x)
    while (*(int volatile*)(flags + blockIdx.x + 1) == 0) {}
  flags[blockIdx.x] = flags[blockIdx.x + 1] + 1;
}

TEST(First, BlocksThatWaitForLaterBlocksFinish) {
  std::vector<int> zero(9, 0);
  device_array<int> flags(zero);
  chain<<<8, 32>>>(flags.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(flags.host()[0], 8);
}

__global__ void say(int n) {
  if (threadIdx.x == 3) printf("%d %s %.2f %llu%%\n", n, "words", n * 1.5, 1ull << 40);
}

TEST(First, Printf) {
  testing::internal::CaptureStdout();
  say<<<1, 32>>>(7);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "7 words 10.50 1099511627776%\n");
}

}  // namespace first_test
