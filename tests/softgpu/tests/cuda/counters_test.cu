// Counts against answers written by hand from the rules: sectors of 32 bytes, 32 banks of 4 bytes,
// a warp's shared access of 8 bytes a lane in halves and of 16 in quarters.
#include <cstdint>
#include <softgpu/softgpu.hpp>
#include <string>

#include "device_array.hpp"

namespace {

/// The counts of the one launch in `launch`.
template <class F> softgpu::launch_counts counts_of(F&& launch) {
  softgpu::take_counts();
  launch();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const all = softgpu::take_counts();
  EXPECT_EQ(all.size(), 1u);
  return all.at(0);
}

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

template <class T> __global__ void shared_store(int stride, int modulus, T* out) {
  __shared__ T s[1100];
  volatile T* const v = s;
  v[threadIdx.x * stride % modulus] = T(threadIdx.x);
  if (out != nullptr) out[0] = s[0];
}

/// The conflicts of one warp's store of Ts at `stride`.
template <class T> std::uint64_t conflicts(int stride, int modulus = 1 << 20) {
  auto const c = counts_of([&] { shared_store<T><<<1, 32>>>(stride, modulus, nullptr); });
  EXPECT_EQ(c.shared_accesses, 1u);
  EXPECT_EQ(c.bank_conflicts, c.shared_wavefronts - (sizeof(T) <= 4 ? 1 : sizeof(T) / 4));
  return c.bank_conflicts;
}

TEST(SharedBanks, StridesOfFourBytes) {
  EXPECT_EQ(conflicts<int>(1), 0u);
  EXPECT_EQ(conflicts<int>(2), 1u);  // lanes i and i + 16 meet
  EXPECT_EQ(conflicts<int>(4), 3u);
  EXPECT_EQ(conflicts<int>(32), 31u);  // all in one bank
  EXPECT_EQ(conflicts<int>(33), 0u);
  EXPECT_EQ(conflicts<int>(0), 0u);  // one word goes to all
  EXPECT_EQ(conflicts<int>(1, 4), 0u);
  EXPECT_EQ(conflicts<int>(32, 128), 3u);  // four words of one bank, each for eight lanes
}

TEST(SharedBanks, BytesOfOneWordDoNotConflict) {
  EXPECT_EQ(conflicts<char>(1), 0u);
  EXPECT_EQ(conflicts<char>(2), 0u);
  EXPECT_EQ(conflicts<short>(2), 0u);
  EXPECT_EQ(conflicts<short>(4), 1u);
}

TEST(SharedBanks, EightBytesGoInHalves) {
  EXPECT_EQ(conflicts<double>(1), 0u);
  EXPECT_EQ(conflicts<double>(2), 2u);    // in each half, lanes i and i + 8 meet
  EXPECT_EQ(conflicts<double>(16), 30u);  // each half in one pair of banks
  EXPECT_EQ(conflicts<double>(17), 0u);
  EXPECT_EQ(conflicts<double>(0), 0u);
}

__global__ void shared_load16(int stride, float* out, bool write) {
  extern __shared__ float4 wide[];
  asm volatile("" ::: "memory");
  float4 v;
  unsigned const at = unsigned(__cvta_generic_to_shared(wide + threadIdx.x * stride));
  if (write) asm volatile("st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(at), "f"(1.0f));
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(at));
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

TEST(SharedBanks, SixteenBytesGoInQuarters) {
  device_array<float> out(std::size_t{32});
  auto const of = [&](int stride) {
    return counts_of([&] { shared_load16<<<1, 32, 16384>>>(stride, out.data, true); });
  };
  EXPECT_EQ(of(1).shared_wavefronts, 8u);  // four for the store, four for the load
  EXPECT_EQ(of(1).bank_conflicts, 0u);
  EXPECT_EQ(of(2).bank_conflicts, 2u * 4);   // lanes i and i + 4 of a quarter
  EXPECT_EQ(of(8).bank_conflicts, 2u * 28);  // eight lanes of a quarter in four banks
  EXPECT_EQ(of(9).bank_conflicts, 0u);
}

/// Loads the 8×8 matrices of a tile of 64-byte rows, plain or with its 16-byte pieces exchanged.
__global__ void matrices(unsigned* out, bool swizzled) {
  __shared__ __align__(128) unsigned char tile[32 * 64];
  unsigned const lane = threadIdx.x;
  for (unsigned i = lane; i < sizeof tile / 4; i += 32) reinterpret_cast<unsigned*>(tile)[i] = i;
  __syncwarp();
  unsigned const piece = swizzled ? (lane / 2) % 4 : 0;
  unsigned const at = unsigned(__cvta_generic_to_shared(tile + lane * 64 + piece * 16));
  unsigned a, b, c, d;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(at));
  out[lane] = a + b + c + d;
}

TEST(SharedBanks, LdmatrixReadsEightRowsAtATime) {
  device_array<unsigned> out(std::size_t{32});
  auto const plain = counts_of([&] { matrices<<<1, 32>>>(out.data, false); });
  EXPECT_EQ(plain.shared_accesses, 16u + 1u);
  EXPECT_EQ(plain.bank_conflicts, 4u * 3);  // rows r, r + 2, r + 4 and r + 6 share their banks
  auto const swizzled = counts_of([&] { matrices<<<1, 32>>>(out.data, true); });
  EXPECT_EQ(swizzled.bank_conflicts, 0u);
}

__global__ void shared_atomics(int* out, int stride) {
  __shared__ int s[1024];
  for (int i = threadIdx.x; i < 1024; i += 32) s[i] = 0;
  __syncwarp();
  atomicAdd(s + threadIdx.x * stride, int(threadIdx.x) + 1);
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x];
}

