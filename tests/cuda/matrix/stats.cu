#include "shunt/stats.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

void stats_module(on_cuda const& on) {
  (void)load_stats(on, in<index_t, 1>(), load_report<space::device>());
  (void)load_stats(on, in<std::int64_t, 1>(), load_report<space::device>());
  (void)load_stats(on, plan(), load_report<space::device>());
  (void)add_load(on, in<index_t, 1>(), out<std::int64_t, 1>());
}

}  // namespace shunt::matrix
