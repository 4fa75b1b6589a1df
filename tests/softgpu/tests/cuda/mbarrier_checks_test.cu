// Copies that an mbarrier announces are not there before somebody has waited for it.
#include <cstdint>
#include <numeric>
#include <vector>

#include "device_array.hpp"
#include "softgpu/softgpu.hpp"

namespace mbarrier_checks_test {

__global__ void read_copies(int const* in, int* out, bool waits, bool increments) {
  __shared__ std::uint64_t b;
  __shared__ alignas(16) int s[128];
  int const t = threadIdx.x;
  auto const at = [](void const* p) { return std::uint32_t(__cvta_generic_to_shared(p)); };
  if (t == 0)
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at(&b)), "r"(increments ? 1 : 32)
                 : "memory");
  __syncthreads();
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(at(s + 4 * t)), "l"(in + 4 * t)
               : "memory");
  if (increments) {
    asm volatile("cp.async.mbarrier.arrive.shared.b64 [%0];" ::"r"(at(&b)) : "memory");
    if (t == 0) asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(at(&b)) : "memory");
  } else {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(at(&b)) : "memory");
  }
  for (std::uint32_t over = waits ? 0 : 1; over == 0;)
    asm volatile(
        "{.reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p;}"
        : "=r"(over)
        : "r"(at(&b))
        : "memory");
  for (int k = 0; k < 4; ++k) out[4 * t + k] = s[4 * t + k];
}

TEST(MbarrierChecks, CopiesThatNobodyWaitedForAreNotThere) {
  softgpu::configure().print_reports = false;
  std::vector<int> in(128);
  std::iota(in.begin(), in.end(), 100);
  device_array<int> from(in), out(std::size_t{128});
  for (bool const increments : {false, true}) {
    read_copies<<<1, 32>>>(from.data, out.data, false, increments);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    auto const reports = softgpu::take_reports();
    ASSERT_FALSE(reports.empty());
    EXPECT_EQ(reports[0].what, softgpu::fault::uninitialized);
    read_copies<<<1, 32>>>(from.data, out.data, true, increments);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_TRUE(softgpu::take_reports().empty());
    EXPECT_EQ(out.host(), in);
  }
}

__global__ void misuse(int what) {
  __shared__ std::uint64_t b;
  auto const at = std::uint32_t(__cvta_generic_to_shared(&b));
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(what == 0 ? 0 : 2) : "memory");
  if (what == 1) asm volatile("mbarrier.arrive.shared.b64 _, [%0], 3;" ::"r"(at) : "memory");
  if (what == 2)
    asm volatile("{.reg .b64 s; mbarrier.arrive.noComplete.shared.b64 s, [%0], 2;}" ::"r"(at)
                 : "memory");
  if (what == 3) asm volatile("mbarrier.arrive.shared.b64 _, [%0], 2;" ::"r"(at) : "memory");
}

TEST(MbarrierChecks, MisuseIsReported) {
  softgpu::configure().print_reports = false;
  char const* const sentences[] = {"count of 0", "an arrival of 3", "an arrival of 2", ""};
  for (int what = 3; what >= 0; --what) {
    misuse<<<1, 1>>>(what);
    cudaError_t const e = cudaDeviceSynchronize();
    auto const reports = softgpu::take_reports();
    EXPECT_EQ(reports.empty(), what == 3) << what;
    EXPECT_EQ(e == cudaSuccess, what == 3) << what;
    if (!reports.empty())
      EXPECT_NE(reports[0].sentence.find(sentences[what]), std::string::npos)
          << reports[0].sentence;
    cudaDeviceReset();
  }
}

}  // namespace mbarrier_checks_test
