#include "shunt/combine.hpp"

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "plan.hpp"

namespace bindings {
namespace {

/// (expert, x, first, count) of zero experts, or None.
struct zero_argument {
  array expert, x;
  index_t first = 0, count = 0;

  zero_argument(nb::handle given, char const* expert_name, char const* x_name, element type) {
    if (given.is_none()) return;
    if (!nb::isinstance<nb::tuple>(given) || nb::len(given) != 4 ||
        !nb::try_cast(nb::object(given[2]), first) || !nb::try_cast(nb::object(given[3]), count)) {
      throw nb::type_error("zero must be None or a tuple (expert, x, first, count)");
    }
    expert = array(nb::object(given[0]), expert_name, 2, {element::i32}, access::read, here);
    x = optional(nb::object(given[1]), x_name, 2, {type}, access::read, here);
  }
  template <class T> [[nodiscard]] shunt::zero_experts<T, S> as() const noexcept {
    return {expert.as<index_t const, 2, S>(), x.as<T const, 2, S>(), first, count};
  }
};

nb::object combine(maybe rows_, maybe plan_, maybe gate_, maybe shared_, maybe shared_gate_,
                   maybe residual_, maybe zero_, maybe valid_, maybe out, maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const rows(rows_, "combine.rows", 2, storage_types, read, here);
  plan_state const& plan = plan_of(plan_, "combine.plan", here);
  array const gate = optional(gate_, "combine.gate", 2, {element::f32}, read, here);
  array y = output(out, rows_, "combine.out", {plan.tokens, rows.extent(1)},
                   {rows.type(), element::f32}, here);
  element const t = y.type();
  array const shared = optional(shared_, "combine.shared", 2, {t}, read, here);
  array const shared_gate =
      optional(shared_gate_, "combine.shared_gate", 1, {element::f32}, read, here);
  array const residual = optional(residual_, "combine.residual", 2, {t}, read, here);
  zero_argument const zero(zero_, "combine.zero.expert", "combine.zero.x", t);
  array const valid = optional(valid_, "combine.valid", 1, {element::u8}, read, here);
  // shared, residual and zero.x may be y's very memory: combine itself tells.
  apart().reads(rows, gate, shared_gate, zero.expert, valid, plan.memory).writes(y).check();
  with_storage(rows.type(), [&]<class R>() {
    with_type_or_float<R>(t, [&]<class T>() {
      shunt::combine_options<T, S> const options{
          shared.as<T const, 2, S>(), shared_gate.as<float const, 1, S>(),
          residual.as<T const, 2, S>(), zero.as<T>(), valid.as<std::uint8_t const, 1, S>()};
      run([&] {
        return shunt::combine(where, rows.as<R const, 2, S>(), plan.as<S>(),
                              gate.as<float const, 2, S>(), y.as<T, 2, S>(), options);
      });
    });
  });
  return nb::borrow(y.object());
}

nb::tuple combine_backward(maybe d_y_, maybe plan_, maybe gate_, maybe rows_, maybe shared_,
                           maybe shared_gate_, maybe zero_, maybe valid_, maybe out, maybe d_gate_,
                           maybe d_shared_, maybe d_shared_gate_, maybe d_residual_, maybe d_x_,
                           bool accumulate, maybe on) {
  policy const where = policy_of(on);
  using enum access;
  constexpr element f32 = element::f32;
  array const d_y(d_y_, "combine_backward.d_y", 2, storage_types, read, here);
  plan_state const& plan = plan_of(plan_, "combine_backward.plan", here);
  element const t = d_y.type();
  array const gate = optional(gate_, "combine_backward.gate", 2, {f32}, read, here);
  array const rows = optional(rows_, "combine_backward.rows", 2, {t}, read, here);
  array const shared = optional(shared_, "combine_backward.shared", 2, {t}, read, here);
  array const shared_gate =
      optional(shared_gate_, "combine_backward.shared_gate", 1, {f32}, read, here);
  zero_argument const zero(zero_, "combine_backward.zero.expert", "combine_backward.zero.x", t);
  array const valid = optional(valid_, "combine_backward.valid", 1, {element::u8}, read, here);
  array d_rows =
      output(out, d_y_, "combine_backward.d_rows", {plan.rows, d_y.extent(1)}, {t}, here);
  array d_gate;
  if (rows || !d_gate_.is_none()) {
    d_gate =
        output(d_gate_, d_y_, "combine_backward.d_gate", {plan.tokens, plan.top_k}, {f32}, here);
  }
  array const d_shared = optional(d_shared_, "combine_backward.d_shared", 2, {t}, write, here);
  array const d_shared_gate =
      optional(d_shared_gate_, "combine_backward.d_shared_gate", 1, {f32}, write, here);
  array const d_residual =
      optional(d_residual_, "combine_backward.d_residual", 2, {t}, write, here);
  array const d_x = optional(d_x_, "combine_backward.d_x", 2, {t}, write, here);
  apart()
      .reads(d_y, gate, rows, shared, shared_gate, zero.expert, zero.x, valid, plan.memory)
      .writes(d_rows, d_gate, d_shared, d_shared_gate, d_x)
      .check();
  // d_residual may be d_y's very memory, which combine_backward itself tells; nothing else.
  apart()
      .reads(gate, rows, shared, shared_gate, zero.expert, zero.x, valid, plan.memory)
      .writes(d_residual, d_rows, d_gate, d_shared, d_shared_gate, d_x)
      .check();
  with_storage(t, [&]<class T>() {
    shunt::combine_gradients<T, S> const options{shared.as<T const, 2, S>(),
                                                 shared_gate.as<float const, 1, S>(),
                                                 zero.as<T>(),
                                                 valid.as<std::uint8_t const, 1, S>(),
                                                 d_gate.as<float, 2, S>(),
                                                 d_shared.as<T, 2, S>(),
                                                 d_shared_gate.as<float, 1, S>(),
                                                 d_residual.as<T, 2, S>(),
                                                 d_x.as<T, 2, S>(),
                                                 accumulate};
    run([&] {
      return shunt::combine_backward(where, d_y.as<T const, 2, S>(), plan.as<S>(),
                                     gate.as<float const, 2, S>(), rows.as<T const, 2, S>(),
                                     d_rows.as<T, 2, S>(), options);
    });
  });
  return nb::make_tuple(nb::borrow(d_rows.object()),
                        d_gate ? nb::borrow(d_gate.object()) : nb::none());
}

}  // namespace

void bind_combine(nb::module_& m) {
  def(m, "combine", &combine);
  def(m, "combine_backward", &combine_backward);
}

}  // namespace bindings
