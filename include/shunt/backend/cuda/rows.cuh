#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/combine/rules.hpp"
#include "shunt/dispatch/rules.hpp"

// What dispatch and combine do to rows and tokens: copy, scale, sum, multiply. A warp has one token,
// or one panel of a token's columns.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using device_plan = dispatch_plan<space::device>;
template <class T> using matrix = view<T, 2, space::device>;
using token_mask = view<std::uint8_t const, 1, space::device>;

using shunt::detail::is_identity;
using shunt::detail::is_valid;
using shunt::detail::row_of;
using shunt::detail::rows_in_use;
using shunt::detail::slot_of;

template <class T> __device__ T* row_at(matrix<T> const& m, offset_t i) {
  return m.data() + i * m.stride(0);
}

/// Zeros into the padding rows of the segments: `items` warps of the grid, of which this is `item`.
template <class T>
__device__ void clear_padding(device_plan const& plan, matrix<T> const& rows, offset_t item,
                              offset_t items) {
  offset_t const used = rows_in_use(plan);
  for (offset_t at = item * warp_lanes; at < used; at += items * warp_lanes) {
    offset_t const mine = at + lane_of_thread();
    unsigned empty = __ballot_sync(all_lanes, mine < used && slot_of(plan, mine) < 0);
    for (; empty != 0; empty &= empty - 1) {
      T* const row = row_at(rows, at + __ffs(static_cast<int>(empty)) - 1);
      for (offset_t i = lane_of_thread(); i < rows.extent(1); i += warp_lanes) row[i] = T{};
    }
  }
}

/// A token's panels of `columns` columns each, over all tokens: how a grid's warps share tokens.
struct panels {
  offset_t tokens, columns, each, per_token;
  panels(offset_t tokens_, offset_t columns_, offset_t each_) noexcept
      : tokens(tokens_),
        columns(columns_),
        each(each_),
        per_token(std::max<offset_t>(1, (columns_ + each_ - 1) / each_)) {}
  [[nodiscard]] SHUNT_HD offset_t count() const noexcept { return tokens * per_token; }
};

/// rows = x, word by word; x is read once, whatever K is.
template <class Word>
SHUNT_KERNEL void copy_rows(matrix<Word const> x, device_plan plan, matrix<Word> rows,
                            panels work) {
  constexpr int most = tuning::words_in_flight;
  for (offset_t item = grid_warp(); item < work.count(); item += grid_warps()) {
    offset_t const t = item / work.per_token;
    offset_t const first = item % work.per_token * work.each + lane_of_thread();
    Word words[most];
#pragma unroll
    for (int i = 0; i < most; ++i) {
      offset_t const c = first + i * warp_lanes;
      if (c < work.columns) words[i] = row_at(x, t)[c];
    }
    for (offset_t base = 0; base < plan.top_k; base += warp_lanes) {
      offset_t const k = base + lane_of_thread();
      index_t const mine = k < plan.top_k ? row_of(plan, t * plan.top_k + k) : -1;
      for (unsigned left = __ballot_sync(all_lanes, mine >= 0); left != 0; left &= left - 1) {
        index_t const row = __shfl_sync(all_lanes, mine, __ffs(static_cast<int>(left)) - 1);
#pragma unroll
        for (int i = 0; i < most; ++i) {
          offset_t const c = first + i * warp_lanes;
          if (c < work.columns) row_at(rows, row)[c] = words[i];
        }
      }
    }
  }
  clear_padding(plan, rows, grid_warp(), grid_warps());
}

/// rows = gate · x, rounded once (no gate: 1); rows of tokens that do not count are zero.
template <int V, class A, class B>
SHUNT_KERNEL void scale_rows(matrix<A const> x, device_plan plan, matrix<float const> gate,
                             token_mask valid, matrix<B> rows, panels work) {
  constexpr int most = tuning::words_in_flight;
  for (offset_t item = grid_warp(); item < work.count(); item += grid_warps()) {
    offset_t const t = item / work.per_token;
    offset_t const first = item % work.per_token * work.each + lane_of_thread() * V;
    bool const real = is_valid(valid, t);
    float values[most][V];
#pragma unroll
    for (int i = 0; i < most; ++i) {
      offset_t const c = first + i * (warp_lanes * V);
      if (c < work.columns) load<V>(row_at(x, t) + c, values[i]);
    }
    for (offset_t base = 0; base < plan.top_k; base += warp_lanes) {
      offset_t const k = base + lane_of_thread();
      index_t const mine = k < plan.top_k ? row_of(plan, t * plan.top_k + k) : -1;
      float const weight = mine >= 0 && gate ? gate(t, k) : 1.0f;
      for (unsigned left = __ballot_sync(all_lanes, mine >= 0); left != 0; left &= left - 1) {
        int const from = __ffs(static_cast<int>(left)) - 1;
        index_t const row = __shfl_sync(all_lanes, mine, from);
        float const factor = __shfl_sync(all_lanes, weight, from);
#pragma unroll
        for (int i = 0; i < most; ++i) {
          offset_t const c = first + i * (warp_lanes * V);
          if (c >= work.columns) continue;
          float out[V];
#pragma unroll
          for (int v = 0; v < V; ++v) out[v] = real ? __fmul_rn(factor, values[i][v]) : 0.0f;
          store<V>(out, row_at(rows, row) + c);
        }
      }
    }
  }
  clear_padding(plan, rows, grid_warp(), grid_warps());
}

