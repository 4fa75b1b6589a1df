// Graphs, captured and made by hand: they do what their streams would have done.
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace graph_test {

__global__ void set(int* out, int value) { out[threadIdx.x] = value; }
__global__ void add(int* out, int const* in, int value) {
  out[threadIdx.x] = in[threadIdx.x] + value;
}

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

TEST(Graph, LaunchesOfOneGraphFollowEachOther) {
  stream s, other;
  device_array<int> a(std::vector<int>(32, 0));
  graph g(s, [&] { add<<<1, 32, 0, s>>>(a.data, a.data, 1); });
  ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(g.exec, other), cudaSuccess);  // on any stream
  ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(a.host()[0], 2);
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

TEST(Graph, AGraphInsideAGraph) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  graph inner(s, [&] {
    add<<<1, 32, 0, s>>>(a.data, a.data, 1);
    add<<<1, 32, 0, s>>>(a.data, a.data, 10);
  });
  graph outer(s, [&] {
    set<<<1, 32, 0, s>>>(a.data, 100);
    cudaGraphLaunch(inner.exec, s);
    add<<<1, 32, 0, s>>>(a.data, a.data, 1000);
  });
  EXPECT_EQ(outer.nodes(), 3u);
  cudaGraphNode_t nodes[3];
  std::size_t count = 3;
  ASSERT_EQ(cudaGraphGetNodes(outer.handle, nodes, &count), cudaSuccess);
  cudaGraphNodeType type;
  ASSERT_EQ(cudaGraphNodeGetType(nodes[1], &type), cudaSuccess);
  EXPECT_EQ(type, cudaGraphNodeTypeGraph);
  ASSERT_EQ(cudaGraphLaunch(outer.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[31], 1111);
}

TEST(Graph, ACaptureIntoAGraphOfOnesOwn) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  cudaGraph_t g = nullptr, same = nullptr;
  cudaGraphNode_t first;
  ASSERT_EQ(cudaGraphCreate(&g, 0), cudaSuccess);
  cudaMemsetParams m{};
  m.dst = a.data, m.value = 1, m.elementSize = 4, m.width = 32, m.height = 1;
  ASSERT_EQ(cudaGraphAddMemsetNode(&first, g, nullptr, 0, &m), cudaSuccess);
  ASSERT_EQ(
      cudaStreamBeginCaptureToGraph(s, g, &first, nullptr, 1, cudaStreamCaptureModeThreadLocal),
      cudaSuccess);
  add<<<1, 32, 0, s>>>(a.data, a.data, 1);
  ASSERT_EQ(cudaStreamEndCapture(s, &same), cudaSuccess);
  EXPECT_EQ(same, g);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 2);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
}

TEST(Graph, NodesAndEdgesOfACapture) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  graph g(s, [&] {
    set<<<1, 32, 0, s>>>(a.data, 3);
    cudaMemsetAsync(a.data, 0, 4, s);
  });
  cudaGraphNode_t nodes[2];
  std::size_t count = 2;
  ASSERT_EQ(cudaGraphGetNodes(g.handle, nodes, &count), cudaSuccess);
  cudaKernelNodeParams k{};
  ASSERT_EQ(cudaGraphKernelNodeGetParams(nodes[0], &k), cudaSuccess);
  EXPECT_EQ(k.blockDim.x, 32u);
  EXPECT_EQ(*static_cast<int*>(k.kernelParams[1]), 3);
  int* out = a.data;
  int value = 8;
  void* arguments[] = {&out, &value};
  k.kernelParams = arguments;
  ASSERT_EQ(cudaGraphExecKernelNodeSetParams(g.exec, nodes[0], &k), cudaSuccess);
  ASSERT_EQ(cudaGraphNodeSetEnabled(g.exec, nodes[1], 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 8);
#if CUDART_VERSION >= 13000
  std::size_t edges = 0;
  ASSERT_EQ(cudaGraphGetEdges(g.handle, nullptr, nullptr, nullptr, &edges), cudaSuccess);
  EXPECT_EQ(edges, 1u);
  count = 1;
  cudaGraphNode_t before;
  ASSERT_EQ(cudaGraphNodeGetDependencies(nodes[1], &before, nullptr, &count), cudaSuccess);
  EXPECT_EQ(before, nodes[0]);
#endif
}

TEST(Graph, ACopyIsAGraphOfItsOwn) {
  stream s;
  device_array<int> a(std::vector<int>(32, 0));
  cudaGraph_t copy = nullptr;
  cudaGraphExec_t exec = nullptr;
  {
    graph g(s, [&] {
      set<<<1, 32, 0, s>>>(a.data, 3);
      add<<<1, 32, 0, s>>>(a.data, a.data, 1);
    });
    ASSERT_EQ(cudaGraphClone(&copy, g.handle), cudaSuccess);
  }
  ASSERT_EQ(cudaGraphInstantiate(&exec, copy, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(exec, s), cudaSuccess);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);  // what it launched still runs
  EXPECT_EQ(cudaGraphDestroy(copy), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 4);
}

TEST(Graph, MemoryAllocatedInIt) {
  stream s;
  int *temporary = nullptr, *kept = nullptr;
  device_array<int> a(std::vector<int>(32, 0));
  graph g(s, [&] {
    EXPECT_EQ(cudaMallocAsync(&temporary, 128, s), cudaSuccess);
    set<<<1, 32, 0, s>>>(temporary, 5);
    EXPECT_EQ(cudaMallocAsync(&kept, 128, s), cudaSuccess);
    add<<<1, 32, 0, s>>>(kept, temporary, 1);
    EXPECT_EQ(cudaFreeAsync(temporary, s), cudaSuccess);
  });
  EXPECT_NE(temporary, kept);
  for (int launch = 0; launch < 3; ++launch) {
    ASSERT_EQ(cudaGraphLaunch(g.exec, s), cudaSuccess);
    add<<<1, 32, 0, s>>>(a.data, kept, launch);  // from now on it is ours
    if (launch == 0) {
      EXPECT_EQ(cudaGraphLaunch(g.exec, s), cudaErrorInvalidValue);  // it has not been freed
      cudaGetLastError();
    }
    ASSERT_EQ(cudaFreeAsync(kept, s), cudaSuccess);
  }
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[31], 8);
}

}  // namespace graph_test
