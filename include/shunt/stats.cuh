#pragma once
/// stats.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/stats.hpp"

#include "shunt/backend/cuda/stats.cuh"
