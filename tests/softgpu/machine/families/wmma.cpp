#include "machine/families/families.hpp"

namespace softgpu {

std::span<form const> wmma_family() { return {}; }

}  // namespace softgpu
