#pragma once
/// dispatch.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/dispatch.hpp"

#include "shunt/backend/cuda/dispatch.cuh"
