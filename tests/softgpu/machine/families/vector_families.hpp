#pragma once
// The families whose work is a loop over 32 lanes: compiled once per instruction set.

#include <span>

#include "machine/form.hpp"
#include "machine/lane_tools.hpp"

namespace softgpu {

#define SOFTGPU_VECTOR_FAMILIES    \
  std::span<form const> integer(); \
  std::span<form const> bits();    \
  std::span<form const> real();    \
  std::span<form const> compare(); \
  std::span<form const> convert(); \
  std::span<form const> move();    \
  std::span<form const> mma();     \
  lane_tools tools();
namespace baseline {
SOFTGPU_VECTOR_FAMILIES
}
namespace avx2 {
SOFTGPU_VECTOR_FAMILIES
}
namespace avx512 {
SOFTGPU_VECTOR_FAMILIES
}
#undef SOFTGPU_VECTOR_FAMILIES

}  // namespace softgpu
