#pragma once
#include <cstdint>

#include "shunt/backend/host/rows.hpp"
#include "shunt/combine/rules.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/combine_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::detail::is_identity;
using shunt::detail::is_valid;

template <class R, class Y>
status combine_tokens(on_host const& on, view<R const, 2, space::host> rows,
                      dispatch_plan<space::host> const& plan,
                      view<float const, 2, space::host> gate, view<Y, 2, space::host> y,
                      combine_options<Y, space::host> const& o) noexcept {
  offset_t const hidden = y.extent(1), top_k = plan.top_k;
  weighted_row_sum<R, Y> const sum(on);
  offset_t const grain = grain_of(bytes_of<R>(plan, hidden));
  parallel_ranges(on, plan.tokens, grain, [&](offset_t first, offset_t last, int) {
    for (offset_t t = first; t < last; ++t) {
      Y* const out = row_at(y, t);
      auto const terms = [&](auto const& emit) {
        if (!is_valid(o.valid, t)) return;
        for (offset_t k = 0; k < top_k; ++k) {
          float const factor = gate ? gate(t, k) : 1.0f;
          if (offset_t const row = row_of(plan, t * top_k + k); row >= 0) {
            emit({row_at(rows, row), nullptr, factor});
          } else if (is_identity(o.zero, t, k)) {
            emit({nullptr, row_at(o.zero.x, t), factor});
          }
        }
        if (o.shared) {
          emit({nullptr, row_at(o.shared, t), o.shared_gate ? o.shared_gate[t] : 1.0f});
        }
        if (o.residual) emit({nullptr, row_at(o.residual, t), 1.0f});
      };
      sum(terms, out, hidden);
    }
  });
  return {};
}

/// What one token's d_y gives to what stands beside the rows.
template <class T> struct token_gradients {
  combine_gradients<T, space::host> const& o;
  offset_t hidden;
  void (*scale)(T const*, float, T*, std::int64_t) noexcept;
  float (*dot)(T const*, T const*, std::int64_t) noexcept;
  weighted_row_sum<T, T> sum;

  void operator()(offset_t t, offset_t top_k, T const* d_y, dispatch_plan<space::host> const& plan,
                  view<float const, 2, space::host> gate) const noexcept {
    bool const real = is_valid(o.valid, t);
    if (o.d_shared_gate) {
      o.d_shared_gate[t] = real ? dot(d_y, row_at(o.shared, t), hidden) : 0.0f;
    }
    if (o.d_shared) {
      float const factor = o.shared_gate ? o.shared_gate[t] : 1.0f;
      pass(real, factor, d_y, row_at(o.d_shared, t));
    }
    if (o.d_x) {
      T* const out = row_at(o.d_x, t);
      auto const terms = [&](auto const& emit) {
        for (offset_t k = 0; real && k < top_k; ++k) {
          if (row_of(plan, t * top_k + k) >= 0 || !is_identity(o.zero, t, k)) continue;
          emit({d_y, nullptr, gate ? gate(t, k) : 1.0f});
        }
        if (o.accumulate) emit({nullptr, out, 1.0f});
      };
      sum(terms, out, hidden);
    }
    if (o.d_residual) pass(real, 1.0f, d_y, row_at(o.d_residual, t));  // last: may be d_y itself
  }

  void pass(bool real, float factor, T const* d_y, T* to) const noexcept {
    if (real) {
      scale(d_y, factor, to, hidden);
    } else {
      zero_row(to, hidden);
    }
  }
};

template <class T, class R>
status combine_gradient(on_host const& on, view<T const, 2, space::host> d_y,
                        dispatch_plan<space::host> const& plan,
                        view<float const, 2, space::host> gate, view<R const, 2, space::host> rows,
                        view<R, 2, space::host> d_rows,
                        combine_gradients<T, space::host> const& o) noexcept {
  offset_t const hidden = d_y.extent(1), top_k = plan.top_k;
  token_gradients<T> const beside{o, hidden, SHUNT_ISA_PICK(on, scale_row<T, T>),
                                  SHUNT_ISA_PICK(on, dot_rows<T, T>), weighted_row_sum<T, T>(on)};
  auto* const scale = SHUNT_ISA_PICK(on, scale_row<T, R>);
  auto* const dot = SHUNT_ISA_PICK(on, dot_rows<R, T>);
  auto* const both = SHUNT_ISA_PICK(on, scale_and_dot<T, R>);
  auto const on_token = [&](offset_t t) {
    T const* const from = row_at(d_y, t);
    bool const real = is_valid(o.valid, t);
    for (offset_t k = 0; k < top_k; ++k) {
      offset_t const row = row_of(plan, t * top_k + k);
      float const factor = gate ? gate(t, k) : 1.0f;
      if (!real) {
        if (row >= 0 && d_rows) zero_row(row_at(d_rows, row), hidden);
        if (o.d_gate) o.d_gate(t, k) = 0.0f;
      } else if (row < 0) {
        if (!o.d_gate) continue;
        bool const identity = is_identity(o.zero, t, k);
        o.d_gate(t, k) = identity ? beside.dot(from, row_at(o.zero.x, t), hidden) : 0.0f;
      } else if (o.d_gate && rows && d_rows) {
        o.d_gate(t, k) = both(from, factor, row_at(d_rows, row), row_at(rows, row), hidden);
      } else {
        if (d_rows) scale(from, factor, row_at(d_rows, row), hidden);
        if (o.d_gate && rows) o.d_gate(t, k) = dot(row_at(rows, row), from, hidden);
      }
    }
    beside(t, top_k, from, plan, gate);
  };
  write_rows(on, plan, d_rows, bytes_of<R>(plan, hidden), on_token);
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct combine_backend<on_host> {
  template <class T, int Rank> using memory = view<T, Rank, space::host>;

  template <class R, class Y>
  static status forward(on_host const& on, memory<R const, 2> rows, dispatch_plan<> const& plan,
                        memory<float const, 2> gate, memory<Y, 2> y,
                        combine_options<Y> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    return host::combine_tokens(on, rows, plan, gate, y, o);
  }
  template <class T, class R>
  static status backward(on_host const& on, memory<T const, 2> d_y, dispatch_plan<> const& plan,
                         memory<float const, 2> gate, memory<R const, 2> rows, memory<R, 2> d_rows,
                         combine_gradients<T> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    return host::combine_gradient(on, d_y, plan, gate, rows, d_rows, o);
  }
};

}  // namespace shunt::detail
