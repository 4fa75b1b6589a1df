#pragma once
/// model.hpp with its CUDA backend: pass on_cuda{stream} and device memory.
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/nn/model.hpp"

#include "shunt/backend/cuda/nn/model.cuh"
#include "shunt/nn/block.cuh"
#include "shunt/nn/cross_entropy.cuh"
#include "shunt/nn/embedding.cuh"
#include "shunt/nn/optimizer.cuh"
