// The checks of global memory and of the ends of a kernel: a deliberately wrong kernel that must be
// caught, with the right place named, and its right twin that must not.
#include <cassert>

#include "reports.hpp"

namespace checks_test {

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
  EXPECT_ONE(bad, fault::uninitialized);
  EXPECT_EQ(last_error(), cudaSuccess);  // wrong, but no fault on a device
  cudaMemset(a.data, 0, 64 * sizeof(int));
  EXPECT_TRUE(reports_of([&] { shifted_copy<<<1, 64>>>(a.data, b.data, 64, 0); }).empty());
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
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaMemset(nowhere, 0, 4), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_FALSE(softgpu::take_reports().empty());
}

}  // namespace checks_test
