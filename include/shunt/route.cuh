#pragma once
/// route.hpp with its CUDA backend: pass on_cuda{stream} and device memory. The gate projection comes
/// with layer.cuh, as it needs the grouped GEMM.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/route.hpp"

#include "shunt/backend/cuda/route.cuh"
#include "shunt/backend/cuda/route_backward.cuh"
#include "shunt/backend/cuda/route_balance.cuh"
#include "shunt/backend/cuda/route_expert_choice.cuh"
