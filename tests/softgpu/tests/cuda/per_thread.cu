// Compiled with --default-stream per-thread: the null stream is each host thread's own.
#include <thread>
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace {

__global__ void add(int* p, int value) { p[threadIdx.x] += value; }

TEST(PerThread, TheNullStreamIsTheThreadsOwn) {
  device_array<int> a(std::vector<int>(32, 0));
  unsigned long long mine = 0, legacy = 0, theirs = 0;
  ASSERT_EQ(cudaStreamGetId(nullptr, &mine), cudaSuccess);
  ASSERT_EQ(cudaStreamGetId(cudaStreamLegacy, &legacy), cudaSuccess);
  std::thread([&] {
    add<<<1, 32>>>(a.data, 1);
    EXPECT_EQ(cudaStreamGetId(nullptr, &theirs), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  }).join();
  EXPECT_NE(mine, legacy);
  EXPECT_NE(mine, theirs);
  add<<<1, 32>>>(a.data, 10);
  EXPECT_EQ(a.host()[31], 11);
}

TEST(PerThread, ItCanBeCaptured) {
  device_array<int> a(std::vector<int>(32, 0));
  cudaGraph_t g = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  add<<<1, 32>>>(a.data, 1);
  EXPECT_EQ(cudaMemsetAsync(a.data, 0, 4), cudaSuccess);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1), config.blockDim = dim3(32);
  EXPECT_EQ(cudaLaunchKernelEx(&config, add, a.data, 5), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(nullptr, &g), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, nullptr), cudaSuccess);
  std::vector<int> const out = a.host();
  EXPECT_EQ(out[0], 5);
  EXPECT_EQ(out[1], 6);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
}

}  // namespace
