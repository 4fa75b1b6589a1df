// An architecture that is too old is told in one sentence.
// nvcc-refuses: -std=c++20 -gencode arch=compute_75,code=compute_75
// nvcc-accepts: -std=c++20 -gencode arch=compute_80,code=compute_80
// expect-error: Shunt's kernels need sm_80 or newer
#include <shunt/stats.cuh>
