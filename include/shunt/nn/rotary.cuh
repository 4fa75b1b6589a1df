#pragma once
/// rotary.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/rotary.hpp"

#include "shunt/backend/cuda/nn/rotary.cuh"
