#pragma once
/// projection.hpp with its CUDA backend, which brings the GEMM along and so stands apart from
/// route.cuh: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/gate_projection.hpp"

#include "shunt/backend/cuda/route/projection.cuh"
