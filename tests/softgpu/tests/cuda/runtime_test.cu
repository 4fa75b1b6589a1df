// The runtime's calls around memory and the device, as any device answers them.
#include <cstring>
#include <string>
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace runtime_test {

__managed__ int managed[4] = {1, 2, 3, 4};
__constant__ int weights[4];
__device__ int results[8];

__global__ void weigh() { results[threadIdx.x + 4] = managed[threadIdx.x] * weights[threadIdx.x]; }
__global__ void double_managed() { managed[threadIdx.x] *= 2; }
__global__ void rows(int* out, std::size_t pitch, int width) {
  int* const row = reinterpret_cast<int*>(reinterpret_cast<char*>(out) + blockIdx.x * pitch);
  if (threadIdx.x < width) row[threadIdx.x] += 100 * blockIdx.x + threadIdx.x;
}
__global__ void increment(int* p) { p[threadIdx.x] += 1; }

TEST(Runtime, ManagedVariablesBelongToBothSides) {
  managed[0] = 10;
  double_managed<<<1, 4>>>();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(managed[0], 20);
  EXPECT_EQ(managed[3], 8);
  for (int i = 0; i < 4; ++i) managed[i] = i + 1;
}

TEST(Runtime, SymbolsInTheOrderOfAStream) {
  stream s;
  int const twos[4] = {2, 3, 4, 5};
  int out[4] = {};
  ASSERT_EQ(cudaMemcpyToSymbolAsync(weights, twos, sizeof twos, 0, cudaMemcpyHostToDevice, s),
            cudaSuccess);
  weigh<<<1, 4, 0, s>>>();
  ASSERT_EQ(cudaMemcpyFromSymbolAsync(out, results, sizeof out, 4 * sizeof(int),
                                      cudaMemcpyDeviceToHost, s),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(out[i], (i + 1) * twos[i]);
  std::size_t bytes = 0;
  void* address = nullptr;
  EXPECT_EQ(cudaGetSymbolSize(&bytes, results), cudaSuccess);
  EXPECT_EQ(bytes, sizeof results);
  EXPECT_EQ(cudaGetSymbolAddress(&address, results), cudaSuccess);
  EXPECT_EQ(cudaMemcpyFromSymbol(out, results, 16, 20), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(Runtime, PitchedMemory) {
  constexpr int width = 50, height = 7;
  int* d = nullptr;
  std::size_t pitch = 0;
  ASSERT_EQ(cudaMallocPitch(&d, &pitch, width * sizeof(int), height), cudaSuccess);
  ASSERT_GE(pitch, width * sizeof(int));
  ASSERT_EQ(cudaMemset2D(d, pitch, 0, width * sizeof(int), height), cudaSuccess);
  rows<<<height, 64>>>(d, pitch, width);
  std::vector<int> out(height * 64, -1);
  ASSERT_EQ(cudaMemcpy2D(out.data(), 64 * sizeof(int), d, pitch, width * sizeof(int), height,
                         cudaMemcpyDeviceToHost),
            cudaSuccess);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < 64; ++x) ASSERT_EQ(out[y * 64 + x], x < width ? 100 * y + x : -1);
  EXPECT_EQ(cudaMemcpy2D(out.data(), 4, d, pitch, 8, height, cudaMemcpyDeviceToHost),
            cudaErrorInvalidPitchValue);
  EXPECT_EQ(cudaFree(d), cudaSuccess);
  cudaGetLastError();
}

TEST(Runtime, BoxesOfMemory) {
  cudaExtent const all = make_cudaExtent(20, 3, 4);
  cudaPitchedPtr p{};
  ASSERT_EQ(cudaMalloc3D(&p, all), cudaSuccess);
  ASSERT_EQ(cudaMemset3D(p, 0, all), cudaSuccess);
  std::vector<char> in(20 * 3 * 4), out(20 * 3 * 4, 9);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<char>(i);
  cudaMemcpy3DParms c{};
  c.srcPtr = make_cudaPitchedPtr(in.data(), 20, 20, 3);
  c.dstPtr = p;
  c.dstPos = make_cudaPos(4, 1, 0);
  c.extent = make_cudaExtent(10, 2, 4);
  c.kind = cudaMemcpyHostToDevice;
  ASSERT_EQ(cudaMemcpy3D(&c), cudaSuccess);
  cudaMemcpy3DParms back{};
  back.srcPtr = p;
  back.dstPtr = make_cudaPitchedPtr(out.data(), 20, 20, 3);
  back.extent = all;
  back.kind = cudaMemcpyDeviceToHost;
  ASSERT_EQ(cudaMemcpy3D(&back), cudaSuccess);
  for (int z = 0; z < 4; ++z)
    for (int y = 0; y < 3; ++y)
      for (int x = 0; x < 20; ++x) {
        bool const inside = x >= 4 && x < 14 && y >= 1;
        char const expected = inside ? in[(z * 3 + y - 1) * 20 + x - 4] : char{0};
        ASSERT_EQ(out[(z * 3 + y) * 20 + x], expected) << x << ' ' << y << ' ' << z;
      }
  EXPECT_EQ(cudaFree(p.ptr), cudaSuccess);
}

TEST(Runtime, WhatPointersPointTo) {
  device_array<int> d(std::size_t{8});
  pinned h(8);
  int *m = nullptr, plain = 0;
  ASSERT_EQ(cudaMallocManaged(&m, 32), cudaSuccess);
  cudaPointerAttributes a{};
  ASSERT_EQ(cudaPointerGetAttributes(&a, d.data + 3), cudaSuccess);
  EXPECT_EQ(a.type, cudaMemoryTypeDevice);
  EXPECT_EQ(a.devicePointer, d.data + 3);
  ASSERT_EQ(cudaPointerGetAttributes(&a, h.data + 1), cudaSuccess);
  EXPECT_EQ(a.type, cudaMemoryTypeHost);
  EXPECT_EQ(a.hostPointer, h.data + 1);
  ASSERT_EQ(cudaPointerGetAttributes(&a, m), cudaSuccess);
  EXPECT_EQ(a.type, cudaMemoryTypeManaged);
  ASSERT_EQ(cudaPointerGetAttributes(&a, &plain), cudaSuccess);
  EXPECT_EQ(a.type, cudaMemoryTypeUnregistered);
  EXPECT_EQ(cudaFree(m), cudaSuccess);
}

TEST(Runtime, MappedAndRegisteredHostMemory) {
  pinned h(32);
  for (int i = 0; i < 32; ++i) h.data[i] = i;
  int* from_device = nullptr;
  ASSERT_EQ(cudaHostGetDevicePointer(&from_device, h.data, 0), cudaSuccess);
  increment<<<1, 32>>>(from_device);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(h.data[31], 32);
  std::vector<int> plain(64, 7);
  ASSERT_EQ(cudaHostRegister(plain.data(), 256, cudaHostRegisterDefault), cudaSuccess);
  EXPECT_EQ(cudaHostRegister(plain.data() + 4, 16, cudaHostRegisterDefault),
            cudaErrorHostMemoryAlreadyRegistered);
  unsigned flags = 99;
  EXPECT_EQ(cudaHostGetFlags(&flags, plain.data()), cudaSuccess);
  stream s;
  device_array<int> d(std::size_t{64});
  ASSERT_EQ(cudaMemcpyAsync(d.data, plain.data(), 256, cudaMemcpyHostToDevice, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(d.host()[63], 7);
  EXPECT_EQ(cudaHostUnregister(plain.data()), cudaSuccess);
  EXPECT_EQ(cudaHostUnregister(plain.data()), cudaErrorHostMemoryNotRegistered);
  cudaGetLastError();
}

TEST(Runtime, ManagedMemoryMayBeAdvised) {
  int* m = nullptr;
  ASSERT_EQ(cudaMallocManaged(&m, 128), cudaSuccess);
  for (int i = 0; i < 32; ++i) m[i] = i;
#if CUDART_VERSION >= 13000
  cudaMemLocation const here{cudaMemLocationTypeDevice, 0};
  EXPECT_EQ(cudaMemAdvise(m, 128, cudaMemAdviseSetReadMostly, here), cudaSuccess);
  EXPECT_EQ(cudaMemAdvise(m, 128, cudaMemAdviseUnsetReadMostly, here), cudaSuccess);
  cudaError_t const e = cudaMemPrefetchAsync(m, 128, here, 0, nullptr);
#else
  EXPECT_EQ(cudaMemAdvise(m, 128, cudaMemAdviseSetReadMostly, 0), cudaSuccess);
  EXPECT_EQ(cudaMemAdvise(m, 128, cudaMemAdviseUnsetReadMostly, 0), cudaSuccess);
  cudaError_t const e = cudaMemPrefetchAsync(m, 128, 0, nullptr);
#endif
  int concurrent = 0;  // a device without concurrent access does not take prefetches
  ASSERT_EQ(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0),
            cudaSuccess);
  if (concurrent) EXPECT_EQ(e, cudaSuccess);
  increment<<<1, 32>>>(m);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(m[31], 32);
  EXPECT_EQ(cudaFree(m), cudaSuccess);
  cudaGetLastError();
}

TEST(Runtime, MemoryPools) {
  cudaMemPool_t standard = nullptr, own = nullptr;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&standard, 0), cudaSuccess);
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location = {cudaMemLocationTypeDevice, 0};
  ASSERT_EQ(cudaMemPoolCreate(&own, &props), cudaSuccess);
  std::uint64_t keep = ~std::uint64_t{0}, read = 0;
  ASSERT_EQ(cudaMemPoolSetAttribute(own, cudaMemPoolAttrReleaseThreshold, &keep), cudaSuccess);
  ASSERT_EQ(cudaMemPoolGetAttribute(own, cudaMemPoolAttrReleaseThreshold, &read), cudaSuccess);
  EXPECT_EQ(read, keep);
  stream s;
  int* p = nullptr;
  ASSERT_EQ(cudaMallocFromPoolAsync(&p, 128, own, s), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(p, 0, 128, s), cudaSuccess);
  increment<<<1, 32, 0, s>>>(p);
  int out = 0;
  ASSERT_EQ(cudaMemcpyAsync(&out, p + 31, 4, cudaMemcpyDeviceToHost, s), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(p, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(out, 1);
  EXPECT_EQ(cudaMemPoolTrimTo(own, 0), cudaSuccess);
  EXPECT_EQ(cudaMemPoolDestroy(own), cudaSuccess);
}

TEST(Runtime, FreesThatAreNone) {
  int* p = nullptr;
  int plain = 0;
  ASSERT_EQ(cudaMalloc(&p, 64), cudaSuccess);
  EXPECT_EQ(cudaFree(p + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(&plain), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaFree(p), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(&plain, nullptr, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(Runtime, TheDeviceAndItsSettings) {
  int version = 0, can = 1;
  EXPECT_EQ(cudaRuntimeGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, CUDART_VERSION);
  EXPECT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
  EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 0, 0), cudaSuccess);
  EXPECT_EQ(can, 0);
  cudaDeviceProp p{};
  int processors = 0, opt_in = 0, warp = 0;
  EXPECT_EQ(cudaGetDeviceProperties(&p, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceGetAttribute(&opt_in, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceGetAttribute(&warp, cudaDevAttrWarpSize, 0), cudaSuccess);
  EXPECT_EQ(p.multiProcessorCount, processors);
  EXPECT_EQ(p.sharedMemPerBlockOptin, static_cast<std::size_t>(opt_in));
  EXPECT_EQ(p.warpSize, warp);
  std::size_t bytes = 0;
  EXPECT_EQ(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 2 << 20), cudaSuccess);
  EXPECT_EQ(cudaDeviceGetLimit(&bytes, cudaLimitPrintfFifoSize), cudaSuccess);
  EXPECT_GE(bytes, std::size_t{2} << 20);
  char id[32] = {};
  EXPECT_EQ(cudaDeviceGetPCIBusId(id, sizeof id, 0), cudaSuccess);
  int device = -1;
  EXPECT_EQ(cudaDeviceGetByPCIBusId(&device, id), cudaSuccess);
  EXPECT_EQ(device, 0);
  EXPECT_EQ(cudaFuncSetCacheConfig(increment, cudaFuncCachePreferL1), cudaSuccess);
  EXPECT_EQ(cudaDeviceSetCacheConfig(cudaFuncCachePreferShared), cudaSuccess);
}

TEST(Runtime, Occupancy) {
  int grid = 0, block = 0, blocks = 0;
  ASSERT_EQ(cudaOccupancyMaxPotentialBlockSize(&grid, &block, increment, 0, 0), cudaSuccess);
  EXPECT_GE(block, 32);
  EXPECT_GE(grid, 1);
  ASSERT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, increment, 256, 0), cudaSuccess);
  EXPECT_GE(blocks, 1);
  std::size_t bytes = 0;
  ASSERT_EQ(cudaOccupancyAvailableDynamicSMemPerBlock(&bytes, increment, 2, 256), cudaSuccess);
  EXPECT_GT(bytes, 16384u);
}

}  // namespace runtime_test
