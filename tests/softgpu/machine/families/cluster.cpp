#include "machine/families/families.hpp"

namespace softgpu {

std::span<form const> cluster_family() { return {}; }

}  // namespace softgpu
