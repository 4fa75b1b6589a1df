#pragma once
/// shunt.hpp with the CUDA backend: pass on_cuda{stream} and device memory where on_host and host
/// memory stood. `nn/` is not included.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/shunt.hpp"
//
#include "shunt/backend/cuda/policy.cuh"  // on_cuda
//
#include "shunt/combine.cuh"
#include "shunt/counter.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/experts.cuh"
#include "shunt/gate_projection.cuh"
#include "shunt/layer.cuh"
#include "shunt/moe_experts.cuh"
#include "shunt/route.cuh"
#include "shunt/stats.cuh"
