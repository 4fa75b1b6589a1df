#pragma once
#include <type_traits>
#include <utility>

#include "shunt/backend/host/regions.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/nn/lanes.inl"
#include "shunt/backend/host/for_each_region.inl"
