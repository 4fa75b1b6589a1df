// What the software device adds to CUDA's promises: work runs as late as it may, so that what was
// not ordered shows every time; and what it says of work that touches memory out of its order.
#include <softgpu/softgpu.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include "reports.hpp"
#include "streams.hpp"

namespace order_test {

__global__ void set(int* out, int value) { out[threadIdx.x] = value; }
__global__ void add(int* out, int const* in, int value) {
  out[threadIdx.x] = in[threadIdx.x] + value;
}

struct late : testing::Test {
  bool const before = softgpu::configure().eager;
  void SetUp() override { softgpu::configure().eager = false; }
  void TearDown() override { softgpu::configure().eager = before; }
};
using Order = late;

TEST_F(Order, ResultsComeWithASynchronization) {
  stream s;
  pinned out(32);
  out.data[0] = 1;
  device_array<int> a(std::vector<int>(32, 0));
  set<<<1, 32, 0, s>>>(a.data, 5);
  ASSERT_EQ(cudaMemcpyAsync(out.data, a.data, 128, cudaMemcpyDeviceToHost, s), cudaSuccess);
  EXPECT_EQ(out.data[0], 1);  // too early
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(out.data[0], 5);
}

TEST_F(Order, PageLockedMemoryIsReadWhenItsTurnComes) {
  stream s;
  pinned in(32);
  in.data[0] = 1;
  device_array<int> a(std::size_t{32});
  ASSERT_EQ(cudaMemcpyAsync(a.data, in.data, 128, cudaMemcpyHostToDevice, s), cudaSuccess);
  in.data[0] = 2;  // wrong: the copy may not have happened yet
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 2);
}

TEST_F(Order, AConsumerWithoutAnEventRunsFirst) {
  for (bool const ordered : {false, true}) {
    stream producer, consumer;
    event ready;
    device_array<int> a(std::vector<int>(32, 0)), b(std::vector<int>(32, 0));
    set<<<1, 32, 0, producer>>>(a.data, 5);
    if (ordered) {
      cudaEventRecord(ready, producer);
      cudaStreamWaitEvent(consumer, ready);
    }
    add<<<1, 32, 0, consumer>>>(b.data, a.data, 1);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(b.host()[0], ordered ? 6 : 1);
  }
}

TEST_F(Order, ANonBlockingStreamDoesNotWaitForTheLegacyOne) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0)), b(std::vector<int>(32, 0));
  set<<<1, 32>>>(a.data, 5);
  add<<<1, 32, 0, s>>>(b.data, a.data, 1);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(b.host()[0], 1);
  ASSERT_EQ(cudaMemset(a.data, 0, 128), cudaSuccess);  // the host does not wait for a memset
  add<<<1, 32, 0, s>>>(b.data, a.data, 1);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(b.host()[0], 6);
}

TEST_F(Order, BranchesOfAGraphAreNotOrdered) {
  stream s, side;
  event fork, join;
  device_array<int> a(std::vector<int>(32, 0)), b(std::vector<int>(32, 0));
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  cudaEventRecord(fork, s);
  cudaStreamWaitEvent(side, fork);
  set<<<1, 32, 0, s>>>(a.data, 5);
  add<<<1, 32, 0, side>>>(b.data, a.data, 1);  // wrong: it needs what the other branch writes
  cudaEventRecord(join, side);
  cudaStreamWaitEvent(s, join);
  cudaGraph_t g = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(s, &g), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(b.host()[0], 1);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
}

TEST_F(Order, ReportsAndCountsBelongToWorkThatHasRun) {
  stream s;
  device_array<int> a(std::size_t{32});
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  softgpu::take_counts();
  set<<<1, 32, 0, s>>>(a.data, 5);
  EXPECT_TRUE(softgpu::take_counts().empty());
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(softgpu::take_counts().size(), 1u);
  softgpu::configure().eager = true;
  set<<<1, 32, 0, s>>>(a.data, 5);
  EXPECT_EQ(softgpu::take_counts().size(), 1u);
}

TEST_F(Order, AFaultComesWithTheSynchronizationAndStays) {
  stream s;
  int* nowhere = nullptr;
  auto const found = reports_of([&] {
    set<<<1, 1, 0, s>>>(nowhere, 1);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaMalloc(&nowhere, 4), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  });
  EXPECT_ONE(found, fault::out_of_bounds);
}

TEST_F(Order, StreamOrderedMemoryIsOnlyThereBetweenItsCalls) {
  stream s, other;
  event allocated;
  int *p = nullptr, out = 0;
  auto const early = reports_of([&] {  // the allocation has not been ordered before the kernel
    ASSERT_EQ(cudaMallocAsync(&p, 128, s), cudaSuccess);
    set<<<1, 32, 0, other>>>(p, 1);
    EXPECT_EQ(cudaStreamSynchronize(other), cudaErrorIllegalAddress);
  });
  EXPECT_ONE(early, fault::out_of_bounds);
  auto const ordered = [&] {
    cudaEventRecord(allocated, s);
    cudaStreamWaitEvent(other, allocated);
    set<<<1, 32, 0, other>>>(p, 1);
  };
  EXPECT_NONE(ordered());
  auto const late = reports_of([&] {
    ASSERT_EQ(cudaFreeAsync(p, s), cudaSuccess);
    EXPECT_EQ(cudaFreeAsync(p, s), cudaErrorInvalidValue);
    set<<<1, 32, 0, s>>>(p, 1);
    EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorIllegalAddress);
  });
  EXPECT_ONE(late, fault::use_after_free);
  auto const copied = reports_of([&] {
    ASSERT_EQ(cudaMallocAsync(&p, 128, s), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(&out, p, 4, cudaMemcpyDeviceToHost, other), cudaErrorIllegalAddress);
  });
  ASSERT_EQ(copied.size(), 1u) << all_of(copied);
  EXPECT_NE(copied[0].sentence.find("cudaMemcpyAsync: its source has not been allocated"),
            std::string::npos);
  EXPECT_NONE(cudaFreeAsync(p, s));
}

