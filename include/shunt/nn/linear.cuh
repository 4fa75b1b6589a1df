#pragma once
/// linear.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/linear.hpp"

#include "shunt/backend/cuda/nn/linear.cuh"
