// The stages of _cuda that multiply: the bindings' own sources, on CUDA.
#include "shunt/layer.cuh"
//
#include "experts.cpp"
#include "layer.cpp"
#include "moe_experts.cpp"
#include "projection.cpp"
