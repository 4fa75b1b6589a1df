// The stages of _cuda that work row by row: the bindings' own sources, on CUDA.
#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/route.cuh"
#include "shunt/stats.cuh"
//
#include "combine.cpp"
#include "dispatch.cpp"
#include "losses.cpp"
#include "route.cpp"
#include "stats.cpp"
