// So is a language that is too old, before anything in the headers stumbles over it.
// nvcc-refuses: -std=c++17 -gencode arch=compute_80,code=compute_80
// nvcc-accepts: -std=c++20 -gencode arch=compute_80,code=compute_80
// expect-error: Shunt needs C++20: compile with nvcc -std=c++20
#include <shunt/stats.cuh>
