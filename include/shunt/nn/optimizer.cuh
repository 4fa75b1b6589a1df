#pragma once
/// optimizer.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/optimizer.hpp"

#include "shunt/backend/cuda/nn/optimizer.cuh"