TEST_F(Order, AFreeWaitsForTheDevice) {
  stream s;
  int* p = nullptr;
  auto const freed_at_once = [&] {
    EXPECT_EQ(cudaMalloc(&p, 128), cudaSuccess);
    set<<<1, 32, 0, s>>>(p, 1);
    EXPECT_EQ(cudaFree(p), cudaSuccess);
  };
  EXPECT_NONE(freed_at_once());
}

TEST_F(Order, WorkNobodyWaitedForRunsAtExit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto const leave = [] {
    softgpu::configure().print_reports = true;
    int* nowhere = nullptr;
    set<<<1, 1, 0, cudaStreamPerThread>>>(nowhere, 1);
    std::exit(0);
  };
  EXPECT_EXIT(leave(), testing::ExitedWithCode(86), "out of bounds: write of 4 bytes");
}

__constant__ int table[32] = {1};
__device__ int plain[32];

TEST_F(Order, ConstantMemoryIsReadOnly) {
  void *constant = nullptr, *variable = nullptr;
  ASSERT_EQ(cudaGetSymbolAddress(&constant, table), cudaSuccess);
  ASSERT_EQ(cudaGetSymbolAddress(&variable, plain), cudaSuccess);
  auto const whole_warp = reports_of([&] { set<<<1, 32>>>(static_cast<int*>(constant), 1); });
  EXPECT_ONE(whole_warp, fault::read_only);
  auto const one_lane = reports_of([&] { set<<<1, 1>>>(static_cast<int*>(constant), 1); });
  EXPECT_ONE(one_lane, fault::read_only);
  EXPECT_NONE((set<<<1, 32>>>(static_cast<int*>(variable), 1)));
  EXPECT_NONE((add<<<1, 32>>>(static_cast<int*>(variable), static_cast<int*>(constant), 1)));
}

TEST_F(Order, MemoryOfAGraphIsThereBetweenItsNodes) {
  stream s;
  int* inside = nullptr;
  device_array<int> a(std::vector<int>(32, 0));
  cudaGraph_t g = nullptr;
  cudaGraphExec_t exec = nullptr;
  auto const replay_with = [&](bool used_after_its_free) {
    ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(cudaMallocAsync(&inside, 128, s), cudaSuccess);
    set<<<1, 32, 0, s>>>(inside, 4);
    if (!used_after_its_free) add<<<1, 32, 0, s>>>(a.data, inside, 1);
    ASSERT_EQ(cudaFreeAsync(inside, s), cudaSuccess);
    if (used_after_its_free) add<<<1, 32, 0, s>>>(a.data, inside, 1);
    ASSERT_EQ(cudaStreamEndCapture(s, &g), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(exec, s), cudaSuccess);
    cudaStreamSynchronize(s);
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
  };
  auto const late = reports_of([&] { replay_with(true); });
  EXPECT_ONE(late, fault::use_after_free);
  EXPECT_NONE(replay_with(false));
  EXPECT_EQ(a.host()[0], 5);
  auto const outside = reports_of([&] { set<<<1, 1>>>(inside, 1); });
  EXPECT_ONE(outside, fault::use_after_free);
}

/// What a call that must be refused says on stderr.
template <class F> std::string refusal(F&& call) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(call(), cudaErrorNotSupported);
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotSupported);
  return testing::internal::GetCapturedStderr();
}

TEST_F(Order, WhatIsAbsentSaysSo) {
  device_array<int> a(std::size_t{32});
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {2, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(2), config.blockDim = dim3(32);
  config.attrs = &cluster, config.numAttrs = 1;
  EXPECT_EQ(
      refusal([&] { return cudaLaunchKernelEx(&config, set, a.data, 1); }),
      "softgpu: cudaLaunchKernelExC: a cluster of more than one block is not supported by the "
      "software device\n");
  cudaArray_t array = nullptr;
  cudaChannelFormatDesc const desc{32, 0, 0, 0, cudaChannelFormatKindSigned};
  EXPECT_EQ(refusal([&] { return cudaMallocArray(&array, &desc, 16, 16); }),
            "softgpu: cudaMallocArray is not supported by the software device\n");
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult result;
  EXPECT_EQ(refusal([&] {
              return cudaGetDriverEntryPointByVersion("cuMemcpy", &entry, 12000, 0, &result);
            }),
            "softgpu: cudaGetDriverEntryPoint: the driver's cuMemcpy is not supported by the "
            "software device\n");
}

}  // namespace order_test