/// y = Σ gate · row over the slots in their order, then what stands beside the rows: one chain of
/// fma, rounded once. The slots of up to 32 choices are looked up once for all columns of a panel.
template <int V, class R, class Y>
SHUNT_KERNEL void sum_rows(matrix<R const> rows, device_plan plan, matrix<float const> gate,
                           combine_options<Y, space::device> o, matrix<Y> y, panels work) {
  for (offset_t item = grid_warp(); item < work.count(); item += grid_warps()) {
    offset_t const t = item / work.per_token, start = item % work.per_token * work.each;
    offset_t const end = min(start + work.each, work.columns);
    bool const real = is_valid(o.valid, t);
    index_t mine = -1;  // this lane's choice: a row, -1: none, -2: the token itself
    float weight = 1.0f;
    auto const look_up = [&](offset_t base) {
      offset_t const k = base + lane_of_thread();
      bool const there = real && k < plan.top_k;
      mine = there ? row_of(plan, t * plan.top_k + k) : -1;
      if (there && mine < 0 && is_identity(o.zero, t, k)) mine = -2;
      weight = there && mine != -1 && gate ? gate(t, k) : 1.0f;
    };
    look_up(0);
    float const beside = real && o.shared_gate ? o.shared_gate[t] : 1.0f;
    for (offset_t at = start; at < end; at += warp_lanes * V) {
      offset_t const c = at + lane_of_thread() * V;
      bool const here = c < end;
      float sum[V] = {}, part[V];
      auto const add = [&](float factor, auto const* from) {
        load<V>(from + c, part);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] = __fmaf_rn(factor, part[v], sum[v]);
      };
      for (offset_t base = 0; base < plan.top_k; base += warp_lanes) {
        if (plan.top_k > warp_lanes) look_up(base);
        for (unsigned left = __ballot_sync(all_lanes, mine != -1); left != 0; left &= left - 1) {
          int const from = __ffs(static_cast<int>(left)) - 1;
          index_t const row = __shfl_sync(all_lanes, mine, from);
          float const factor = __shfl_sync(all_lanes, weight, from);
          if (!here) continue;
          row >= 0 ? add(factor, row_at(rows, row)) : add(factor, row_at(o.zero.x, t));
        }
      }
      if (!here) continue;
      if (real && o.shared) add(beside, row_at(o.shared, t));
      if (real && o.residual) add(1.0f, row_at(o.residual, t));
      store<V>(sum, row_at(y, t) + c);
    }
  }
}

/// d_gate = <row, like[t]> of each slot that has a row, <x[t], like[t]> of a zero expert's, else 0.
/// A warp has one slot.
template <class R, class T>
SHUNT_KERNEL void row_dots(matrix<R const> rows, matrix<T const> like, device_plan plan,
                           zero_experts<T, space::device> zero, token_mask valid,
                           matrix<float> d_gate) {
  offset_t const slots = plan.slot_row.extent(0), hidden = like.extent(1);
  for (offset_t slot = grid_warp(); slot < slots; slot += grid_warps()) {
    offset_t const t = slot / plan.top_k, k = slot % plan.top_k;
    index_t const row = row_of(plan, slot);
    float dot = 0;
    if (is_valid(valid, t)) {
      if (row >= 0) {
        if (!rows) continue;  // the caller computes their d_gate
        dot = row_dot(row_at(rows, row), row_at(like, t), hidden);
      } else if (is_identity(zero, t, k)) {
        dot = row_dot(row_at(like, t), row_at(zero.x, t), hidden);
      }
    }
    if (lane_of_thread() == 0) d_gate(t, k) = dot;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
