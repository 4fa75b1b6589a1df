// What a process leaves behind: one that leaks, hangs or leaves a report unread exits with 86 and
// says why; its twin exits with 0. This executable runs itself again as each of them.
#include <softgpu/softgpu.hpp>  // exit codes are the software device's
#include <string>

#include "device_array.hpp"
#include "run_alone.hpp"

namespace leak_test {

__global__ void write_one(int* a) { a[threadIdx.x] = 1; }

TEST(Child, DISABLED_Leaks) {
  int *kept = nullptr, *freed = nullptr;
  ASSERT_EQ(cudaMalloc(&kept, 400), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&freed, 500), cudaSuccess);
  write_one<<<1, 100>>>(kept);
  ASSERT_EQ(cudaFree(freed), cudaSuccess);
}

TEST(Child, DISABLED_FreesAll) {
  int *kept = nullptr, *freed = nullptr;
  ASSERT_EQ(cudaMalloc(&kept, 400), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&freed, 500), cudaSuccess);
  write_one<<<1, 100>>>(kept);
  ASSERT_EQ(cudaFree(freed), cudaSuccess);
  ASSERT_EQ(cudaFree(kept), cudaSuccess);
}

TEST(Child, DISABLED_LeavesAReport) {
  device_array<int> a(std::size_t{10});
  write_one<<<1, 11>>>(a.data);
}

__global__ void wait_for(int volatile* flag) {
  while (*flag == 0) {}
}

TEST(Child, DISABLED_Hangs) {
  device_array<int> flag(std::vector<int>{0});
  wait_for<<<1, 32>>>(flag.data);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchTimeout);
}

TEST(Exit, AHangIsEnded) {
  ending const e = run_alone("Hangs", "SOFTGPU_WATCHDOG=0.2");
  EXPECT_EQ(e.status, 86) << e.text;
  EXPECT_NE(e.text.find("has exited for 0.2 seconds"), std::string::npos) << e.text;
  EXPECT_NE(e.text.find("[  PASSED  ] 1 test"), std::string::npos) << e.text;
}

TEST(Exit, ALeakIsNamed) {
  ending const e = run_alone("Leaks");
  EXPECT_EQ(e.status, 86) << e.text;
  EXPECT_NE(e.text.find("softgpu: leak: 400 bytes of cudaMalloc at 0x"), std::string::npos)
      << e.text;
  EXPECT_EQ(e.text.find("500 bytes"), std::string::npos) << e.text;
  EXPECT_NE(e.text.find("[  PASSED  ] 1 test"), std::string::npos) << e.text;
}

TEST(Exit, ATidyProcessSaysNothing) {
  ending const e = run_alone("FreesAll");
  EXPECT_EQ(e.status, 0) << e.text;
  EXPECT_EQ(e.text.find("softgpu:"), std::string::npos) << e.text;
}

TEST(Exit, AReportNobodyTookEndsTheProcessWith86) {
  ending const e = run_alone("LeavesAReport");
  EXPECT_EQ(e.status, 86) << e.text;
  EXPECT_NE(e.text.find("softgpu: out of bounds: write of 4 bytes"), std::string::npos) << e.text;
  EXPECT_NE(e.text.find("softgpu: 1 reports were left at exit"), std::string::npos) << e.text;
}

}  // namespace leak_test
