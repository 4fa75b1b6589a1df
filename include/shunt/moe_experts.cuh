#pragma once
/// moe_experts.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/moe_experts.hpp"

#include "shunt/backend/cuda/layer.cuh"
#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/experts.cuh"
