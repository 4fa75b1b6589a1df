#pragma once
// The checks of a memory access: bounds, freed memory, alignment, unwritten bytes, races; and the
// memory counters. Each returns the lanes that may go ahead and has reported the others.

#include "memory/access.hpp"

namespace softgpu::checks {

/// All 32 lanes on [first, first + span): true where nothing is wrong with any of it. On false
/// nothing has been reported: global_lanes looks at it lane by lane.
bool global_span(access& a, std::uint64_t first, std::uint64_t span);
lane_mask global_lanes(access& a);
lane_mask shared_lanes(access& a);
lane_mask local_lanes(access& a);
/// Unwritten bytes of local memory, for lanes whose addresses are in bounds (local_checks.cpp).
void local_touch(access& a, lane_mask good);
/// Unwritten bytes of shared memory and races on it, for lanes whose addresses are in bounds
/// (shared_races.cpp). `row`: all 32 lanes, one after the other.
void shared_touch(access& a, lane_mask good, bool row);
/// The bytes of a store that was to come later are there.
void shared_arrive(block& b, std::ptrdiff_t offset, unsigned bytes);

}  // namespace softgpu::checks
