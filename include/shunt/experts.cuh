#pragma once
/// experts.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/experts.hpp"

#include "shunt/backend/cuda/experts.cuh"
