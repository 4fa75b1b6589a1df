// What may not be done while something is captured, and that it is told as CUDA tells it.
#include <atomic>
#include <thread>
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace capture_test {

__global__ void set(int* out, int value) { out[threadIdx.x] = value; }

/// Captures on a blocking stream, makes a call, and says what it and the end of the capture gave.
template <class F> std::pair<cudaError_t, cudaError_t> during_capture(stream& s, F&& call) {
  EXPECT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  cudaError_t const e = call();
  cudaGraph_t g = nullptr;
  cudaError_t const end = cudaStreamEndCapture(s, &g);
  EXPECT_EQ(g != nullptr, end == cudaSuccess);
  if (g != nullptr) cudaGraphDestroy(g);
  cudaGetLastError();
  return {e, end};
}

TEST(Capture, WhatWaitsOrAllocatesEndsACapture) {
  stream s(cudaStreamDefault);
  device_array<int> a(std::vector<int>(32, 0));
  constexpr auto unsupported = cudaErrorStreamCaptureUnsupported;
  constexpr auto lost = cudaErrorStreamCaptureInvalidated;
  constexpr auto implicit = cudaErrorStreamCaptureImplicit;
  using both = std::pair<cudaError_t, cudaError_t>;
  EXPECT_EQ(during_capture(s, [&] { return cudaStreamSynchronize(s); }), both(unsupported, lost));
  EXPECT_EQ(during_capture(s, [&] { return cudaDeviceSynchronize(); }), both(unsupported, lost));
  EXPECT_EQ(during_capture(s, [&] { return cudaStreamQuery(s); }), both(unsupported, lost));
  void* p = nullptr;
  EXPECT_EQ(during_capture(s, [&] { return cudaMalloc(&p, 4); }), both(unsupported, lost));
  int host = 0;
  EXPECT_EQ(during_capture(s, [&] { return cudaMemcpy(&host, a.data, 4, cudaMemcpyDeviceToHost); }),
            both(implicit, lost));
  auto const legacy_launch = during_capture(s, [&] {
    set<<<1, 1>>>(a.data, 1);
    return cudaGetLastError();
  });
  EXPECT_EQ(legacy_launch, both(implicit, lost));
  EXPECT_EQ(during_capture(s, [&] { return cudaMemsetAsync(a.data, 0, 4, s); }),
            both(cudaSuccess, cudaSuccess));
}

TEST(Capture, ALostCaptureSaysSo) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaMemsetAsync(a.data, 0, 4, s), cudaErrorStreamCaptureInvalidated);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  EXPECT_EQ(cudaStreamIsCapturing(s, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
  cudaGraph_t g = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorIllegalState);
  EXPECT_EQ(cudaMemsetAsync(a.data, 0, 4, s), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  cudaGetLastError();
}

TEST(Capture, WhatIsForkedMustBeJoined) {
  stream s, side;
  event fork;
  device_array<int> a(std::vector<int>(32, 0));
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  set<<<1, 32, 0, s>>>(a.data, 1);
  ASSERT_EQ(cudaEventRecord(fork, s), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(side, fork), cudaSuccess);
  set<<<1, 32, 0, side>>>(a.data, 2);
  cudaGraph_t g = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(g, nullptr);
  cudaGetLastError();
}

TEST(Capture, CapturesKeepToThemselves) {
  stream s, other;
  event before, inside;
  device_array<int> a(std::vector<int>(32, 0));
  set<<<1, 32, 0, other>>>(a.data, 1);
  ASSERT_EQ(cudaEventRecord(before, other), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(s, before), cudaErrorStreamCaptureIsolation);
  cudaGraph_t g = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(inside, s), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(inside), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState);
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaSuccess);  // an empty graph
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(cudaStreamLegacy, cudaStreamCaptureModeGlobal),
            cudaErrorStreamCaptureUnsupported);
  cudaGetLastError();
}

TEST(Capture, ARelaxedThreadMayAllocate) {
  stream s;
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed), cudaSuccess);
  int* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 4), cudaSuccess);  // relaxed captures do not mind
  cudaGraph_t g = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(s, &g), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  ASSERT_EQ(cudaThreadExchangeStreamCaptureMode(&mode), cudaSuccess);
  EXPECT_EQ(mode, cudaStreamCaptureModeGlobal);
  EXPECT_EQ(cudaFree(p), cudaSuccess);
  ASSERT_EQ(cudaThreadExchangeStreamCaptureMode(&mode), cudaSuccess);
  EXPECT_EQ(mode, cudaStreamCaptureModeRelaxed);
  ASSERT_EQ(cudaStreamEndCapture(s, &g), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
}

TEST(Capture, AskingAfterAnEventMayDisturbACapture) {
  stream s;
  event e;
  ASSERT_EQ(cudaEventRecord(e, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaGraph_t g = nullptr;
  cudaError_t elsewhere = cudaSuccess, guarded = cudaErrorUnknown;
  ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
  std::thread([&] {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
    cudaThreadExchangeStreamCaptureMode(&mode);
    guarded = cudaEventQuery(e);
    cudaThreadExchangeStreamCaptureMode(&mode);
    elsewhere = cudaEventQuery(e);
  }).join();
  EXPECT_EQ(guarded, cudaSuccess);
  EXPECT_EQ(elsewhere, cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST(Capture, ThreadsCaptureApart) {
  std::atomic<int> wrong = 0;
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&, t] {
      stream s;
      for (int round = 0; round < 5; ++round) {
        int *p = nullptr, out[32] = {};
        cudaGraph_t g = nullptr;
        cudaGraphExec_t exec = nullptr;
        wrong += cudaMallocAsync(&p, sizeof out, s) != cudaSuccess;
        wrong += cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) != cudaSuccess;
        set<<<1, 32, 0, s>>>(p, 10 * t + round);
        cudaMemcpyAsync(out, p, sizeof out, cudaMemcpyDeviceToHost, s);
        wrong += cudaStreamEndCapture(s, &g) != cudaSuccess;
        wrong += cudaGraphInstantiate(&exec, g, 0) != cudaSuccess;
        wrong += cudaGraphLaunch(exec, s) != cudaSuccess;
        wrong += cudaFreeAsync(p, s) != cudaSuccess;
        wrong += cudaStreamSynchronize(s) != cudaSuccess;
        wrong += out[31] != 10 * t + round;
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(g);
      }
    });
  for (std::thread& t : all) t.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace capture_test
