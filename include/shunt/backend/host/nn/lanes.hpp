#pragma once
#include <type_traits>
#include <utility>

#include "shunt/backend/host/simd/regions.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/nn/lanes.inl"
#include "shunt/backend/host/simd/for_each_region.inl"
