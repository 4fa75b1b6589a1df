#pragma once
#include "softgpu/softgpu.hpp"
namespace softgpu {
/// Whether a finding is one that a widely used library makes on purpose and that does no harm.
bool known_harmless(report const& r);
}  // namespace softgpu
