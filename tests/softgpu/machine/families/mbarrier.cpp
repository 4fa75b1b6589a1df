#include "machine/families/families.hpp"

namespace softgpu {

std::span<form const> mbarrier_family() { return {}; }

}  // namespace softgpu
