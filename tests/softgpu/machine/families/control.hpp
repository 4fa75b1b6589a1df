#pragma once
#include "machine/op.hpp"
namespace softgpu {
/// The op behind a function's last: reaching it is a fault.
void run_off_the_end(warp& w, op const& o);
}  // namespace softgpu
