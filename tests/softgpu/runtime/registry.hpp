#pragma once
// What the binary registered before main: fat binaries, kernels and variables.

#include <cstdint>
#include <memory>
#include <string>

#include "machine/program.hpp"

namespace softgpu::registry {

/// The kernel behind a host function's address; null where none was registered there. Throws
/// ptx::error where its module cannot be read or it needs something unsupported.
kernel const* find_kernel(void const* host_function);

struct device_variable {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  bool constant = false;
};
/// The variable behind a host shadow's address; address 0 where none was registered there.
device_variable find_variable(void const* host_shadow);

/// The PTX text in a fat binary's container; throws std::runtime_error where there is none.
std::string ptx_of(void const* container);

}  // namespace softgpu::registry
