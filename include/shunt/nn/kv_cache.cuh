#pragma once
/// kv_cache.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/kv_cache.hpp"

#include "shunt/backend/cuda/nn/attention.cuh"
