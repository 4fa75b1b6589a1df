#pragma once
#include <algorithm>
#include <limits>

#include "shunt/backend/cuda/gemm/choice.cuh"
#include "shunt/backend/cuda/gemm/epilogue.cuh"
#include "shunt/backend/cuda/gemm/floats.cuh"
#include "shunt/backend/cuda/gemm/mma.cuh"
#include "shunt/backend/cuda/launch.cuh"

/// The ladder of products: which kernel computes a job, in tiles of which height.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Blocks of a persistent kernel: what the device holds at once, never more than there are tiles.
inline offset_t persistent_blocks(offset_t tiles, int per_multiprocessor) noexcept {
  int device = 0, multiprocessors = 1;
  (void)cudaGetDevice(&device);
  (void)cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  return std::min<offset_t>(tiles, offset_t{multiprocessors} * per_multiprocessor);
}

/// Enqueues a job whose operands are Left and Right (the job says so, too), on the rung that the policy
/// asks for. The kernels of tensor cores are compiled for pairs of types that they take.
template <storage Left, storage Right, class Finish>
status gemm(on_cuda const& on, char const* who, gemm_job const& job,
            Finish const& finish) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max() - 256;
  if (job.n > most || job.k > most) {
    return status::fail(
        error::too_large, "%s: the matrix has %lld rows of %lld; each must be at most %lld", who,
        static_cast<long long>(job.n), static_cast<long long>(job.k), static_cast<long long>(most));
  }
  gemm_choice const choice = choice_of(on, job);
  gemm_tiling const cut(job, choice.rows, choice.columns);
  offset_t const blocks = persistent_blocks(cut.most(job), 2);
  auto const run = [&](auto rows) {
    constexpr int Rows = rows.value;
    if constexpr (std::same_as<Left, Right>) {
      if (choice.tensor_cores) {
        constexpr std::size_t shared = sizeof(tensor_shared<Left, Rows>);
        return launch_shared(on, who, blocks, choice.threads, shared, shared,
                             gemm_tensor<Left, Rows, Finish>, job, cut, finish);
      }
    }
    return launch(on, who, blocks, choice.threads, gemm_floats<Rows / 16, Finish>, job, cut,
                  finish);
  };
  switch (choice.rows) {
    case 16: return run(std::integral_constant<int, 16>{});
    case 64: return run(std::integral_constant<int, 64>{});
    default: return run(std::integral_constant<int, 128>{});
  }
}

/// One matrix, no experts: y[r][n] = sum over k of x[r][k] w[n][k]. accumulate: onto what y holds.
template <storage A, storage W, storage Out>
status dense_product(on_cuda const& on, char const* who, gemm_kind kind,
                     view<A const, 2, space::device> a, view<W const, 2, space::device> w,
                     view<Out, 2, space::device> out, bool accumulate) noexcept {
  return gemm<A, W>(on, who, shunt::detail::dense_product_of(kind, a, w),
                    epilogue_store{shunt::detail::gemm_store_of(out, accumulate)});
}
/// dw[n][k] = sum over r of dy[r][n] x[r][k]; accumulate: onto what dw holds.
template <storage Y, storage X>
status dense_wgrad(on_cuda const& on, char const* who, view<Y const, 2, space::device> dy,
                   view<X const, 2, space::device> x, view<float, 2, space::device> dw,
                   bool accumulate) noexcept {
  return gemm<Y, X>(on, who, shunt::detail::dense_wgrad_of(dy, x),
                    epilogue_store{shunt::detail::gemm_store_of(dw, accumulate)});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
