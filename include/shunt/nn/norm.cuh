#pragma once
/// norm.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/norm.hpp"

#include "shunt/backend/cuda/nn/norm.cuh"
