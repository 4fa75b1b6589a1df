#pragma once
/// embedding.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/embedding.hpp"

#include "shunt/backend/cuda/nn/embedding.cuh"
