#pragma once
#include "shunt/backend/host/gemm/driver.hpp"
#include "shunt/core/view.hpp"

/// One matrix, no experts: what a gate projection or a linear layer needs. The same arithmetic as the
/// grouped products: one chain of fma in ascending index of the sum, from 0.0f. Arguments are not
/// checked here.
namespace shunt::host {
inline namespace SHUNT_ABI {

/// a times w or its transpose, stored to out; a and out have the same rows.
template <gemm_kind Kind, storage A, storage W, storage Out>
void dense_product(on_host const& on, view<A const, 2> a, view<W const, 2> w, view<Out, 2> out,
                   bool accumulate) noexcept {
  gemm_store const to = shunt::detail::gemm_store_of(out, accumulate);
  gemm_job_for<Kind, A, W> job(shunt::detail::dense_product_of(Kind, a, w),
                               SHUNT_ISA_PICK(on, epilogue_store<gemm_output_for<Out>>), &to);
  job.output = &to;
  gemm(on, job);
}

/// y[r][n] = sum over k of x[r][k] w[n][k]; x [R,K], w [N,K], y [R,N]. accumulate: onto what y holds.
template <storage X, storage W, storage Y>
void dense(on_host const& on, view<X const, 2> x, view<W const, 2> w, view<Y, 2> y,
           bool accumulate = false) noexcept {
  dense_product<gemm_kind::forward>(on, x, w, y, accumulate);
}

/// dx[r][k] = sum over n of dy[r][n] w[n][k]; accumulate: onto what dx holds.
template <storage Y, storage W, storage X>
void dense_dgrad(on_host const& on, view<Y const, 2> dy, view<W const, 2> w, view<X, 2> dx,
                 bool accumulate = false) noexcept {
  dense_product<gemm_kind::dgrad>(on, dy, w, dx, accumulate);
}

/// dw[n][k] = sum over r of dy[r][n] x[r][k]; accumulate: onto what dw holds.
template <storage Y, storage X>
void dense_wgrad(on_host const& on, view<Y const, 2> dy, view<X const, 2> x, view<float, 2> dw,
                 bool accumulate = false) noexcept {
  gemm_store const to = shunt::detail::gemm_store_of(dw, accumulate);
  gemm(on, gemm_job_for<gemm_kind::wgrad, Y, X>(
               shunt::detail::dense_wgrad_of(dy, x),
               SHUNT_ISA_PICK(on, epilogue_store<gemm_output_for<float>>), &to));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
