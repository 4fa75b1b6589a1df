#pragma once
// What the checks found, and where reports go.

#include <cstdint>
#include <string>
#include <vector>

#include "softgpu/softgpu.hpp"

namespace softgpu {

/// Keeps a report and prints its first occurrences to stderr. Safe from any device thread.
void file_report(report r);

}  // namespace softgpu
