#pragma once
// The instruction families, one file each. The vector families are compiled once per instruction
// set (SOFTGPU_ISA names it) and the best one is chosen at run time.

#include <span>
#include <vector>

#include "machine/families/vector_families.hpp"
#include "machine/form.hpp"

namespace softgpu {

std::vector<std::span<form const>> all_families();

std::span<form const> carry_family();
std::span<form const> rounding_family();
std::span<form const> half_family();
std::span<form const> narrow_family();
std::span<form const> special_family();
std::span<form const> memory_family();
std::span<form const> space_family();
std::span<form const> atomic_family();
std::span<form const> control_family();
std::span<form const> barrier_family();
std::span<form const> warp_family();
std::span<form const> matrix_family();
std::span<form const> async_family();
std::span<form const> mbarrier_family();
std::span<form const> wmma_family();
std::span<form const> cluster_family();

}  // namespace softgpu
