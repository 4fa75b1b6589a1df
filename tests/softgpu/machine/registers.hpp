#pragma once
// Gives every virtual register of a function its place in the frame.

#include <cstdint>
#include <vector>

#include "ptx/module.hpp"

namespace softgpu {

struct register_layout {
  std::vector<std::int32_t> offsets;  // by register index
  std::int32_t bytes = 0;             // of all rows, a multiple of 64
};

register_layout lay_out_registers(ptx::function const& f);

}  // namespace softgpu
