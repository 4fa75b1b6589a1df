#pragma once
/// combine.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/combine.hpp"

#include "shunt/backend/cuda/combine.cuh"
