#pragma once
// The counts of one launch, for tests that look at them.

#include <softgpu/softgpu.hpp>

#include "device_array.hpp"

/// The counts of the one launch in `launch`.
template <class F> softgpu::launch_counts counts_of(F&& launch) {
  softgpu::take_counts();
  launch();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const all = softgpu::take_counts();
  EXPECT_EQ(all.size(), 1u);
  return all.at(0);
}
