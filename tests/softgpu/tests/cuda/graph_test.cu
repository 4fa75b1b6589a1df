// Capture and replay: what becomes a graph, what forbids it, and that a graph does what its streams
// would have done.
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace {

__global__ void set(int* out, int value) { out[threadIdx.x] = value; }
__global__ void add(int* out, int const* in, int value) {
  out[threadIdx.x] = in[threadIdx.x] + value;
}

/// A captured graph and its executable form.
struct graph {
  cudaGraph_t handle = nullptr;
  cudaGraphExec_t exec = nullptr;
  template <class F> graph(cudaStream_t s, F&& work) {
    EXPECT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
    work();
    EXPECT_EQ(cudaStreamEndCapture(s, &handle), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&exec, handle, 0), cudaSuccess);
  }
  graph(graph const&) = delete;
  ~graph() {
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(handle), cudaSuccess);
  }
  std::size_t nodes() const {
    std::size_t n = 0;
    EXPECT_EQ(cudaGraphGetNodes(handle, nullptr, &n), cudaSuccess);
    return n;
  }
};

TEST(Graph, ReplaysWithTheArgumentsOfTheCaptureAndTheMemoryOfTheReplay) {
  stream s;
  device_array<int> a(std::vector<int>(32, 1)), b(std::vector<int>(32, 0));
  int* host = nullptr;
  ASSERT_EQ(cudaMallocHost(&host, 32 * sizeof(int)), cudaSuccess);
  int value = 10;
  graph g(s, [&] {
    cudaMemcpyAsync(a.data, host, 32 * sizeof(int), cudaMemcpyHostToDevice, s);
    add<<<1, 32, 0, s>>>(b.data, a.data, value);
    cudaMemcpyAsync(host, b.data, 32 * sizeof(int), cudaMemcpyDeviceToHost, s);
  });
  value = 1000;  // too late
  EXPECT_EQ(g.nodes(), 3u);
  EXPECT_EQ(b.host()[0], 0);  // capturing runs nothing
  for (int i = 0; i < 32; ++i) host[i] = i;
  for (int replay = 0; replay < 3; ++replay) ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  for (int i = 0; i < 32; ++i) ASSERT_EQ(host[i], i + 30);
  EXPECT_EQ(cudaFreeHost(host), cudaSuccess);
}

TEST(Graph, ForksAndJoins) {
  stream s, side;
  event fork, join;
  device_array<int> a(std::vector<int>(32, 0)), b(std::vector<int>(32, 0)),
      c(std::vector<int>(32, 0));
  graph g(s, [&] {
    set<<<1, 32, 0, s>>>(a.data, 5);
    cudaEventRecord(fork, s);
    cudaStreamWaitEvent(side, fork);
    add<<<1, 32, 0, side>>>(b.data, a.data, 1);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    EXPECT_EQ(cudaStreamIsCapturing(side, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusActive);
    add<<<1, 32, 0, s>>>(a.data, a.data, 0);
    cudaEventRecord(join, side);
    cudaStreamWaitEvent(s, join);
    add<<<1, 32, 0, s>>>(c.data, b.data, 1);
  });
  EXPECT_EQ(g.nodes(), 4u);
  std::size_t roots = 0;
  EXPECT_EQ(cudaGraphGetRootNodes(g.handle, nullptr, &roots), cudaSuccess);
  EXPECT_EQ(roots, 1u);
  ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(c.host()[31], 7);
}

TEST(Graph, AReplayTakesItsTurnInTheStream) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  graph g(s, [&] { add<<<1, 32, 0, s>>>(a.data, a.data, 1); });
  ASSERT_EQ(cudaMemsetAsync(a.data, 0, 128, s), cudaSuccess);
  ASSERT_EQ(cudaGraphUpload(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  set<<<1, 32, 0, s>>>(a.data, 40);
  ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 41);
}

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

TEST(Graph, WhatWaitsOrAllocatesEndsACapture) {
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

TEST(Graph, ALostCaptureSaysSo) {
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

TEST(Graph, WhatIsForkedMustBeJoined) {
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

TEST(Graph, CapturesKeepToThemselves) {
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

TEST(Graph, ARelaxedThreadMayAllocate) {
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

TEST(Graph, AnUpdateKeepsTheShape) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  graph first(s, [&] { set<<<1, 32, 0, s>>>(a.data, 1); });
  graph second(s, [&] { set<<<1, 32, 0, s>>>(a.data, 2); });
  graph longer(s, [&] {
    set<<<1, 32, 0, s>>>(a.data, 3);
    set<<<1, 32, 0, s>>>(a.data, 4);
  });
  cudaGraphExecUpdateResultInfo info;
  ASSERT_EQ(cudaGraphExecUpdate(first.exec, second.handle, &info), cudaSuccess);
  EXPECT_EQ(info.result, cudaGraphExecUpdateSuccess);
  EXPECT_EQ(cudaGraphExecUpdate(first.exec, longer.handle, &info), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
  ASSERT_EQ(cudaGraphLaunch(first.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 2);
  cudaGetLastError();
}

TEST(Graph, MadeByHand) {
  device_array<int> a(std::vector<int>(32, 0)), b(std::vector<int>(32, 0));
  std::vector<int> host(32, 0);
  cudaGraph_t g = nullptr;
  ASSERT_EQ(cudaGraphCreate(&g, 0), cudaSuccess);
  cudaGraphNode_t fill, kernel, copy, empty;
  cudaMemsetParams m{};
  m.dst = a.data, m.value = 7, m.elementSize = 4, m.width = 32, m.height = 1;
  ASSERT_EQ(cudaGraphAddMemsetNode(&fill, g, nullptr, 0, &m), cudaSuccess);
  int value = 1;
  int* out = b.data;
  int const* in = a.data;
  void* arguments[] = {&out, &in, &value};
  cudaKernelNodeParams k{};
  k.func = reinterpret_cast<void*>(&add);
  k.gridDim = dim3(1), k.blockDim = dim3(32), k.kernelParams = arguments;
  ASSERT_EQ(cudaGraphAddKernelNode(&kernel, g, &fill, 1, &k), cudaSuccess);
  ASSERT_EQ(cudaGraphAddEmptyNode(&empty, g, &kernel, 1), cudaSuccess);
  ASSERT_EQ(cudaGraphAddMemcpyNode1D(&copy, g, &empty, 1, host.data(), b.data, 128,
                                     cudaMemcpyDeviceToHost),
            cudaSuccess);
  cudaGraphNodeType type;
  ASSERT_EQ(cudaGraphNodeGetType(kernel, &type), cudaSuccess);
  EXPECT_EQ(type, cudaGraphNodeTypeKernel);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(host[31], 8);
  value = 2;
  ASSERT_EQ(cudaGraphExecKernelNodeSetParams(exec, kernel, &k), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(host[31], 9);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
}

}  // namespace
