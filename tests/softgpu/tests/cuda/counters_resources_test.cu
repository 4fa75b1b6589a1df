// What ptxas says of kernels.
#include <cstdint>
#include <string>

#include "counts.hpp"

namespace counters_resources_test {

__global__ void small(int* out) {
  __shared__ int s[1024];
  for (int i = threadIdx.x; i < 1024; i += 32) s[i] = i;
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x * 7 % 1024];
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
  auto const little = softgpu::resources_of(reinterpret_cast<void const*>(&small));
  ASSERT_EQ(little.size(), 3u);
  EXPECT_EQ(little[0].architecture, "sm_80");
  EXPECT_EQ(little[1].architecture, "sm_90a");
  EXPECT_EQ(little[2].architecture, "sm_100");
  if (little[0].error.find("not found") != std::string::npos) GTEST_SKIP() << little[0].error;
  for (auto const& r : {little[0], little[1]}) {
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

}  // namespace counters_resources_test
