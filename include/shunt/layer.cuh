#pragma once
/// layer.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/layer.hpp"

#include "shunt/backend/cuda/layer.cuh"
#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/experts.cuh"
#include "shunt/gate_projection.cuh"
#include "shunt/route.cuh"
#include "shunt/stats.cuh"
