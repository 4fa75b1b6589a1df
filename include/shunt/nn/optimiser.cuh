#pragma once
/// optimiser.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/optimiser.hpp"

#include "shunt/backend/cuda/nn/optimiser.cuh"
