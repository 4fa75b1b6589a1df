#pragma once
#include "shunt/backend/host/experts_types.hpp"
#include "shunt/experts/activations.hpp"
#include "shunt/experts/options.hpp"

namespace shunt::detail {

template <> struct experts_on<on_host> {
  using scale_type = row_scale<space::host>;
  using gather_type = gathered<space::host>;

  template <storage A, storage W, storage C, any_activation Act>
  static void forward(on_host const& on, view<A const, 2> a, expert_matrix<W> const& w,
                      segments<> rows, view<C, 2> c, Act const& act,
                      gemm_options<> const& options) noexcept {
    host::expert_finish to;
    to.c = {c.data(), stored_as<C>, c.stride(0), false, scale_of(options.scale)};
    to.pre = {options.pre.data(), options.pre.type(), options.pre.stride(0), false, {}};
    to.bias.data = options.bias.data();
    to.bias.each = options.bias.pointers();
    to.bias.type = options.bias.type();
    to.bias.expert_stride = options.bias.stride(0);
    to.bias.row_stride = options.bias.stride(1);
    to.round_pre = options.round_pre;
    to.activation = host::code_of(on, act);
    host::gemm_job job = job_of(host::gemm_kind::forward, rows, w.rows(), w.columns());
    job.a = rows_of(a, options.gather, {});
    job.w = weights_of(w);
    if (to.activation.gated && job.w.pairs.half_rows == 0) job.w.pairs.half_rows = w.rows() / 2;
    to.bias.pairs = job.w.pairs;
    job.paired = job.w.pairs.half_rows != 0;
    job.finish = SHUNT_ISA_PICK(on, finish_forward<host::gemm_job>);
    job.finish_context = &to;
    host::gemm(on, job);
  }

  template <storage D, storage W, storage A>
  static void dgrad(on_host const& on, view<D const, 2> dc, expert_matrix<W> const& w,
                    segments<> rows, view<A, 2> da, dgrad_options<> const& options) noexcept {
    host::gemm_store const to{da.data(), stored_as<A>, da.stride(0), options.add,
                              scale_of(options.scale)};
    host::gemm_job job = job_of(host::gemm_kind::dgrad, rows, w.rows(), w.columns());
    job.a = rows_of(dc, options.gather, {});
    job.w = weights_of(w);
    job.finish = SHUNT_ISA_PICK(on, finish_store<host::gemm_job>);
    job.finish_context = &to;
    host::gemm(on, job);
  }

  template <storage D, storage A>
  static void wgrad(on_host const& on, view<D const, 2> dc, view<A const, 2> a, segments<> rows,
                    expert_gradient<> const& dw, wgrad_options<> const& options) noexcept {
    host::expert_grads to;
    to.dw.data = dw.data();
    to.dw.each = reinterpret_cast<void* const*>(dw.pointers());
    strides_of(dw, to.dw);
    to.d_bias = options.d_bias.data();
    to.d_bias_expert = options.d_bias.stride(0);
    to.d_bias_row = options.d_bias.stride(1);
    to.add = options.add;
    host::gemm_job job = job_of(host::gemm_kind::wgrad, rows, dw.rows(), dw.columns());
    job.a = rows_of(dc, options.gather_dc, scale_of(options.scale));
    job.b = rows_of(a, options.gather_a, {});
    job.skip = options.frozen.data();
    job.skip_empty = options.add;
    job.finish = SHUNT_ISA_PICK(on, finish_gradient<host::gemm_job>);
    job.finish_context = &to;
    host::gemm(on, job);
  }

  template <storage W>
  static void pack(on_host const& on, expert_matrix<W> const& w, W* packed) noexcept {
    host::gemm_experts<void const> const from = weights_of(w);
    std::int64_t const outs = w.rows(), ins = w.columns(), panels = w.packed_panels();
    auto* const pack_panel = SHUNT_ISA_PICK(on, pack_panel<W>);
    host::parallel(on, w.experts() * panels, [&](std::int64_t task, int) {
      pack_panel(from, outs, ins, task / panels, task % panels,
                 packed + task * expert_matrix<W>::panel * ins);
    });
  }

  template <storage Pre, storage C, any_activation Act>
  static void activate(on_host const& on, view<Pre const, 2> pre, view<C, 2> c, Act const& act,
                       activation_options<> const& options) noexcept {
    host::activation_job job;
    job.code = host::code_of(on, act);
    job.columns = c.extent(1);
    job.pre = rows_of(pre, {}, {});
    job.act = {c.data(), stored_as<C>, c.stride(0), false, {}};
    job.scale = scale_of(options.scale);
    run_rows(on, job, rows_in_use(options.rows, c.extent(0)),
             SHUNT_ISA_PICK(on, activate_rows<host::activation_job>));
  }

  template <storage D, storage Pre, storage Out, any_activation Act>
  static void activate_backward(on_host const& on, view<D const, 2> d_act, view<Pre const, 2> pre,
                                view<Out, 2> d_pre, Act const& act,
                                activation_options<> const& options) noexcept {
    host::activation_job job;
    job.code = host::code_of(on, act);
    job.columns = d_act.extent(1);
    job.pre = rows_of(pre, {}, {});
    job.d_act = rows_of(d_act, {}, {});
    job.d_pre = {d_pre.data(), stored_as<Out>, d_pre.stride(0), false, {}};
    job.act = {options.act.data(), options.act.type(), options.act.stride(0), false, {}};
    job.scale = scale_of(options.scale);
    job.d_scale = options.d_scale.data();
    run_rows(on, job, rows_in_use(options.rows, d_pre.extent(0)),
             SHUNT_ISA_PICK(on, activate_rows_backward<host::activation_job>));
  }

 private:
  static host::gemm_job job_of(host::gemm_kind kind, segments<> rows, offset_t outs,
                               offset_t ins) noexcept {
    host::gemm_job job;
    job.kind = kind;
    job.experts = rows.experts();
    job.offset = rows.offset.data();
    job.outs = outs;
    job.ins = ins;
    return job;
  }
  static host::gemm_scale scale_of(scale_type const& scale) noexcept {
    return {scale.factor.data(), scale.slot.data()};
  }
  template <storage T>
  static host::gemm_rows rows_of(view<T const, 2> x, gather_type const& gather,
                                 host::gemm_scale scale) noexcept {
    return {x.data(), stored_as<T>, x.stride(0), gather.slot.data(), gather.top_k, scale};
  }
  template <class Element, class Void>
  static void strides_of(basic_expert_matrix<Element> const& m,
                         host::gemm_experts<Void>& to) noexcept {
    to.expert_stride = m.stride(0);
    to.row_stride = m.stride(1);
    to.column_stride = m.stride(2);
    to.packed = m.is_packed();
    if (m.has_pairs()) {
      to.pairs = {m.rows() / 2, m.pairs().block, m.pairs().order == pair_order::up_gate};
    }
  }
  template <storage W>
  static host::gemm_experts<void const> weights_of(expert_matrix<W> const& w) noexcept {
    host::gemm_experts<void const> to;
    to.data = w.data();
    to.each = reinterpret_cast<void const* const*>(w.pointers());
    to.type = stored_as<W>;
    strides_of(w, to);
    return to;
  }
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
