// What SOFTGPU_COUNTS and SOFTGPU_PTXAS make a process write when it ends.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <softgpu/softgpu.hpp>
#include <string>

#include "device_array.hpp"
#include "run_alone.hpp"

namespace counts_at_exit_test {

__global__ void double_all(int* a) { a[blockIdx.x * blockDim.x + threadIdx.x] *= 2; }
__global__ void set_one(int* a) { a[0] = 1; }

TEST(Child, DISABLED_LaunchesThree) {
  device_array<int> a(std::vector<int>(64, 1));
  double_all<<<2, 32>>>(a.data);
  set_one<<<1, 1>>>(a.data);
  double_all<<<1, 32>>>(a.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

bool contains(std::string const& text, char const* what) {
  return text.find(what) != std::string::npos;
}

TEST(CountsAtExit, ATableWithALineForEachKernel) {
  ending const e = run_alone("LaunchesThree", "SOFTGPU_COUNTS=table");
  EXPECT_EQ(e.status, 0) << e.text;
  EXPECT_TRUE(contains(e.text, "warp-i")) << e.text;
  EXPECT_TRUE(contains(e.text, "double_all(int*)\n")) << e.text;
  EXPECT_TRUE(contains(e.text, "set_one(int*)\n")) << e.text;
  EXPECT_FALSE(contains(run_alone("LaunchesThree").text, "warp-i"));
}

TEST(CountsAtExit, AFileOfJson) {
  std::string const path = testing::TempDir() + "counts-" + std::to_string(getpid()) + ".json";
  ending const e =
      run_alone("LaunchesThree", "SOFTGPU_PTXAS=sm_80,sm_1 SOFTGPU_COUNTS='" + path + "'");
  EXPECT_EQ(e.status, 0) << e.text;
  std::ifstream file(path);
  std::string const text{std::istreambuf_iterator<char>(file), {}};
  std::remove(path.c_str());
  EXPECT_TRUE(contains(text, "\"launches\": 2, ")) << text;
  EXPECT_TRUE(contains(text, "\"sectors_read\": 12, ")) << text;  // three warps
  EXPECT_TRUE(contains(text, "\"unique_bytes_read\": 384, ")) << text;
  EXPECT_TRUE(contains(text, "\"architecture\": \"sm_80\"")) << text;
  EXPECT_TRUE(contains(text, "\"architecture\": \"sm_1\", \"error\": ")) << text;
  EXPECT_EQ(text.substr(0, 2), "[\n");
  EXPECT_EQ(text.substr(text.size() - 2), "]\n");
}

TEST(CountsAtExit, ANameThatIsNeitherIsRefused) {
  ending const e = run_alone("LaunchesThree", "SOFTGPU_COUNTS=counts.xml");
  EXPECT_TRUE(contains(e.text, "neither \"table\" nor a .json file")) << e.text;
}

}  // namespace counts_at_exit_test
