#pragma once
// What the checks' tests share: the reports of one launch, and what each of them must say.

#include <softgpu/softgpu.hpp>
#include <string>

#include "device_array.hpp"

using softgpu::fault;

inline cudaError_t& last_error() {
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

inline std::string all_of(std::vector<softgpu::report> const& found) {
  std::string out;
  for (auto const& r : found) out += r.to_string() + "\n";
  return out;
}

inline std::string file_name(std::string const& path) { return path.substr(path.rfind('/') + 1); }

/// One report, of this fault, that says where in this file.
#define EXPECT_ONE(found, fault_kind)                                        \
  ASSERT_EQ(found.size(), 1u) << all_of(found);                              \
  EXPECT_EQ(found[0].what, fault_kind) << found[0].to_string();              \
  EXPECT_EQ(file_name(found[0].file), file_name(__FILE__)) << all_of(found); \
  EXPECT_GT(found[0].line, 0);                                               \
  EXPECT_GT(found[0].ptx_line, 0)

#define EXPECT_NONE(launch)                        \
  do {                                             \
    auto const none = reports_of([&] { launch; }); \
    EXPECT_TRUE(none.empty()) << all_of(none);     \
    EXPECT_EQ(last_error(), cudaSuccess);          \
  } while (false)
