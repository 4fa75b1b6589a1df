// Every check: a deliberately wrong kernel that must be caught, with the right place named, and its
// right twin that must not.
#include <cassert>
#include <softgpu/softgpu.hpp>
#include <string>

#include "device_array.hpp"

namespace {

using softgpu::fault;

cudaError_t& last_error() {
  static cudaError_t e = cudaSuccess;
  return e;
}

/// Runs a launch and returns what was reported; the device is healed for the next test.
template <class F> std::vector<softgpu::report> reports_of(F&& launch) {
  softgpu::configure().print_reports = false;
  softgpu::take_reports();
  launch();
  last_error() = cudaDeviceSynchronize();
  cudaDeviceReset();
  return softgpu::take_reports();
}

#define EXPECT_ONE(found, fault_kind)                                                        \
  ASSERT_EQ(found.size(), 1u) << (found.empty() ? "" : found[1 % found.size()].to_string()); \
  EXPECT_EQ(found[0].what, fault_kind) << found[0].to_string();                              \
  EXPECT_NE(found[0].file.find("checks_test.cu"), std::string::npos);                        \
  EXPECT_GT(found[0].line, 0);                                                               \
  EXPECT_GT(found[0].ptx_line, 0)

__global__ void shifted_copy(int const* a, int* b, int n, int shift) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) b[i] = a[i + shift];
}

TEST(Checks, OutOfBoundsRead) {
  device_array<int> a(std::vector<int>(100, 1)), b(std::size_t{100});
  auto const bad = reports_of([&] { shifted_copy<<<2, 64>>>(a.data, b.data, 100, 3); });
  EXPECT_ONE(bad, fault::out_of_bounds);
  EXPECT_EQ(bad[0].block[0], 1u);
  EXPECT_EQ(bad[0].thread[0], 97u - 64u);
  EXPECT_EQ(bad[0].count, 3u);
  EXPECT_EQ(last_error(), cudaErrorIllegalAddress);
  EXPECT_NE(bad[0].sentence.find("0 bytes past the 400 bytes of cudaMalloc"), std::string::npos)
      << bad[0].sentence;
  EXPECT_TRUE(reports_of([&] { shifted_copy<<<2, 64>>>(a.data, b.data, 100, 0); }).empty());
  EXPECT_EQ(last_error(), cudaSuccess);
}

TEST(Checks, UseAfterFree) {
  int* a = nullptr;
  ASSERT_EQ(cudaMalloc(&a, 400), cudaSuccess);
  ASSERT_EQ(cudaMemset(a, 0, 400), cudaSuccess);
  device_array<int> b(std::size_t{100});
  EXPECT_TRUE(reports_of([&] { shifted_copy<<<1, 128>>>(a, b.data, 100, 0); }).empty());
  ASSERT_EQ(cudaFree(a), cudaSuccess);
  auto const bad = reports_of([&] { shifted_copy<<<1, 128>>>(a, b.data, 100, 0); });
  EXPECT_ONE(bad, fault::use_after_free);
}

TEST(Checks, HostMemoryIsNotDeviceMemory) {
  int on_host[4] = {};
  device_array<int> b(std::size_t{4});
  auto const bad = reports_of([&] { shifted_copy<<<1, 4>>>(on_host, b.data, 4, 0); });
  EXPECT_ONE(bad, fault::out_of_bounds);
}

__global__ void read_pair(char const* a, int* b) { b[0] = *reinterpret_cast<int const*>(a); }

TEST(Checks, Misaligned) {
  device_array<char> a(std::vector<char>(16, 1));
  device_array<int> b(std::size_t{1});
  auto const bad = reports_of([&] { read_pair<<<1, 1>>>(a.data + 2, b.data); });
  EXPECT_ONE(bad, fault::misaligned);
  EXPECT_EQ(last_error(), cudaErrorMisalignedAddress);
  EXPECT_TRUE(reports_of([&] { read_pair<<<1, 1>>>(a.data + 4, b.data); }).empty());
}

TEST(Checks, UnwrittenGlobalMemory) {
  device_array<int> a(std::size_t{64}), b(std::size_t{64});
  auto const bad = reports_of([&] { shifted_copy<<<1, 64>>>(a.data, b.data, 64, 0); });
  EXPECT_ONE(bad, fault::uninitialised);
  EXPECT_EQ(last_error(), cudaSuccess);  // wrong, but no fault on a device
  cudaMemset(a.data, 0, 64 * sizeof(int));
  EXPECT_TRUE(reports_of([&] { shifted_copy<<<1, 64>>>(a.data, b.data, 64, 0); }).empty());
}

__global__ void half_written(int* out, int written) {
  __shared__ int s[64];
  if (threadIdx.x < written) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

TEST(Checks, UnwrittenSharedMemory) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { half_written<<<1, 64>>>(b.data, 40); });
  EXPECT_ONE(bad, fault::uninitialised);
  EXPECT_EQ(bad[0].thread[0], 40u);
  EXPECT_TRUE(reports_of([&] { half_written<<<1, 64>>>(b.data, 64); }).empty());
}

__global__ void neighbour(int* out, bool wait_between, bool wait_after) {
  __shared__ int s[128];
  int const t = threadIdx.x;
  s[t] = t;
  if (wait_between) __syncthreads();
  int const v = s[(t + 32) % 128];
  if (wait_after) __syncthreads();
  s[t] = v;
  out[t] = v;
}

