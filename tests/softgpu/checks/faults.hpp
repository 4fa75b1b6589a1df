#pragma once
// Where the machine tells of a wrong program. Every check comes through here.

#include <string>

#include "machine/block.hpp"
#include "softgpu/softgpu.hpp"

namespace softgpu {

/// Reports a fault of the lowest lane of `lanes` at an op, with kernel, block, thread, PTX line and
/// source line. What the program may not survive on a device (see fatal()) also ends the launch.
void raise_fault(warp& w, op const& o, lane_mask lanes, fault what, std::string const& sentence);

/// No warp of the block can go on: says where each waits, and ends the launch.
void report_deadlock(block& b);

/// The watchdog: a thread of the launch has exited, or it begins; and whether none has for so long
/// that the launch is reported, with where each warp of this block stands, and ended.
void note_progress(launch& l);
bool ended_as_hung(block& b);

/// Whether a real device ends the kernel at such a fault.
bool fatal(fault what);

}  // namespace softgpu
