#pragma once
/// route.hpp with its CUDA backend, the gate projection apart: pass on_cuda{stream} and device memory.
#include "shunt/route.hpp"

#include "shunt/backend/cuda/route.cuh"
#include "shunt/backend/cuda/route_backward.cuh"
#include "shunt/backend/cuda/route_balance.cuh"
#include "shunt/backend/cuda/route_expert_choice.cuh"
