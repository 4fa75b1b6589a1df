// Counts of instructions and of global memory against answers written by hand: sectors of 32 bytes.
#include <cstdint>
#include <string>

#include "counts.hpp"

namespace counters_test {

template <class T> __global__ void copy(T const* a, T* b, int n, int stride) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) b[i * stride] = a[i * stride];
}

struct expected_sectors {
  std::uint64_t sectors, least;
};

template <class T>
void expect_copy(int n, int stride, int offset, expected_sectors reads, expected_sectors writes) {
  std::size_t const size = std::size_t(n) * stride + offset;
  device_array<T> a{std::vector<T>(size)}, b(size);
  auto const c = counts_of(
      [&] { copy<<<(n + 255) / 256, 256>>>(a.data + offset, b.data + offset, n, stride); });
  EXPECT_EQ(c.bytes_read, n * sizeof(T));
  EXPECT_EQ(c.bytes_written, n * sizeof(T));
  EXPECT_EQ(c.sectors_read, reads.sectors);
  EXPECT_EQ(c.least_sectors_read, reads.least);
  EXPECT_EQ(c.sectors_written, writes.sectors);
  EXPECT_EQ(c.least_sectors_written, writes.least);
  EXPECT_EQ(c.dram_bytes(), 32 * (reads.sectors + writes.sectors));
  EXPECT_EQ(c.sectors_atomic, 0u);
}

TEST(GlobalSectors, CoalescedFloats) {
  expect_copy<float>(4096, 1, 0, {4096 * 4 / 32, 512}, {512, 512});
}
TEST(GlobalSectors, StrideTwoTouchesTwiceAsMany) {
  expect_copy<float>(4096, 2, 0, {1024, 512}, {1024, 512});
}
TEST(GlobalSectors, StrideThirtyTwoTouchesOneALane) {
  expect_copy<float>(1024, 32, 0, {1024, 128}, {1024, 128});
}
TEST(GlobalSectors, MisalignedByFourBytesTouchesOneMoreAWarp) {
  expect_copy<float>(4096, 1, 1, {128 * 5, 512}, {128 * 5, 512});
}
TEST(GlobalSectors, Vectors) {
  expect_copy<float4>(1024, 1, 0, {512, 512}, {512, 512});
  expect_copy<double>(1024, 1, 0, {256, 256}, {256, 256});
  expect_copy<char>(1024, 1, 0, {32, 32}, {32, 32});
}
TEST(GlobalSectors, ATailCountsWhatItAsksFor) {
  // 100 floats: three whole warps and four lanes, half a sector.
  expect_copy<float>(100, 1, 0, {13, 13}, {13, 13});
}

__global__ void broadcast(int const* a, int* b) { b[threadIdx.x] = a[blockIdx.x]; }
__global__ void backwards(int const* a, int* b) {
  b[threadIdx.x] = a[blockDim.x - 1 - threadIdx.x];
}
__global__ void gather(int const* index, int* b) { b[threadIdx.x] = index[index[threadIdx.x]]; }

TEST(GlobalSectors, OneAddressForAllLanesIsOneSector) {
  device_array<int> a(std::vector<int>(1, 5)), b(std::size_t{64});
  auto const c = counts_of([&] { broadcast<<<1, 64>>>(a.data, b.data); });
  EXPECT_EQ(c.bytes_read, 64u * 4);
  EXPECT_EQ(c.sectors_read, 2u);  // one for each warp
  EXPECT_EQ(c.least_sectors_read, 2u);
}

TEST(GlobalSectors, TheOrderOfLanesDoesNotMatter) {
  device_array<int> a(std::vector<int>(32, 5)), b(std::size_t{32});
  auto const c = counts_of([&] { backwards<<<1, 32>>>(a.data, b.data); });
  EXPECT_EQ(c.sectors_read, 4u);
  EXPECT_EQ(c.least_sectors_read, 4u);
}

TEST(GlobalSectors, AGatherTouchesWhatItsIndicesHit) {
  std::vector<int> index(1024, 0);
  for (int i = 0; i < 32; ++i) index[i] = i % 4 * 256 + i / 4;  // four runs of eight
  device_array<int> a(index), b(std::size_t{32});
  auto const c = counts_of([&] { gather<<<1, 32>>>(a.data, b.data); });
  EXPECT_EQ(c.sectors_read, 4u + 4u);
  EXPECT_EQ(c.least_sectors_read, 8u);
}

__constant__ int table[32];
__global__ void from_constant(int* b, int shift) {
  b[threadIdx.x] = table[(threadIdx.x + shift) % 32];
}

TEST(GlobalSectors, ConstantsAndParametersAreNotGlobalMemory) {
  device_array<int> b(std::size_t{32});
  auto const c = counts_of([&] { from_constant<<<1, 32>>>(b.data, 3); });
  EXPECT_EQ(c.sectors_read, 0u);
  EXPECT_EQ(c.sectors_written, 4u);
}

