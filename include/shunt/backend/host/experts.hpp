#pragma once
#include "shunt/backend/host/experts_types.hpp"
#include "shunt/backend/host/pages.hpp"
#include "shunt/experts/activations.hpp"
#include "shunt/experts/gemm_operands.hpp"
#include "shunt/experts/options.hpp"

namespace shunt::detail {

template <> struct experts_backend<on_host> {
  template <class A, class W>
  using forward_job = std::conditional_t<storage<W>, host::gemm_job_for<gemm_kind::forward, A, W>,
                                         host::gemm_format_job_for<W>>;

  // Job: the kernels that a function calls, told by its name too; see gemm_job_for.
  template <storage A, weight_format W, storage C, any_activation Act,
            class Job = forward_job<A, W>>
  static status forward(on_host const& on, view<A const, 2> a, expert_matrix<W> const& w,
                        segments<> rows, view<C, 2> c, Act const& act,
                        gemm_options<> const& options) noexcept {
    host::expert_finish to;
    to.c = gemm_store_of(c, false);
    to.c.scale = gemm_scale_of(options.scale);
    to.pre = gemm_store_of(options.pre);
    to.round_pre = options.round_pre;
    to.activation = host::code_of(on, act);
    Job job(grouped_product_of(gemm_kind::forward, rows, c.extent(0), w.rows(), w.columns()),
            SHUNT_ISA_PICK(on, epilogue_forward<host::gemm_output_for<C>>), &to);
    job.a = gemm_rows_of(a, options.gather);
    job.w = gemm_weights_of(w);
    if (to.activation.gated && job.w.pairs.half_rows == 0) job.w.pairs.half_rows = w.rows() / 2;
    to.bias = gemm_bias_of(options.bias, job.w.pairs);
    job.paired = job.w.pairs.half_rows != 0;
    job.output = &to.c;
    if constexpr (storage<W>) {
      job.k_per_word = host::uses_bf16_dot(on, job) ? 2 : 1;
    } else {
      job.int8_rows = options.int8_rows;
      job.vnni = host::resolve(on.instructions) >= isa::avx512_vnni;
      bool const in_order = options.int8_rows && std::same_as<W, int8_channel>;
      job.k_per_word = !in_order ? 1 : job.vnni ? 4 : 2;
      job.tiles = in_order && host::resolve(on.instructions) == isa::amx;
    }
    host::gemm(on, job);
    return {};
  }

  template <storage D, storage W, storage A, class Job = host::gemm_job_for<gemm_kind::dgrad, D, W>>
  static status dgrad(on_host const& on, view<D const, 2> dc, expert_matrix<W> const& w,
                      segments<> rows, view<A, 2> da, dgrad_options<> const& options) noexcept {
    host::gemm_store to = gemm_store_of(da, options.accumulate);
    to.scale = gemm_scale_of(options.scale);
    Job job(grouped_product_of(gemm_kind::dgrad, rows, da.extent(0), w.rows(), w.columns()),
            SHUNT_ISA_PICK(on, epilogue_store<host::gemm_output_for<A>>), &to);
    job.a = gemm_rows_of(dc, options.gather);
    job.w = gemm_weights_of(w);
    job.output = &to;
    host::gemm(on, job);
    return {};
  }

  template <storage D, storage A, class Job = host::gemm_job_for<gemm_kind::wgrad, D, A>>
  static status wgrad(on_host const& on, view<D const, 2> dc, view<A const, 2> a, segments<> rows,
                      expert_gradient<> const& dw, wgrad_options<> const& options) noexcept {
    host::expert_grads to;
    to.dw = gemm_gradients_of(dw);
    to.d_bias = options.d_bias.data();
    to.d_bias_expert = options.d_bias.stride(0);
    to.d_bias_row = options.d_bias.stride(1);
    to.accumulate = options.accumulate;
    constexpr offset_t more_than_caches = offset_t{32} << 18;  // floats in 32 MB
    bool const nontemporal = !to.accumulate && to.dw.column_stride == 1 &&
                             dw.experts() * dw.rows() * dw.columns() > more_than_caches;
    Job job(grouped_product_of(gemm_kind::wgrad, rows, dc.extent(0), dw.rows(), dw.columns()),
            SHUNT_ISA_PICK(on, epilogue_gradient<host::gemm_output_for<D>>), &to);
    job.a = gemm_rows_of(dc, options.gather_dc, gemm_scale_of(options.scale));
    job.b = gemm_rows_of(a, options.gather_a);
    job.skip = options.frozen.data();
    job.skip_empty = options.accumulate;
    if (to.dw.column_stride == 1 && !nontemporal) job.written = &to.dw;
    job.nontemporal = nontemporal;
    host::gemm(on, job);
    return {};
  }

  template <storage W>
  static status pack(on_host const& on, expert_matrix<W> const& w, W* packed) noexcept {
    host::gemm_experts<void const> const from = gemm_weights_of(w);
    std::int64_t const N = w.rows(), K = w.columns(), panels = w.packed_panels();
    auto* const pack_panel = SHUNT_ISA_PICK(on, pack_panel<W>);
    advise_huge_pages(packed, static_cast<std::size_t>(w.packed_elements()) * sizeof(W));
    host::parallel(on, w.experts() * panels, [&](std::int64_t task, int) {
      pack_panel(from, N, K, task / panels, task % panels,
                 packed + task * expert_matrix<W>::panel * K);
    });
    return {};
  }

  template <storage Pre, storage C, any_activation Act>
  static status activate(on_host const& on, view<Pre const, 2> pre, view<C, 2> c, Act const& act,
                         activation_options<> const& options) noexcept {
    host::activation_job job;
    job.code = host::code_of(on, act);
    job.columns = c.extent(1);
    job.pre = gemm_rows_of(pre);
    job.act = gemm_store_of(c, false);
    job.scale = gemm_scale_of(options.scale);
    run_rows(on, job, rows_in_use(options.rows, c.extent(0)),
             SHUNT_ISA_PICK(on, activate_rows<host::activation_job>));
    return {};
  }

  template <storage D, storage Pre, storage Out, any_activation Act>
  static status activate_backward(on_host const& on, view<D const, 2> d_act, view<Pre const, 2> pre,
                                  view<Out, 2> d_pre, Act const& act,
                                  activation_options<> const& options) noexcept {
    host::activation_job job;
    job.code = host::code_of(on, act);
    job.columns = d_act.extent(1);
    job.pre = gemm_rows_of(pre);
    job.d_act = gemm_rows_of(d_act);
    job.d_pre = gemm_store_of(d_pre, false);
    job.act = gemm_store_of(options.act);
    job.scale = gemm_scale_of(options.scale);
    job.d_scale = options.d_scale.data();
    run_rows(on, job, rows_in_use(options.rows, d_pre.extent(0)),
             SHUNT_ISA_PICK(on, activate_rows_backward<host::activation_job>));
    return {};
  }

 private:
  static offset_t rows_in_use(segments<> rows, offset_t all) noexcept {
    return rows.offset ? rows.offset[rows.experts()] : all;
  }
  static void run_rows(on_host const& on, host::activation_job const& job, offset_t rows,
                       void (*run)(host::activation_job const&, std::int64_t,
                                   std::int64_t) noexcept) noexcept {
    offset_t const grain = job.columns > 0 ? (16384 + job.columns - 1) / job.columns : rows;
    host::parallel_ranges(on, rows, grain, [&](std::int64_t first, std::int64_t last, int) {
      run(job, first, last);
    });
  }
};

}  // namespace shunt::detail