TEST(Checks, SharedRaceWithoutABarrier) {
  device_array<int> b(std::size_t{128});
  auto const read_before_written = reports_of([&] { neighbour<<<1, 128>>>(b.data, false, true); });
  bool raced = false;
  for (auto const& r : read_before_written)
    raced |= r.what == fault::shared_race || r.what == fault::uninitialised;
  EXPECT_TRUE(raced);
  auto const overwritten = reports_of([&] { neighbour<<<1, 128>>>(b.data, true, false); });
  ASSERT_FALSE(overwritten.empty());  // read after the other's write, and written after its read
  for (auto const& r : overwritten) EXPECT_EQ(r.what, fault::shared_race) << r.to_string();
  EXPECT_TRUE(reports_of([&] { neighbour<<<1, 128>>>(b.data, true, true); }).empty());
}

__global__ void producer_consumer(int* out, int consumer_barrier) {  // named barriers of two warps
  __shared__ int s[32];
  if (threadIdx.x < 32) {
    s[threadIdx.x] = threadIdx.x;
    asm volatile("bar.arrive 1, 64;" ::: "memory");
    if (consumer_barrier == 2) asm volatile("bar.arrive 2, 64;" ::: "memory");
  } else {
    if (consumer_barrier == 1)
      asm volatile("bar.sync 1, 64;" ::: "memory");
    else
      asm volatile("bar.sync 2, 64;" ::: "memory");
    out[threadIdx.x - 32] = s[threadIdx.x - 32];
  }
}

TEST(Checks, NamedBarriersOrderTheirWarps) {
  device_array<int> b(std::size_t{32});
  EXPECT_TRUE(reports_of([&] { producer_consumer<<<1, 64>>>(b.data, 1); }).empty());
  EXPECT_TRUE(reports_of([&] { producer_consumer<<<1, 64>>>(b.data, 2); }).empty());
  EXPECT_EQ(b.host()[5], 5);
}

__global__ void barrier_in_branch(int* out, int limit) {
  if (threadIdx.x < limit) {
    asm volatile("bar.sync 0;" ::: "memory");
    out[threadIdx.x] = 1;
  } else {
    out[threadIdx.x] = 2;
    asm volatile("bar.sync 0;" ::: "memory");
  }
}

TEST(Checks, DivergentBarrier) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { barrier_in_branch<<<1, 64>>>(b.data, 40); });
  ASSERT_FALSE(bad.empty());
  EXPECT_EQ(bad[0].what, fault::divergent_barrier) << bad[0].to_string();
  EXPECT_TRUE(reports_of([&] { barrier_in_branch<<<1, 64>>>(b.data, 32); }).empty());
}

__global__ void missing_barrier(int* out, int waiting) {
  if (threadIdx.x < 32)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  else if (waiting != 0)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  out[threadIdx.x] = 1;
}

TEST(Checks, Deadlock) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { missing_barrier<<<1, 64>>>(b.data, 0); });
  EXPECT_ONE(bad, fault::deadlock);
  EXPECT_EQ(last_error(), cudaErrorLaunchTimeout);
  EXPECT_TRUE(reports_of([&] { missing_barrier<<<1, 64>>>(b.data, 1); }).empty());
}

__global__ void shuffle_from(int* out, unsigned members, int source) {
  if (members >> threadIdx.x & 1) out[threadIdx.x] = __shfl_sync(members, threadIdx.x, source);
}

TEST(Checks, ShuffleFromALaneOutside) {
  device_array<int> b(std::size_t{32});
  auto const bad = reports_of([&] { shuffle_from<<<1, 32>>>(b.data, 0xff, 9); });
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad[0].what, fault::inactive_lane);
  EXPECT_NE(bad[0].inlined_file.find("checks_test.cu"), std::string::npos) << bad[0].to_string();
  EXPECT_TRUE(reports_of([&] { shuffle_from<<<1, 32>>>(b.data, 0xff, 7); }).empty());
}

__global__ void asserts(int n) { assert(n < 5); }

TEST(Checks, Assertion) {
  auto const bad = reports_of([&] { asserts<<<1, 32>>>(7); });
  EXPECT_ONE(bad, fault::assertion);
  EXPECT_NE(bad[0].sentence.find("`n < 5` failed"), std::string::npos) << bad[0].sentence;
  EXPECT_EQ(last_error(), cudaErrorAssert);
  EXPECT_TRUE(reports_of([&] { asserts<<<1, 32>>>(4); }).empty());
}

__global__ void traps(int n) {
  if (n != 0) __trap();
}

TEST(Checks, Trap) {
  auto const bad = reports_of([&] { traps<<<1, 32>>>(1); });
  EXPECT_ONE(bad, fault::trap);
  EXPECT_TRUE(reports_of([&] { traps<<<1, 32>>>(0); }).empty());
}

TEST(Checks, AFaultStaysUntilTheDeviceIsReset) {
  softgpu::configure().print_reports = false;
  int* nowhere = nullptr;
  shifted_copy<<<1, 1>>>(nowhere, nowhere, 1, 0);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaMemset(nowhere, 0, 4), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_FALSE(softgpu::take_reports().empty());
}

}  // namespace
