// What a project's CUDA source does: it includes a header and enqueues something.
#include <shunt/stats.cuh>

static_assert(__cplusplus >= 202002L);

shunt::status figures(cudaStream_t stream, shunt::dispatch_plan<shunt::space::device> const& plan,
                      shunt::load_report<shunt::space::device> const& out) {
  return shunt::load_stats(shunt::on_cuda{stream}, plan, out);
}
