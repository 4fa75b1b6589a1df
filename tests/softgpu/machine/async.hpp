#pragma once
#include "machine/warp.hpp"
namespace softgpu {
/// Performs the pending copies of these lanes, except those of each lane's last `keep` groups.
void finish_copies(warp& w, lane_mask lanes, std::uint32_t keep);
/// The lane's arrival at an mbarrier, once its copies so far are there (families/mbarrier.cpp).
void arrive_after_copies(warp& w, int lane, std::byte* object);
/// Somebody in the block asks whether a phase of the mbarrier is over: performs the copies that are
/// to arrive there, and their arrivals.
void finish_copies_for(block& b, std::byte const* object);
/// One arrival at an mbarrier.
void arrive_at(std::byte* object);
}  // namespace softgpu
