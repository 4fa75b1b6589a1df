#pragma once
#include "shunt/backend/cuda/dispatch_choice.cuh"
#include "shunt/backend/cuda/dispatch_plan.cuh"
#include "shunt/backend/cuda/rows.cuh"
#include "shunt/dispatch/options.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// The panels of a kernel whose lanes hold `words_in_flight` pieces of `width` columns.
inline panels panels_of(device_plan const& plan, offset_t columns, int width) noexcept {
  return {plan.tokens, columns, offset_t{tuning::words_in_flight} * warp_lanes * width};
}
/// Warps for those panels, or, where they are more, for the search for padding rows.
inline offset_t warps_for(panels const& work, device_plan const& plan) noexcept {
  return std::max(work.count(), (plan.row_slot.extent(0) + warp_lanes - 1) / warp_lanes);
}

/// A matrix of any elements as one of words: what is copied has no type.
template <class Word, class T> matrix<Word> as_words(matrix<T> const& m) noexcept {
  constexpr offset_t size = sizeof(T), word = sizeof(Word);
  using pointer = Word*;
  auto const bytes = reinterpret_cast<std::uintptr_t>(m.data());
  return {reinterpret_cast<pointer>(bytes),
          {{m.extent(0), m.extent(1) * size / word}},
          {{m.stride(0) * size / word, 1}}};
}

template <class T>
status copy(on_cuda const& on, matrix<T const> x, device_plan const& plan,
            matrix<T> rows) noexcept {
  auto const as = [&](auto word) {
    using W = decltype(word);
    panels const work = panels_of(plan, x.extent(1) * offset_t{sizeof(T)} / offset_t{sizeof(W)}, 1);
    return launch_warps(on, "dispatch", warps_for(work, plan), copy_rows<W>, as_words<W const>(x),
                        plan, as_words<W>(rows), work);
  };
  switch (row_width()(x)(rows).bytes()) {
    case 16: return as(uint4{});
    case 8: return as(std::uint64_t{});
    case 4: return as(std::uint32_t{});
    case 2: return as(std::uint16_t{});
    default: return as(std::uint8_t{});
  }
}

template <class A, class B>
status scale(on_cuda const& on, char const* who, matrix<A const> x, device_plan const& plan,
             matrix<float const> gate, token_mask valid, matrix<B> rows) noexcept {
  return with_width(row_width()(x)(rows).elements(), [&](auto v) {
    panels const work = panels_of(plan, rows.extent(1), v.value);
    return launch_warps(on, who, warps_for(work, plan), scale_rows<v.value, A, B>, x, plan, gate,
                        valid, rows, work);
  });
}

template <class R, class Y>
status sum(on_cuda const& on, char const* who, matrix<R const> rows, device_plan const& plan,
           matrix<float const> gate, combine_options<Y, space::device> const& o,
           matrix<Y> y) noexcept {
  int const width = row_width()(rows)(o.shared)(o.residual)(o.zero.x)(y).elements();
  return with_width(width, [&](auto v) {
    panels const work = panels_of(plan, y.extent(1), v.value);
    return launch_warps(on, who, work.count(), sum_rows<v.value, R, Y>, rows, plan, gate, o, y,
                        work);
  });
}

