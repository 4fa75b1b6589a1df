#pragma once
#include "machine/warp.hpp"
namespace softgpu {
/// Performs the pending copies of these lanes, except those of each lane's last `keep` groups.
void finish_copies(warp& w, lane_mask lanes, std::uint32_t keep);
/// Performs all of them, committed or not.
void finish_all_copies(warp& w, lane_mask lanes);
}  // namespace softgpu
