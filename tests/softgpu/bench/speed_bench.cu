// How fast the device is on one core, checks on: converged 32-bit arithmetic, mma.sync bf16, a copy
// of global memory, shared memory. Prints; proves only that the work was done.
#include <cstdio>
#include <softgpu/softgpu.hpp>
#include <string>
#include <vector>

#include "device_array.hpp"

namespace {

__global__ void integers(unsigned* out, int rounds) {
  unsigned a = threadIdx.x, b = blockIdx.x, c = 1, d = 3;
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      a = a * b + c;
      b = (b ^ a) + d;
      c = (c << 1) | (a >> 31);
      d = d + (a & b);
    }
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}

__global__ void floats(float* out, int rounds) {
  float a = threadIdx.x, b = blockIdx.x, c = 0.5f, d = 0.25f;
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      a = fmaf(a, 0.5f, b);
      b = b * 0.75f + c;
      c = c - a * d;
      d = d * 0.5f;
    }
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}

__global__ void matrices(float* out, int rounds) {
  float c[4] = {};
  unsigned const a = 0x3f803f80u, b = 0x3f803f80u;  // ones
  for (int i = 0; i < rounds; ++i)
#pragma unroll
    for (int k = 0; k < 8; ++k)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
          "{%4, %4, %4, %4}, {%5, %5}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a), "r"(b));
  out[blockIdx.x * blockDim.x + threadIdx.x] = c[0] + c[1] + c[2] + c[3];
}

template <class T> __global__ void copy(T const* a, T* b, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    b[i] = a[i];
}

__global__ void gather(int const* a, int* b, int n, int step) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    b[i] = a[i * step % n];
}

__global__ void shared(int* out, int rounds) {
  __shared__ int s[256];
  int const t = threadIdx.x;
  s[t] = t;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < rounds; ++i) sum += s[(t + i) % 256];
  out[blockIdx.x * blockDim.x + t] = sum;
}

/// The least of five runs, in seconds, and that launch's counts.
template <class F> softgpu::launch_counts best_of(F&& launch) {
  softgpu::launch_counts best;
  best.seconds = 1e9;
  for (int i = 0; i < 5; ++i) {
    softgpu::take_counts();
    launch();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    auto const c = softgpu::take_counts().at(0);
    if (c.seconds < best.seconds) best = c;
  }
  return best;
}

void say(char const* what, double amount, double seconds, char const* unit) {
  std::printf("%-28s %8.2f %s\n", what, amount / seconds * 1e-9, unit);
}

TEST(Speed, OfOneCore) {
  softgpu::configure().threads = 1;
  device_array<float> out(std::size_t{32} * 256);
  auto* const as_unsigned = reinterpret_cast<unsigned*>(out.data);
  auto* const as_int = reinterpret_cast<int*>(out.data);
  auto c = best_of([&] { integers<<<32, 256>>>(as_unsigned, 40); });
  say("integer", double(c.lane_instructions), c.seconds, "G lane-instructions/s");
  c = best_of([&] { floats<<<32, 256>>>(out.data, 40); });
  say("float", double(c.lane_instructions), c.seconds, "G lane-instructions/s");
  int const rounds = 100;
  c = best_of([&] { matrices<<<8, 64>>>(out.data, rounds); });
  say("mma.sync bf16", 8.0 * 2 * rounds * 8 * 2 * 16 * 8 * 16, c.seconds, "GFLOP/s");
  EXPECT_EQ(out.host()[0], 4.0f * 16 * 8 * rounds);
  int const n = 1 << 20;
  device_array<int> a{std::vector<int>(n, 7)}, b(std::size_t{n});
  c = best_of([&] { copy<<<64, 256>>>(a.data, b.data, n); });
  say("copy, 4 bytes a lane", 8.0 * n, c.seconds, "GB/s read and written");
  c = best_of([&] {
    copy<<<64, 256>>>(reinterpret_cast<int4*>(a.data), reinterpret_cast<int4*>(b.data), n / 4);
  });
  say("copy, 16 bytes a lane", 8.0 * n, c.seconds, "GB/s read and written");
  c = best_of([&] { gather<<<64, 256>>>(a.data, b.data, n, 7); });
  say("gather, every seventh int", 8.0 * n, c.seconds, "GB/s read and written");
  EXPECT_EQ(b.host()[n - 1], 7);
  c = best_of([&] { shared<<<32, 256>>>(as_int, 100); });
  say("shared loads", 32.0 * 256 * 100 * 4, c.seconds, "GB/s");
}

}  // namespace
