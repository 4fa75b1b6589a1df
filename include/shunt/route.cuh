#pragma once
/// route.hpp with its CUDA backend: pass on_cuda{stream} and device memory. The gate projection comes
/// with layer.cuh, as it needs the grouped GEMM.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/route.hpp"

#include "shunt/backend/cuda/route/backward.cuh"
#include "shunt/backend/cuda/route/balance.cuh"
#include "shunt/backend/cuda/route/expert_choice.cuh"
#include "shunt/backend/cuda/route/forward.cuh"
