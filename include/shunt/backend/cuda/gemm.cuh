#pragma once
#include <algorithm>
#include <limits>

#include "shunt/backend/cuda/gemm_finish.cuh"
#include "shunt/backend/cuda/gemm_floats.cuh"
#include "shunt/backend/cuda/launch.cuh"

/// The ladder of products: which kernel computes a job, in tiles of which height.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

/// Blocks of a persistent kernel: what the device holds at once, never more than there are tiles.
inline offset_t persistent_blocks(offset_t tiles, int per_multiprocessor) noexcept {
  int device = 0, multiprocessors = 1;
  (void)cudaGetDevice(&device);
  (void)cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  return std::min<offset_t>(tiles, offset_t{multiprocessors} * per_multiprocessor);
}

/// Rows of a tile: the least of 16, 64 and 128 that takes the rows of an expert as the host can guess
/// them. The results do not depend on it.
inline int tile_rows_of(gemm_job const& job) noexcept {
  offset_t const rows =
      job.kind == gemm_kind::wgrad ? job.outs : job.rows / std::max<index_t>(1, job.experts);
  return rows <= 16 ? 16 : rows <= 64 ? 64 : 128;
}

template <class Finish>
status gemm(on_cuda const& on, char const* who, gemm_job const& job,
            Finish const& finish) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max() - 128;
  if (job.outs > most || job.ins > most) {
    return status::fail(error::too_large,
                        "%s: the matrix has %lld rows of %lld; each must be at most %lld", who,
                        static_cast<long long>(job.outs), static_cast<long long>(job.ins),
                        static_cast<long long>(most));
  }
  auto const run = [&](auto each) {
    gemm_tiling const cut(job, 16 * each.value, float_columns);
    offset_t const blocks = persistent_blocks(cut.most(job), 2);
    return launch(on, who, blocks, float_threads, gemm_floats<each.value, Finish>, job, cut,
                  finish);
  };
  switch (tile_rows_of(job)) {
    case 16: return run(std::integral_constant<int, 1>{});
    case 64: return run(std::integral_constant<int, 4>{});
    default: return run(std::integral_constant<int, 8>{});
  }
}

/// One matrix, no experts: y[r][n] = sum over k of x[r][k] w[n][k]. add: onto what y holds.
template <storage A, storage W, storage Out>
status dense_product(on_cuda const& on, char const* who, gemm_kind kind,
                     view<A const, 2, space::device> a, view<W const, 2, space::device> w,
                     view<Out, 2, space::device> out, bool add) noexcept {
  gemm_job job;
  job.kind = kind;
  job.rows = a.extent(0);
  job.outs = w.extent(0);
  job.ins = w.extent(1);
  job.a = shunt::detail::gemm_rows_of(a);
  job.w.data = w.data();
  job.w.type = stored_as<W>;
  job.w.row_stride = w.stride(0);
  job.w.column_stride = w.stride(1);
  return gemm(on, who, job, finish_store{shunt::detail::gemm_store_of(out, add)});
}
/// dw[n][k] = sum over r of dy[r][n] x[r][k]; add: onto what dw holds.
template <storage Y, storage X>
status dense_wgrad(on_cuda const& on, char const* who, view<Y const, 2, space::device> dy,
                   view<X const, 2, space::device> x, view<float, 2, space::device> dw,
                   bool add) noexcept {
  gemm_job job;
  job.kind = gemm_kind::wgrad;
  job.rows = dy.extent(0);
  job.outs = dw.extent(0);
  job.ins = dw.extent(1);
  job.a = shunt::detail::gemm_rows_of(dy);
  job.b = shunt::detail::gemm_rows_of(x);
  return gemm(on, who, job, finish_matrix{shunt::detail::gemm_store_of(dw, add)});
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda
