#pragma once
#include <gtest/gtest.h>

#include <cstdio>

#include <softgpu/softgpu.hpp>

namespace shunt::test {

/// Bytes of global memory that the warps of the launches since the last call touched, without any
/// cache, over the least that the job needs. None of them may keep anything in local memory.
inline double touched(double least) {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  double bytes = 0;
  for (softgpu::launch_counts const& c : softgpu::take_counts()) {
    bytes += static_cast<double>(c.dram_bytes());
    EXPECT_EQ(c.local_bytes, 0u) << c.kernel << " keeps something in local memory";
  }
  EXPECT_GT(bytes, 0);
  return bytes / least;
}

/// Fails where ptxas spills a kernel's registers, for any architecture; prints their number.
inline void expect_no_spill(char const* name, void const* kernel) {
  for (auto const& r : softgpu::resources_of(kernel)) {
    EXPECT_EQ(r.error, "");
    EXPECT_EQ(r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes, 0) << name;
    std::printf("%-20s %-7s %3d registers\n", name, r.architecture.c_str(), r.registers);
  }
}

}  // namespace shunt::test
