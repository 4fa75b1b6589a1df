#pragma once
#include "shunt/backend/cuda/gemm/driver.cuh"
#include "shunt/experts/activations.hpp"
#include "shunt/experts/gemm_operands.hpp"
#include "shunt/experts/options.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// d_bias[n] (+)= sum of the expert's rows of dc, in row order: a thread has one n of one expert.
SHUNT_KERNEL void bias_gradients(gemm_job job, gemm_pairs pairs,
                                 view<float, 2, space::device> d_bias, bool accumulate) {
  offset_t const all = job.experts * job.n;
  for (offset_t at = grid_thread(); at < all; at += grid_threads()) {
    offset_t const e = at / job.n, n = at % job.n;
    offset_t const first = job.offset[e], last = job.offset[e + 1];
    if ((job.skip != nullptr && job.skip[e] != 0) || (job.skip_empty && first == last)) continue;
    float sum = 0.0f;
    for (offset_t r = first; r < last; ++r) {
      void const* const line = line_of(job.a, r);
      if (line == nullptr) continue;
      float const x = element_at(job.a.type, line, n);
      sum = job.a.scale.factor != nullptr ? __fmaf_rn(scale_of(job.a.scale, r), x, sum)
                                          : __fadd_rn(sum, x);
    }
    float& to = d_bias(e, physical_row(pairs, n));
    to = accumulate ? __fadd_rn(to, sum) : sum;
  }
}

/// One packed panel's element a thread.
template <class T>
SHUNT_KERNEL void pack_elements(gemm_experts<void const> from, offset_t experts, offset_t N,
                                offset_t K, offset_t panels, T* packed) {
  offset_t const half = from.pairs.half_rows, most = half != 0 ? half : N;
  offset_t const half_panels = (half + gemm_panel - 1) / gemm_panel;
  offset_t const all = experts * panels * K * gemm_panel;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) {
    offset_t const lane = i % gemm_panel, k = i / gemm_panel % K;
    offset_t const panel = i / gemm_panel / K % panels, e = i / gemm_panel / K / panels;
    bool const up = half != 0 && panel >= half_panels;
    offset_t const n = (up ? panel - half_panels : panel) * gemm_panel + lane;
    T value{};
    if (n < most) { value = row_of<T const>(from, e, (up ? half : 0) + n)[k * from.column_stride]; }
    packed[i] = value;
  }
}

/// Activations by rows: pre [R, columns or 2 columns], all else [R, columns].
template <class Act> struct activation_job {
  Act act;
  index_t const* in_use = nullptr;  ///< the end of the last segment; null: all rows
  offset_t rows = 0, columns = 0;
  gemm_rows pre{}, d_act{};
  gemm_store d_pre{}, out{};
  gemm_scale scale{};
  float* d_scale = nullptr;
  offset_t d_scale_stride = 1;
};

/// out = activation(pre) times the row's factor.
template <class Act> SHUNT_KERNEL void activate_rows(activation_job<Act> job) {
  offset_t const rows = job.in_use != nullptr ? *job.in_use : job.rows;
  for (offset_t i = grid_thread(); i < rows * job.columns; i += grid_threads()) {
    offset_t const r = i / job.columns, c = i % job.columns;
    float const gate = element(job.pre, r, c);
    float const up = job.act.gated() ? element(job.pre, r, job.columns + c) : gate;
    put(job.out, r, c, __fmul_rn(job.act.value(gate, up), scale_of(job.scale, r)));
  }
}

/// The gradients: a warp has one row.
template <class Act> SHUNT_KERNEL void activate_rows_backward(activation_job<Act> job) {
  offset_t const rows = job.in_use != nullptr ? *job.in_use : job.rows;
  epilogue_activation<Act> const gradients{job.act, job.pre, job.d_pre, job.out, job.scale};
  for (offset_t r = grid_warp(); r < rows; r += grid_warps()) {
    float dot = 0.0f;
    for (offset_t base = 0; base < job.columns; base += warp_lanes) {
      offset_t const c = base + lane_of_thread();
      bool const inside = c < job.columns;
      float const product =
          inside ? gradients.at(r, c, job.columns, element(job.d_act, r, c)) : 0.0f;
      dot = __fadd_rn(dot, warp_sum(product));
    }
    if (job.d_scale != nullptr && lane_of_thread() == 0) {
      job.d_scale[r * job.d_scale_stride] = dot;
    }
  }
}

