#pragma once
// What the checks keep per block: made when a block begins, looked at when it ends.

#include "machine/block.hpp"

namespace softgpu::checks {

/// Fills shared memory with a pattern nobody relies on, and resets its shadow.
void begin_block(block& b);
void end_block(block& b);
/// A warp arrives at a barrier; the barrier lets its waiting warps go. `whole`: it is one of all
/// the block's threads, for which those that have exited count as arrived.
void at_barrier(block& b, warp& w, int barrier);
void leave_barrier(block& b, int barrier, bool whole);
/// Lanes of a warp are at bar.warp.sync.
void warp_synced(block& b, warp const& w);

}  // namespace softgpu::checks
