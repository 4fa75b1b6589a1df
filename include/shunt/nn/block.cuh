#pragma once
/// block.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/block.hpp"

#include "shunt/backend/cuda/nn/block.cuh"
#include "shunt/layer.cuh"
#include "shunt/nn/attention.cuh"
#include "shunt/nn/kv_cache.cuh"
#include "shunt/nn/linear.cuh"
#include "shunt/nn/norm.cuh"
#include "shunt/nn/rotary.cuh"
