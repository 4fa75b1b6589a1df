#pragma once
#include <algorithm>
#include <cstdio>

#include "shunt/backend/cuda/gemm/floats.cuh"
#include "shunt/backend/cuda/gemm/mma.cuh"

/// Which kernel computes a product, in tiles of which size: a function of the policy, the types and the
/// shape. Results do not depend on the size.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

struct gemm_choice {
  bool tensor_cores = false;
  element_type type = element_type::f32;  ///< what the tensor cores multiply
  int rows = 16, columns = 128, terms = 16, stages = 2, threads = 256;
  std::size_t shared_bytes = 0;

  /// The choice as text, as snprintf would.
  int print(char* to, std::size_t bytes) const noexcept {
    char const* const with = !tensor_cores                ? "fma in float"
                             : type == element_type::f32  ? "tf32 tensor cores"
                             : type == element_type::bf16 ? "bf16 tensor cores"
                                                          : "fp16 tensor cores";
    return std::snprintf(to, bytes,
                         "%s, tiles of %d x %d, %d terms a step, %d steps in shared memory "
                         "(%zu bytes), %d threads",
                         with, rows, columns, terms, stages, shared_bytes, threads);
  }
};

/// Rows of a tile: the least of 16, 64 and 128 that takes the rows of an expert as the host can guess
/// them: as the caller expects them, else the most there can be over the experts that are here.
inline int tile_rows_of(gemm_job const& job) noexcept {
  offset_t const each =
      job.expected > 0 ? job.expected : job.rows / std::max<index_t>(1, job.experts);
  offset_t const rows = job.kind == gemm_kind::wgrad ? job.n : each;
  return rows <= 16 ? 16 : rows <= 64 ? 64 : 128;
}

/// Tensor cores multiply two of one type, and no row factors.
inline bool takes_tensor_cores(on_cuda const& on, gemm_job const& job) noexcept {
  element_type const right = job.kind == gemm_kind::wgrad ? job.b.type : job.w.type;
  if (on.products == arithmetic::exact || job.a.type != right) return false;
  if (job.kind == gemm_kind::wgrad && job.a.scale.factor != nullptr) return false;
  return right != element_type::f32 || on.products == arithmetic::tf32;
}

inline gemm_choice choice_of(on_cuda const& on, gemm_job const& job) noexcept {
  gemm_choice c;
  c.rows = tile_rows_of(job);
  auto const with = [&](auto rows) {
    constexpr int Rows = rows.value;
    if (!c.tensor_cores) {
      c.columns = float_columns, c.terms = float_terms, c.threads = float_threads;
      c.shared_bytes = sizeof(float_shared<Rows>);
      return;
    }
    bool const floats = c.type == element_type::f32;
    c.columns = tensor_columns, c.threads = tensor_threads;
    c.terms = panel_line / (floats ? 4 : 2);
    c.stages = tensor_shape<Rows>::stages;
    c.shared_bytes =
        floats ? sizeof(tensor_shared<float, Rows>) : sizeof(tensor_shared<bf16, Rows>);
  };
  c.tensor_cores = takes_tensor_cores(on, job);
  c.type = job.a.type;
  switch (c.rows) {
    case 16: with(std::integral_constant<int, 16>{}); break;
    case 64: with(std::integral_constant<int, 64>{}); break;
    default: with(std::integral_constant<int, 128>{});
  }
  return c;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