TEST(SharedBanks, AtomicsOnOneWordGoOneAfterTheOther) {
  device_array<int> out(std::size_t{32});
  EXPECT_EQ(counts_of([&] { shared_atomics<<<1, 32>>>(out.data, 1); }).bank_conflicts, 0u);
  EXPECT_EQ(counts_of([&] { shared_atomics<<<1, 32>>>(out.data, 0); }).bank_conflicts, 31u);
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

__global__ void __launch_bounds__(1024) spills(float* out, int n) {
  float v[100];
  for (int i = 0; i < 100; ++i) v[i] = out[i * n];
  __syncthreads();
  for (int k = 0; k < 100; ++k)
    for (int i = 0; i < 100; ++i) v[i] = v[i] * v[(i + 1) % 100] + v[(i * 7 + 3) % 100];
  for (int i = 0; i < 100; ++i) out[i * n] = v[i];
}

TEST(Resources, AsPtxasReportsThem) {
  auto const small = softgpu::resources_of(reinterpret_cast<void const*>(&shared_atomics));
  ASSERT_EQ(small.size(), 3u);
  EXPECT_EQ(small[0].architecture, "sm_80");
  EXPECT_EQ(small[1].architecture, "sm_90a");
  EXPECT_EQ(small[2].architecture, "sm_100");
  if (small[0].error.find("not found") != std::string::npos) GTEST_SKIP() << small[0].error;
  for (auto const& r : {small[0], small[1]}) {
    EXPECT_EQ(r.error, "");
    EXPECT_GT(r.registers, 3);
    EXPECT_LT(r.registers, 64);
    EXPECT_EQ(r.spill_store_bytes + r.spill_load_bytes, 0);
    EXPECT_GE(r.shared_bytes, 4096);
  }
  auto const large = softgpu::resources_of(reinterpret_cast<void const*>(&spills), {"sm_80"});
  EXPECT_EQ(large.at(0).registers, 64);  // 65536 registers for 1024 threads
  EXPECT_GT(large.at(0).spill_store_bytes, 0);
  EXPECT_GT(large.at(0).stack_bytes, 0);
  auto const unknown = softgpu::resources_of(reinterpret_cast<void const*>(&spills), {"sm_1"});
  EXPECT_NE(unknown.at(0).error.find("sm_1"), std::string::npos) << unknown.at(0).error;
}

}  // namespace