SHUNT_KERNEL void tokens_of_rows(device_plan plan, view<index_t, 1, space::device> token) {
  offset_t const used = rows_in_use(plan);
  for (offset_t r = grid_thread(); r < token.extent(0); r += grid_threads()) {
    index_t const slot = r < used ? slot_of(plan, r) : -1;
    token[r] = slot < 0 ? -1 : slot / plan.top_k;
  }
}
SHUNT_KERNEL void gates_of_rows(matrix<float const> gate, device_plan plan,
                                view<float, 1, space::device> row_gate) {
  offset_t const used = rows_in_use(plan);
  for (offset_t r = grid_thread(); r < row_gate.extent(0); r += grid_threads()) {
    index_t const slot = r < used ? slot_of(plan, r) : -1;
    row_gate[r] = slot < 0 ? 0.0f : gate(slot / plan.top_k, slot % plan.top_k);
  }
}
SHUNT_KERNEL void gates_of_slots(view<float const, 1, space::device> row_gate, device_plan plan,
                                 matrix<float> gate) {
  offset_t const slots = plan.slot_row.extent(0);
  for (offset_t i = grid_thread(); i < slots; i += grid_threads()) {
    index_t const row = row_of(plan, i);
    gate(i / plan.top_k, i % plan.top_k) = row < 0 ? 0.0f : row_gate[row];
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct dispatch_backend<on_cuda> {
  using plan_type = dispatch_plan<space::device>;
  using work_type = arena<space::device>;
  template <class T, int Rank> using memory = view<T, Rank, space::device>;

  static std::size_t plan_scratch_bytes(shape const& s,
                                        plan_options<space::device> const& o) noexcept {
    auto work = work_type::measuring();
    (void)cuda::carve_plan_scratch(work, s, o);
    return work.needed();
  }
  static std::size_t choice_scratch_bytes(index_t experts) noexcept {
    auto work = work_type::measuring();
    (void)cuda::carve_choice_scratch(work, experts);
    return work.needed();
  }
  static status plan(on_cuda const& on, memory<index_t const, 2> expert, plan_type const& plan,
                     work_type work, plan_options<space::device> const& o) noexcept {
    return cuda::make_plan(on, expert, plan, work, o);
  }
  static status choice_plan(on_cuda const& on, memory<index_t const, 2> token,
                            plan_type const& plan, work_type work,
                            expert_choice_options<space::device> const& o) noexcept {
    return cuda::make_choice_plan(on, token, plan, work, o);
  }
  template <class T>
  static status forward(on_cuda const& on, memory<T const, 2> x, plan_type const& plan,
                        memory<T, 2> rows, dispatch_options<space::device> const& o) noexcept {
    if constexpr (storage<T>) {
      if (o.gate) return cuda::scale<T, T>(on, "dispatch", x, plan, o.gate, {}, rows);
    }
    return cuda::copy<T>(on, x, plan, rows);
  }
  template <class A, class B>
  static status backward(on_cuda const& on, memory<A const, 2> d_rows, plan_type const& plan,
                         memory<B, 2> d_x, dispatch_gradients<A, space::device> const& o) noexcept {
    constexpr char const* who = "dispatch_backward";
    combine_options<B, space::device> old;
    if (o.accumulate) old.residual = d_x;
    status const done = cuda::sum<A, B>(on, who, d_rows, plan, o.gate, old, d_x);
    if (!done.ok() || !o.d_gate) return done;
    return cuda::launch_warps(on, who, plan.slot_row.extent(0), cuda::row_dots<A, A>, d_rows, o.x,
                              plan, zero_experts<A, space::device>{}, cuda::token_mask{}, o.d_gate);
  }
  static status row_tokens(on_cuda const& on, plan_type const& plan,
                           memory<index_t, 1> token) noexcept {
    return cuda::launch_threads(on, "row_tokens", token.extent(0), cuda::tokens_of_rows, plan,
                                token);
  }
  static status gates_to_rows(on_cuda const& on, memory<float const, 2> gate, plan_type const& plan,
                              memory<float, 1> row_gate) noexcept {
    return cuda::launch_threads(on, "gates_to_rows", row_gate.extent(0), cuda::gates_of_rows, gate,
                                plan, row_gate);
  }
  static status rows_to_gates(on_cuda const& on, memory<float const, 1> row_gate,
                              plan_type const& plan, memory<float, 2> gate) noexcept {
    return cuda::launch_threads(on, "rows_to_gates", plan.slot_row.extent(0), cuda::gates_of_slots,
                                row_gate, plan, gate);
  }
};

}  // namespace shunt::detail
