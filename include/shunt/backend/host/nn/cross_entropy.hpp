#pragma once
#include "shunt/backend/host/gemm_dense.hpp"
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

struct cross_entropy_args {
  float* logits;
  offset_t logits_row;
  index_t const* target;
  offset_t target_step;
  float* loss;
  offset_t loss_step, vocabulary;
  float scale;
};

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/cross_entropy_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

// Tokens whose logits are in memory at a time. It stands in the order of d_weight's sums, so it is
// fixed; 256 rows fill the GEMM's blocks and keep 1 KB of logits a token of a byte vocabulary in L2.
inline constexpr offset_t cross_entropy_chunk = 256;

struct cross_entropy_scratch {
  float *logits, *loss;
};
inline cross_entropy_scratch carve_cross_entropy(arena<>& a, offset_t tokens,
                                                 offset_t vocabulary) noexcept {
  offset_t const chunk = tokens < cross_entropy_chunk ? tokens : cross_entropy_chunk;
  return {.logits = a.take<float>(chunk * vocabulary), .loss = a.take<float>(tokens)};
}

inline void cross_entropy_rows(on_host const& on, cross_entropy_args const& a, offset_t tokens,
                               bool wanted) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::cross_entropy_rows);
  parallel_ranges(on, tokens, 16,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last, wanted); });
}

template <class T> struct cross_entropy_job {
  view<T const, 2> x, weight;
  view<index_t const, 1> target;
  float* loss;  // [T], contiguous
  view<T, 2> d_x;
  view<float, 2> d_weight;
  bool accumulate;
  float scale;
};

template <class T>
void cross_entropy(on_host const& on, cross_entropy_job<T> const& job, float* logits) noexcept {
  offset_t const tokens = job.x.extent(0), vocabulary = job.weight.extent(0);
  bool const wanted = job.d_x.data() != nullptr || job.d_weight.data() != nullptr;
  for (offset_t first = 0; first < tokens; first += cross_entropy_chunk) {
    offset_t const left = tokens - first;
    offset_t const rows = left < cross_entropy_chunk ? left : cross_entropy_chunk;
    view<T const, 2> const x = job.x.slice(first, rows);
    view<float, 2> const z(logits, {{rows, vocabulary}});
    dense(on, x, job.weight, z);
    cross_entropy_rows(on,
                       {logits, vocabulary, job.target.data() + first * job.target.stride(0),
                        job.target.stride(0), job.loss + first, 1, vocabulary, job.scale},
                       rows, wanted);
    view<float const, 2> const d_z = z;
    if (job.d_x.data() != nullptr) { dense_dgrad(on, d_z, job.weight, job.d_x.slice(first, rows)); }
    if (job.d_weight.data() != nullptr) {
      dense_wgrad(on, d_z, x, job.d_weight, job.accumulate || first > 0);
    }
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