__global__ void count_up(int* a, int spread) { atomicAdd(a + threadIdx.x * spread, 1); }

TEST(GlobalSectors, Atomics) {
  device_array<int> a(std::vector<int>(32));
  auto const together = counts_of([&] { count_up<<<1, 32>>>(a.data, 0); });
  EXPECT_EQ(together.sectors_read + together.sectors_written, 0u);
  EXPECT_EQ(together.sectors_atomic, 1u);
  EXPECT_EQ(together.bytes_atomic, 128u);
  auto const apart = counts_of([&] { count_up<<<1, 32>>>(a.data, 1); });
  EXPECT_EQ(apart.sectors_atomic, 4u);
  EXPECT_EQ(a.host()[0], 33);
}

__global__ void read_twice(int const* a, int* b, int n) {
  int sum = 0;
  for (int i = threadIdx.x; i < 2 * n; i += blockDim.x) sum += a[i % n];
  b[threadIdx.x] = sum;
}

TEST(UniqueBytes, AreCountedOnceALaunch) {
  softgpu::configure().count_unique_bytes = true;
  device_array<int> a(std::vector<int>(1000)), b(std::size_t{128});
  for (int repeat = 0; repeat < 2; ++repeat) {
    auto const c = counts_of([&] { read_twice<<<3, 128>>>(a.data, b.data, 1000); });
    EXPECT_EQ(c.bytes_read, 3u * 2 * 4000);
    EXPECT_EQ(c.unique_bytes_read, 4000u);
    EXPECT_EQ(c.unique_bytes_written, 512u);
    EXPECT_GE(c.dram_bytes(), 3u * (2 * 4000 + 512));
  }
  auto const strided = counts_of([&] { copy<<<1, 32>>>(a.data, b.data, 32, 3); });
  EXPECT_EQ(strided.unique_bytes_read, 128u);
  EXPECT_EQ(strided.unique_bytes_written, 128u);
  softgpu::configure().count_unique_bytes = false;
  auto const without = counts_of([&] { copy<<<1, 32>>>(a.data, b.data, 32, 1); });
  EXPECT_EQ(without.unique_bytes_read, 0u);
}

__global__ void parts(int* out, int limit) {
  int v = threadIdx.x;
  if (v < limit)
    for (int i = 0; i < out[0]; ++i) v += __popc(v);
  else
    v = __clz(v);
  __syncthreads();
  out[v % 8 + 8] = v;
  __syncthreads();
}

TEST(Launch, ShapeBarriersAndDivergence) {
  device_array<int> out(std::vector<int>(16, 3));
  auto const whole = counts_of([&] { parts<<<2, dim3(32, 2), 100>>>(out.data, 32); });
  EXPECT_EQ(whole.grid[0], 2u);
  EXPECT_EQ(whole.block[0], 32u);
  EXPECT_EQ(whole.block[1], 2u);
  EXPECT_EQ(whole.dynamic_shared, 100u);
  EXPECT_EQ(whole.barriers, 2u * 2);
  EXPECT_EQ(whole.divergent_branches, 0u);
  auto const parted = counts_of([&] { parts<<<1, 32>>>(out.data, 9); });
  EXPECT_EQ(parted.divergent_branches, 1u);
  EXPECT_LT(parted.lane_instructions, parted.warp_instructions * 32);
}

TEST(Output, ByKernelAddsLaunchesUp) {
  device_array<float> a(std::vector<float>(64)), b(std::size_t{64});
  device_array<int> n(std::vector<int>(16, 3));
  softgpu::take_counts();
  copy<<<1, 64>>>(a.data, b.data, 64, 1);
  parts<<<1, 32>>>(n.data, 9);
  copy<<<1, 32>>>(a.data, b.data, 32, 1);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const kernels = softgpu::by_kernel(softgpu::take_counts());
  ASSERT_EQ(kernels.size(), 2u);
  EXPECT_EQ(kernels[0].launches, 2u);
  EXPECT_EQ(kernels[0].sectors_read, 12u);
  EXPECT_NE(kernels[1].kernel.find("parts(int*, int)"), std::string::npos);
  std::string const table = softgpu::table_of(kernels);
  EXPECT_NE(table.find("parts(int*, int)\n"), std::string::npos) << table;
  EXPECT_NE(table.find("rd-sec"), std::string::npos) << table;
  std::string const json = softgpu::json_of(kernels);
  EXPECT_NE(json.find("\"launches\": 2, "), std::string::npos) << json;
  EXPECT_NE(json.find("\"sectors_read\": 12, "), std::string::npos) << json;
  EXPECT_NE(json.find("\"block\": [64, 1, 1]"), std::string::npos) << json;
}

}  // namespace counters_test
