#pragma once
#include <cstdint>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/dispatch/plan.hpp"
#include "shunt/moe_experts/stages.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/layer_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::detail {

template <> struct layer_backend<on_host> {
  using floats = view<float, 1>;
  static constexpr offset_t grain = 8192;  // elements a task: some microseconds

  static status all_tokens(on_host const& on, view<std::uint8_t const, 1> valid,
                           dispatch_plan<> const& plan) noexcept {
    plan.offset[0] = 0;
    plan.offset[1] = plan.tokens;
    host::parallel_ranges(on, plan.tokens, grain, [&](offset_t first, offset_t last, int) {
      for (offset_t t = first; t < last; ++t) {
        plan.row_slot[t] = plan.slot_row[t] =
            !valid || valid[t] != 0 ? static_cast<index_t>(t) : -1;
      }
    });
    return {};
  }

  static status apply_sigmoid(on_host const& on, view<float const, 1> logit, floats gate) noexcept {
    SHUNT_ISA_PICK(on, apply_sigmoid)(logit.data(), gate.data(), gate.extent(0));
    return {};
  }
  static status apply_sigmoid_backward(on_host const& on, view<float const, 1> gate,
                                       floats d) noexcept {
    SHUNT_ISA_PICK(on, apply_sigmoid_backward)(gate.data(), d.data(), d.extent(0));
    return {};
  }

  /// What each expert's choice of a token has of the gradient by slot [T,E].
  static status gates_of_choice(on_host const& on, view<index_t const, 2> token,
                                view<float const, 2> d_gate, view<float, 2> d_choice) noexcept {
    host::parallel_ranges(on, token.extent(0), 8, [&](offset_t first, offset_t last, int) {
      for (offset_t e = first; e < last; ++e) {
        for (offset_t c = 0; c < token.extent(1); ++c) {
          index_t const t = token(e, c);
          d_choice(e, c) = t >= 0 ? d_gate(t, e) : 0.0f;
        }
      }
    });
    return {};
  }

  /// to += from, where both have contiguous rows: those of `rows` (null: all).
  template <class T>
  static status add(on_host const& on, view<T const, 2> from, view<float, 2> to,
                    segments<> rows_in_use = {}) noexcept {
    if (rows_in_use.offset) to = to.slice(0, rows_in_use.offset[rows_in_use.experts()]);
    auto* const rows = SHUNT_ISA_PICK(on, add_values<T>);
    each_row(on, to, [&](offset_t r) { rows(row(from, r), row(to, r), to.extent(1)); });
    return {};
  }
  template <class T>
  static status round(on_host const& on, view<float const, 2> from, view<T, 2> to) noexcept {
    auto* const rows = SHUNT_ISA_PICK(on, round_values<T>);
    each_row(on, to, [&](offset_t r) { rows(row(from, r), row(to, r), to.extent(1)); });
    return {};
  }

 private:
  template <class T> static T* row(view<T, 2> x, offset_t r) noexcept {
    return x.data() + r * x.stride(0);
  }
  template <class V, class Body>
  static void each_row(on_host const& on, V const& like, Body&& body) noexcept {
    offset_t const width = like.extent(1) > 0 ? like.extent(1) : 1;
    host::parallel_ranges(on, like.extent(0), (grain + width - 1) / width,
                          [&](offset_t first, offset_t last, int) {
                            for (offset_t r = first; r < last; ++r) body(r);
                          });
  }
};

}  // namespace shunt::detail
