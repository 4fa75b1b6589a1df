// Grids that wait for themselves, and launches with attributes.
#include <cooperative_groups.h>

#include <numeric>
#include <vector>

#include "device_array.hpp"

namespace cooperative_test {

namespace cg = cooperative_groups;

/// Sums n numbers: each round halves what is left, with a barrier of the whole grid between.
__global__ void reduce(int* data, int n) {
  cg::grid_group const grid = cg::this_grid();
  int const me = static_cast<int>(grid.thread_rank()), all = static_cast<int>(grid.size());
  for (int half = n / 2; half > 0; half /= 2) {
    for (int i = me; i < half; i += all) data[i] += data[i + half];
    grid.sync();
  }
}

TEST(Cooperative, TheGridWaitsForItself) {
  constexpr int n = 1 << 14;
  std::vector<int> in(n);
  std::iota(in.begin(), in.end(), 3);
  int const expected = std::accumulate(in.begin(), in.end(), 0);
  for (int blocks : {1, 5, 32}) {
    device_array<int> d(in);
    int* data = d.data;
    int count = n;
    void* arguments[] = {&data, &count};
    ASSERT_EQ(cudaLaunchCooperativeKernel(reinterpret_cast<void const*>(&reduce), dim3(blocks),
                                          dim3(128), arguments, 0, nullptr),
              cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(d.host()[0], expected) << blocks;
  }
}

TEST(Cooperative, AGridThatDoesNotFitIsRefused) {
  int per_processor = 0, processors = 0;
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, reduce, 1024, 0),
            cudaSuccess);
  ASSERT_EQ(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  ASSERT_GE(per_processor, 1);
  device_array<int> d(std::vector<int>{1, 2});
  int* data = d.data;
  int count = 2;
  void* arguments[] = {&data, &count};
  auto const f = reinterpret_cast<void const*>(&reduce);
  dim3 const most(per_processor * processors), more(per_processor * processors + 1);
  EXPECT_EQ(cudaLaunchCooperativeKernel(f, more, dim3(1024), arguments, 0, nullptr),
            cudaErrorCooperativeLaunchTooLarge);
  EXPECT_EQ(cudaGetLastError(), cudaErrorCooperativeLaunchTooLarge);
  EXPECT_EQ(cudaLaunchCooperativeKernel(f, most, dim3(1024), arguments, 0, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d.host()[0], 3);
}

TEST(Cooperative, ByAnAttribute) {
  device_array<int> d(std::vector<int>(256, 1));
  cudaStream_t s = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeCooperative;
  attributes[0].val.cooperative = 1;
  attributes[1].id = cudaLaunchAttributePriority;
  attributes[1].val.priority = -1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(2);
  config.blockDim = dim3(64);
  config.stream = s;
  config.attrs = attributes;
  config.numAttrs = 2;
  ASSERT_EQ(cudaLaunchKernelEx(&config, reduce, d.data, 256), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(d.host()[0], 256);
  EXPECT_EQ(cudaStreamDestroy(s), cudaSuccess);
}

}  // namespace cooperative_test
