#pragma once
/// cross_entropy.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/cross_entropy.hpp"

#include "shunt/backend/cuda/nn/cross_entropy.cuh"
#include "shunt/nn/linear.cuh"
