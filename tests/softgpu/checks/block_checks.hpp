#pragma once
// What the checks keep per block: made when a block begins, looked at when it ends.

#include "machine/block.hpp"

namespace softgpu::checks {

/// Fills shared memory and registers with a pattern nobody relies on, and resets its shadow.
void begin_block(block& b);
void end_block(block& b);

}  // namespace softgpu::checks
