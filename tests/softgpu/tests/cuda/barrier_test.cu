// cuda::barrier, cuda::pipeline, memcpy_async, cuda::atomic, latches and semaphores as the library
// writes them.
#include <cuda/atomic>
#include <cuda/barrier>
#include <cuda/latch>
#include <cuda/pipeline>
#include <cuda/semaphore>

#include <numeric>
#include <vector>

#include "device_array.hpp"

namespace barrier_test {

using block_barrier = cuda::barrier<cuda::thread_scope_block>;

__global__ void rotate(int* out, int steps) {
#pragma nv_diag_suppress static_var_with_dynamic_init
  __shared__ block_barrier b;
  __shared__ int slot[2][96];
  int const t = threadIdx.x;
  if (t == 0) init(&b, blockDim.x);
  slot[0][t] = t;
  __syncthreads();
  for (int k = 0; k < steps; ++k) {
    auto token = b.arrive();
    b.wait(std::move(token));
    slot[1 - k % 2][t] = slot[k % 2][(t + 1) % 96];
  }
  b.arrive_and_wait();
  out[t] = slot[steps % 2][t];
}

TEST(Library, BarriersOrderSharedMemory) {
  device_array<int> out(std::size_t{96});
  rotate<<<1, 96>>>(out.data, 7);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int t = 0; t < 96; ++t) EXPECT_EQ(out.host()[t], (t + 7) % 96) << t;
}

__global__ void drop(int* out) {
  __shared__ block_barrier b;
  __shared__ int here[4];
  int const t = threadIdx.x;
  if (t == 0) init(&b, blockDim.x);
  if (t < 4) here[t] = 0;
  __syncthreads();
  for (int round = 0; round < 4; ++round) {
    atomicAdd(&here[round], 1);
    if (t % 4 == round) {
      b.arrive_and_drop();
      return;
    }
    b.arrive_and_wait();
    if (t == 127) out[round] = here[round];
  }
}

TEST(Library, ThreadsDropOutOfABarrier) {
  device_array<int> out(std::vector<int>(4, -1));
  drop<<<1, 128>>>(out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(out.host(), (std::vector<int>{128, 96, 64, -1}));
}

// A double-buffered pipeline: the next piece comes while this one is summed up.
__global__ void stream_in(int const* in, int* out, int pieces) {
  __shared__ alignas(16) int stage[2][256];
  int const t = threadIdx.x;
  auto pipe = cuda::make_pipeline();
  auto const fetch = [&](int k) {
    pipe.producer_acquire();
    if (k < pieces)
      cuda::memcpy_async(&stage[k % 2][4 * t], in + 256 * k + 4 * t, cuda::aligned_size_t<16>(16),
                         pipe);
    pipe.producer_commit();
  };
  int sum = 0;
  fetch(0);
  for (int k = 0; k < pieces; ++k) {
    fetch(k + 1);
    cuda::pipeline_consumer_wait_prior<1>(pipe);
    __syncthreads();
    for (int i = 0; i < 4; ++i) sum += stage[k % 2][(4 * t + 5 * i) % 256];
    __syncthreads();
    pipe.consumer_release();
  }
  out[t] = sum;
}

TEST(Library, PipelinesStageCopies) {
  int const pieces = 5;
  std::vector<int> in(256 * pieces);
  std::iota(in.begin(), in.end(), 1);
  device_array<int> from(in), out(std::size_t{64});
  stream_in<<<1, 64>>>(from.data, out.data, pieces);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int t = 0; t < 64; ++t) {
    int sum = 0;
    for (int k = 0; k < pieces; ++k)
      for (int i = 0; i < 4; ++i) sum += in[256 * k + (4 * t + 5 * i) % 256];
    EXPECT_EQ(out.host()[t], sum) << t;
  }
}

__global__ void copy_with_barrier(int const* in, int* out) {
  __shared__ block_barrier b;
  __shared__ alignas(16) int s[256];
  int const t = threadIdx.x;
  if (t == 0) init(&b, blockDim.x);
  __syncthreads();
  cuda::memcpy_async(s + 4 * t, in + 4 * t, cuda::aligned_size_t<16>(16), b);
  b.arrive_and_wait();
  for (int i = 0; i < 4; ++i) out[4 * t + i] = s[255 - 4 * t - i];
}

TEST(Library, CopiesThatABarrierWaitsFor) {
  std::vector<int> in(256);
  std::iota(in.begin(), in.end(), 1);
  device_array<int> from(in), out(std::size_t{256});
  copy_with_barrier<<<1, 64>>>(from.data, out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(out.host()[i], in[255 - i]) << i;
}

struct shared_state {
  cuda::atomic<int, cuda::thread_scope_device> tickets{0};
  cuda::atomic<unsigned long long, cuda::thread_scope_device> sum{0};
  cuda::atomic<float, cuda::thread_scope_device> real{0};
  cuda::atomic<int, cuda::thread_scope_device> most{-1};
  cuda::binary_semaphore<cuda::thread_scope_device> lock{1};
  cuda::latch<cuda::thread_scope_device> done{64};
  int guarded = 0;
};
__device__ shared_state state;

__global__ void contend(int* out) {
  int const t = threadIdx.x + blockIdx.x * blockDim.x;
  int const mine = state.tickets.fetch_add(1, cuda::std::memory_order_acq_rel);
  state.sum.fetch_add(1ull << (mine % 40), cuda::std::memory_order_relaxed);
  state.real.fetch_add(0.5f);
  state.most.fetch_max(t);
  for (int k = 0; k < 3; ++k) {
    state.lock.acquire();
    state.guarded = state.guarded + 1;
    state.lock.release();
  }
#if CUDART_VERSION >= 13000  // a byte within a word; the libraries of 12.4 know words only
  unsigned char expected = 0;
  cuda::atomic_ref<unsigned char, cuda::thread_scope_device> byte(
      reinterpret_cast<unsigned char*>(out + 8)[t % 4]);
  expected = byte.load();
  while (!byte.compare_exchange_weak(expected, static_cast<unsigned char>(expected + 1))) {}
#else
  atomicAdd(out + 8, 1 << 8 * (t % 4));
#endif
  state.done.arrive_and_wait();
  if (t == 0) {
    out[0] = state.tickets.load();
    out[1] = int(state.sum.load() >> 20);
    out[2] = int(state.real.load());
    out[3] = state.most.load(cuda::std::memory_order_acquire);
    out[4] = state.guarded;
  }
}

TEST(Library, AtomicsLatchesAndSemaphores) {
  device_array<int> out(std::vector<int>(9, 0));
  contend<<<2, 32>>>(out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = out.host();
  unsigned long long sum = 0;
  for (int i = 0; i < 64; ++i) sum += 1ull << (i % 40);
  EXPECT_EQ(r[0], 64);
  EXPECT_EQ(r[1], int(sum >> 20));
  EXPECT_EQ(r[2], 32);
  EXPECT_EQ(r[3], 63);
  EXPECT_EQ(r[4], 192);
  EXPECT_EQ(r[8], 0x10101010);
}

}  // namespace barrier_test
