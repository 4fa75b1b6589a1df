#pragma once
/// counter.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/counter.hpp"

#include "shunt/backend/cuda/counter.cuh"
