#pragma once
/// route.hpp with its CUDA backend, so far of route() itself: pass on_cuda{stream} and device memory.
#include "shunt/route.hpp"

#include "shunt/backend/cuda/route.cuh"