/// d_scale of rows whose products were summed by 32 columns: those sums in ascending order.
SHUNT_KERNEL void add_activation_parts(view<float const, 2, space::device> parts,
                                       index_t const* in_use,
                                       view<float, 1, space::device> d_scale) {
  offset_t const rows = *in_use;
  for (offset_t r = grid_thread(); r < rows; r += grid_threads()) {
    float sum = 0.0f;
    for (offset_t i = 0; i < parts.extent(1); ++i) sum = __fadd_rn(sum, parts(r, i));
    d_scale[r] = sum;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct experts_backend<on_cuda> {
  static constexpr space S = space::device;
  template <class T, int Rank> using memory = view<T, Rank, S>;

  template <storage A, storage W, storage C, any_activation Act>
  static status forward(on_cuda const& on, memory<A const, 2> a, expert_matrix<W, S> const& w,
                        segments<S> rows, memory<C, 2> c, Act const& act,
                        gemm_options<S> const& options) noexcept {
    cuda::gemm_job job =
        grouped_product_of(gemm_kind::forward, rows, c.extent(0), w.rows(), w.columns());
    job.a = gemm_rows_of(a, options.gather);
    job.w = gemm_weights_of(w);
    auto const own = cuda::activation_of(act);
    if (own.gated() && job.w.pairs.half_rows == 0) job.w.pairs.half_rows = w.rows() / 2;
    job.paired = job.w.pairs.half_rows != 0;
    cuda::epilogue_forward<std::remove_const_t<decltype(own)>> to{.act = own};
    to.c = gemm_store_of(c, false);
    to.c.scale = gemm_scale_of(options.scale);
    to.pre = gemm_store_of(options.pre);
    to.bias = gemm_bias_of(options.bias, job.w.pairs);
    to.round_pre = options.round_pre;
    return cuda::gemm<A, W>(on, "grouped_gemm", job, to);
  }

  template <storage D, storage W, storage A>
  static status dgrad(on_cuda const& on, memory<D const, 2> dc, expert_matrix<W, S> const& w,
                      segments<S> rows, memory<A, 2> da, dgrad_options<S> const& options) noexcept {
    cuda::gemm_job job =
        grouped_product_of(gemm_kind::dgrad, rows, da.extent(0), w.rows(), w.columns());
    job.a = gemm_rows_of(dc, options.gather);
    job.w = gemm_weights_of(w);
    cuda::epilogue_store to{gemm_store_of(da, options.accumulate)};
    to.to.scale = gemm_scale_of(options.scale);
    return cuda::gemm<D, W>(on, "grouped_dgrad", job, to);
  }

  /// grouped_dgrad of dc to the activation's output, and activation_backward of that, in one kernel:
  /// the gradient of the activation is written nowhere. parts: [R, ceil(I / 32)] scratch of d_scale.
  template <storage D, storage W, storage T, any_activation Act>
  static status dgrad_activation(on_cuda const& on, memory<D const, 2> dc,
                                 expert_matrix<W, S> const& w, segments<S> rows,
                                 row_gather<S> const& gather, memory<T const, 2> pre,
                                 Act const& act, memory<T, 2> d_pre,
                                 activation_options<S> const& options,
                                 memory<float, 2> parts) noexcept {
    constexpr char const* who = "grouped_dgrad";
    cuda::gemm_job job =
        grouped_product_of(gemm_kind::dgrad, rows, d_pre.extent(0), w.rows(), w.columns());
    job.a = gemm_rows_of(dc, gather);
    job.w = gemm_weights_of(w);
    auto const own = cuda::activation_of(act);
    cuda::epilogue_activation<std::remove_const_t<decltype(own)>> to{
        own, gemm_rows_of(pre), gemm_store_of(d_pre, false), gemm_store_of(options.act),
        gemm_scale_of(options.scale)};
    if (options.d_scale) to.parts = parts;
    status const done = cuda::gemm<D, W>(on, who, job, to);
    if (!done.ok() || !options.d_scale) return done;
    return cuda::launch_threads(on, who, parts.extent(0), cuda::add_activation_parts,
                                memory<float const, 2>(parts), rows.offset.data() + rows.experts(),
                                options.d_scale);
  }

  template <storage D, storage A>
  static status wgrad(on_cuda const& on, memory<D const, 2> dc, memory<A const, 2> a,
                      segments<S> rows, expert_gradient<S> const& dw,
                      wgrad_options<S> const& options) noexcept {
    cuda::gemm_job job =
        grouped_product_of(gemm_kind::wgrad, rows, dc.extent(0), dw.rows(), dw.columns());
    job.a = gemm_rows_of(dc, options.gather_dc, gemm_scale_of(options.scale));
    job.b = gemm_rows_of(a, options.gather_a);
    job.skip = options.frozen.data();
    job.skip_empty = options.accumulate;
    cuda::epilogue_gradient const to{gemm_gradients_of(dw), options.accumulate};
    status const done = cuda::gemm<D, A>(on, "grouped_wgrad", job, to);
    if (!done.ok() || !options.d_bias) return done;
    return cuda::launch_threads(on, "grouped_wgrad", job.experts * job.n, cuda::bias_gradients, job,
                                to.dw.pairs, options.d_bias, options.accumulate);
  }

  template <storage W>
  static status pack(on_cuda const& on, expert_matrix<W, S> const& w, W* packed) noexcept {
    return cuda::launch_threads(on, "pack_weights", w.packed_elements(), cuda::pack_elements<W>,
                                gemm_weights_of(w), w.experts(), w.rows(), w.columns(),
                                w.packed_panels(), packed);
  }

  template <storage Pre, storage C, any_activation Act>
  static status activate(on_cuda const& on, memory<Pre const, 2> pre, memory<C, 2> c,
                         Act const& act, activation_options<S> const& options) noexcept {
    auto job = activation_job_of(act, options, c.extent(0), c.extent(1));
    job.pre = gemm_rows_of(pre);
    job.out = gemm_store_of(c, false);
    return cuda::launch_threads(on, "activation_forward", job.rows * job.columns,
                                cuda::activate_rows<decltype(job.act)>, job);
  }

  template <storage D, storage Pre, storage Out, any_activation Act>
  static status activate_backward(on_cuda const& on, memory<D const, 2> d_act,
                                  memory<Pre const, 2> pre, memory<Out, 2> d_pre, Act const& act,
                                  activation_options<S> const& options) noexcept {
    auto job = activation_job_of(act, options, d_pre.extent(0), d_act.extent(1));
    job.pre = gemm_rows_of(pre);
    job.d_act = gemm_rows_of(d_act);
    job.d_pre = gemm_store_of(d_pre, false);
    job.out = gemm_store_of(options.act);
    job.d_scale = options.d_scale.data();
    job.d_scale_stride = options.d_scale.stride(0);
    return cuda::launch_warps(on, "activation_backward", job.rows,
                              cuda::activate_rows_backward<decltype(job.act)>, job);
  }

 private:
  template <class Act>
  static auto activation_job_of(Act const& act, activation_options<S> const& options, offset_t rows,
                                offset_t columns) noexcept {
    auto const own = cuda::activation_of(act);
    cuda::activation_job<std::remove_const_t<decltype(own)>> job{.act = own};
    if (options.rows.offset) job.in_use = options.rows.offset.data() + options.rows.experts();
    job.rows = rows;
    job.columns = columns;
    job.scale = gemm_scale_of(options.scale);
    return job;
  }
};

}  // namespace shunt::detail
