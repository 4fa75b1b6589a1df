#pragma once
// The numbers of launch_counts by name: what adds, prints or writes all of them goes through here.

#include "softgpu/softgpu.hpp"

namespace softgpu::counters {

struct field {
  char const* name;
  std::uint64_t launch_counts::*value;
};

inline constexpr field fields[] = {
#define SOFTGPU_FIELD(name) {#name, &launch_counts::name}
    SOFTGPU_FIELD(launches),
    SOFTGPU_FIELD(warp_instructions),
    SOFTGPU_FIELD(lane_instructions),
    SOFTGPU_FIELD(integer),
    SOFTGPU_FIELD(real),
    SOFTGPU_FIELD(special),
    SOFTGPU_FIELD(mma),
    SOFTGPU_FIELD(memory),
    SOFTGPU_FIELD(control),
    SOFTGPU_FIELD(convert),
    SOFTGPU_FIELD(move),
    SOFTGPU_FIELD(divergent_branches),
    SOFTGPU_FIELD(barriers),
    SOFTGPU_FIELD(bytes_read),
    SOFTGPU_FIELD(bytes_written),
    SOFTGPU_FIELD(bytes_atomic),
    SOFTGPU_FIELD(sectors_read),
    SOFTGPU_FIELD(sectors_written),
    SOFTGPU_FIELD(sectors_atomic),
    SOFTGPU_FIELD(least_sectors_read),
    SOFTGPU_FIELD(least_sectors_written),
    SOFTGPU_FIELD(least_sectors_atomic),
    SOFTGPU_FIELD(unique_bytes_read),
    SOFTGPU_FIELD(unique_bytes_written),
    SOFTGPU_FIELD(local_bytes),
    SOFTGPU_FIELD(shared_accesses),
    SOFTGPU_FIELD(shared_wavefronts),
    SOFTGPU_FIELD(bank_conflicts),
#undef SOFTGPU_FIELD
};

}  // namespace softgpu::counters
