#pragma once
#include <cstddef>
#include <cstring>

#include "shunt/backend/host/dispatch_choice.hpp"
#include "shunt/backend/host/dispatch_plan.hpp"
#include "shunt/backend/host/rows.hpp"
#include "shunt/dispatch/options.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

template <class T>
void copy_rows(on_host const& on, view<T const, 2, space::host> x,
               dispatch_plan<space::host> const& plan, view<T, 2, space::host> rows) noexcept {
  offset_t const hidden = rows.extent(1);
  auto const bytes = static_cast<std::size_t>(hidden) * sizeof(T);
  write_rows(on, plan, rows, bytes_of<T>(plan, hidden), [&](offset_t t) {
    for (offset_t slot = t * plan.top_k; slot < (t + 1) * plan.top_k; ++slot) {
      offset_t const row = row_of(plan, slot);
      if (row >= 0 && bytes > 0) std::memcpy(row_at(rows, row), row_at(x, t), bytes);
    }
  });
}

/// rows = gate · x.
template <class T>
void scale_rows(on_host const& on, view<T const, 2, space::host> x,
                dispatch_plan<space::host> const& plan, view<T, 2, space::host> rows,
                view<float const, 2, space::host> gate) noexcept {
  auto* const scale = SHUNT_ISA_PICK(on, scale_row<T, T>);
  offset_t const hidden = rows.extent(1);
  write_rows(on, plan, rows, bytes_of<T>(plan, hidden), [&](offset_t t) {
    for (offset_t k = 0; k < plan.top_k; ++k) {
      offset_t const row = row_of(plan, t * plan.top_k + k);
      if (row >= 0) scale(row_at(x, t), gate(t, k), row_at(rows, row), hidden);
    }
  });
}

template <class A, class B>
status dispatch_gradient(on_host const& on, view<A const, 2, space::host> d_rows,
                         dispatch_plan<space::host> const& plan, view<B, 2, space::host> d_x,
                         dispatch_gradients<A, space::host> const& o) noexcept {
  offset_t const hidden = d_x.extent(1), top_k = plan.top_k;
  weighted_row_sum<A, B> const sum(on);
  auto* const dot = SHUNT_ISA_PICK(on, dot_rows<A, A>);
  offset_t const grain = grain_of(bytes_of<A>(plan, hidden));
  parallel_ranges(on, plan.tokens, grain, [&](offset_t first, offset_t last, int) {
    for (offset_t t = first; t < last; ++t) {
      B* const out = row_at(d_x, t);
      auto const terms = [&](auto const& emit) {
        for (offset_t k = 0; k < top_k; ++k) {
          offset_t const row = row_of(plan, t * top_k + k);
          if (row >= 0) emit({row_at(d_rows, row), nullptr, o.gate ? o.gate(t, k) : 1.0f});
        }
        if (o.accumulate) emit({nullptr, out, 1.0f});
      };
      sum(terms, out, hidden);
      for (offset_t k = 0; o.d_gate && k < top_k; ++k) {
        offset_t const row = row_of(plan, t * top_k + k);
        o.d_gate(t, k) = row < 0 ? 0.0f : dot(row_at(d_rows, row), row_at(o.x, t), hidden);
      }
    }
  });
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct dispatch_backend<on_host> {
  using plan_type = dispatch_plan<space::host>;
  template <class T, int Rank> using memory = view<T, Rank, space::host>;

  static std::size_t plan_scratch_bytes(shape const& s, plan_options<> const& o) noexcept {
    auto work = arena<>::measuring();
    (void)host::carve_plan_scratch(work, s, o);
    return work.needed();
  }
  static std::size_t choice_scratch_bytes(index_t experts) noexcept {
    auto work = arena<>::measuring();
    (void)host::carve_choice_scratch(work, experts);
    return work.needed();
  }
  static status plan(on_host const& on, memory<index_t const, 2> expert, plan_type const& plan,
                     arena<> work, plan_options<> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    return host::make_plan(on, expert, plan, work, o);
  }
  static status choice_plan(on_host const& on, memory<index_t const, 2> token,
                            plan_type const& plan, arena<> work,
                            expert_choice_options<> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    return host::make_choice_plan(on, token, plan, work, o);
  }
  template <class T>
  static status forward(on_host const& on, memory<T const, 2> x, plan_type const& plan,
                        memory<T, 2> rows, dispatch_options<> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    if constexpr (storage<T>) {
      if (o.gate) {
        host::scale_rows(on, x, plan, rows, o.gate);
        return {};
      }
    }
    host::copy_rows(on, x, plan, rows);
    return {};
  }
  template <class A, class B>
  static status backward(on_host const& on, memory<A const, 2> d_rows, plan_type const& plan,
                         memory<B, 2> d_x, dispatch_gradients<A> const& o) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    return host::dispatch_gradient(on, d_rows, plan, d_x, o);
  }
  static status row_tokens(on_host const& on, plan_type const& plan,
                           memory<index_t, 1> token) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    offset_t const used = host::rows_in_use(plan), top_k = plan.top_k;
    host::parallel_ranges(on, token.extent(0), 16384, [&](offset_t first, offset_t last, int) {
      for (offset_t r = first; r < last; ++r) {
        offset_t const slot = r < used ? host::slot_of(plan, r) : -1;
        token[r] = static_cast<index_t>(slot < 0 ? -1 : slot / top_k);
      }
    });
    return {};
  }
  static status gates_to_rows(on_host const& on, memory<float const, 2> gate, plan_type const& plan,
                              memory<float, 1> row_gate) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    offset_t const used = host::rows_in_use(plan), top_k = plan.top_k;
    host::parallel_ranges(on, row_gate.extent(0), 16384, [&](offset_t first, offset_t last, int) {
      for (offset_t r = first; r < last; ++r) {
        offset_t const slot = r < used ? host::slot_of(plan, r) : -1;
        row_gate[r] = slot < 0 ? 0.0f : gate(slot / top_k, slot % top_k);
      }
    });
    return {};
  }
  static status rows_to_gates(on_host const& on, memory<float const, 1> row_gate,
                              plan_type const& plan, memory<float, 2> gate) noexcept {
    if (status bad = check::policy(on); !bad.ok()) return bad;
    offset_t const top_k = plan.top_k, each = 1 + 16384 / (top_k + 1);
    host::parallel_ranges(on, plan.tokens, each, [&](offset_t first, offset_t last, int) {
      for (offset_t t = first; t < last; ++t) {
        for (offset_t k = 0; k < top_k; ++k) {
          offset_t const row = host::row_of(plan, t * top_k + k);
          gate(t, k) = row < 0 ? 0.0f : row_gate[row];
        }
      }
    });
    return {};
  }
};

}  // namespace shunt::detail
