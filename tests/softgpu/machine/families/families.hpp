#pragma once
// The instruction families, one file each. Those whose work is a loop over 32 lanes are compiled
// once per instruction set (SOFTGPU_ISA names it) and the best one is chosen at run time.

#include <span>
#include <vector>

#include "machine/form.hpp"

namespace softgpu {

std::vector<std::span<form const>> all_families();

#define SOFTGPU_VECTOR_FAMILIES \
  std::span<form const> integer(); \
  std::span<form const> bits(); \
  std::span<form const> real(); \
  std::span<form const> compare(); \
  std::span<form const> convert(); \
  std::span<form const> move();
namespace baseline { SOFTGPU_VECTOR_FAMILIES }
namespace avx2 { SOFTGPU_VECTOR_FAMILIES }
namespace avx512 { SOFTGPU_VECTOR_FAMILIES }
#undef SOFTGPU_VECTOR_FAMILIES

std::span<form const> rounding_family();
std::span<form const> half_family();
std::span<form const> narrow_family();
std::span<form const> special_family();
std::span<form const> memory_family();
std::span<form const> atomic_family();
std::span<form const> control_family();
std::span<form const> barrier_family();
std::span<form const> warp_family();

}  // namespace softgpu
