#include <nanobind/stl/string_view.h>

#include <memory>
#include <string_view>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "options.hpp"
#include "plan.hpp"
#include "shunt/dispatch.hpp"

namespace bindings {
namespace {

constexpr offset_t most = std::numeric_limits<index_t>::max();

/// Sizes whose products are safe to take.
void check_sizes(char const* tokens_name, offset_t tokens, char const* local_name, offset_t local,
                 char const* slots_name, offset_t top_k, offset_t segment_multiple) {
  using namespace shunt::check;
  raise_unless_ok(shunt::first_of(
      between(tokens_name, tokens, 0, most), between(local_name, local, 0, most - 1),
      between(slots_name, top_k, 0, most), fits_index(slots_name, tokens, top_k),
      between("plan.segment_multiple", segment_multiple, 1, most)));
}

/// What the counts of a new plan go to.
shunt::plan_report<S> report_of(plan_state& plan, nb::handle like, array const& wanted,
                                array const& kept) {
  return {wanted.as<index_t, 1, S>(), kept.as<index_t, 1, S>(),
          plan.totals.renewed<S>(like, fetcher)};
}

plan_state plan_dispatch(maybe expert_, offset_t local, offset_t capacity, std::string_view drop,
                         maybe gate_, maybe valid_, offset_t segment_multiple, index_t first_expert,
                         index_t experts, index_t zero_experts, maybe wanted_, maybe kept_,
                         maybe on) {
  policy const where = policy_of(on);
  array const expert(expert_, "plan_dispatch.expert", 2, {element::i32}, access::read, here);
  array const gate = optional(gate_, "plan_dispatch.gate", 2, {element::f32}, access::read, here);
  array const valid = optional(valid_, "plan_dispatch.valid", 1, {element::u8}, access::read, here);
  array const wanted =
      optional(wanted_, "plan_dispatch.wanted", 1, {element::i32}, access::write, here);
  array const kept = optional(kept_, "plan_dispatch.kept", 1, {element::i32}, access::write, here);
  check_sizes("plan_dispatch.expert: extent 0 (tokens)", expert.extent(0), "plan_dispatch.local",
              local, "plan_dispatch.expert: tokens x top_k", expert.extent(1), segment_multiple);
  raise_unless_ok(shunt::check::between("plan_dispatch.capacity", capacity, 0, most));
  apart().reads(expert, gate, valid).writes(wanted, kept).check();

  shunt::plan_options<S> options;
  options.capacity = static_cast<index_t>(capacity);
  options.drop = drop_of("plan_dispatch.drop", drop);
  options.gate = gate.as<float const, 2, S>();
  options.valid = valid.as<std::uint8_t const, 1, S>();
  options.segment_multiple = static_cast<index_t>(segment_multiple);
  options.first_expert = first_expert;
  options.experts = experts;
  options.zero_experts = zero_experts;

  plan_state plan;
  plan.tokens = static_cast<index_t>(expert.extent(0));
  plan.top_k = static_cast<index_t>(expert.extent(1));
  plan.local = static_cast<index_t>(local);
  shunt::shape const sizes{.tokens = plan.tokens, .experts = plan.local, .top_k = plan.top_k};
  plan.rows = shunt::plan_rows_bound(sizes, options);
  raise_unless_ok(shunt::check::fits_index("plan_dispatch: rows", plan.rows, 1));
  plan.allocate<S>(expert_, here);
  options.report = report_of(plan, expert_, wanted, kept);
  run_with_scratch(
      expert_,
      [&](auto work) {
        return shunt::plan_dispatch(where, expert.as<index_t const, 2, S>(), plan.as<S>(), work,
                                    options);
      },
      [&] { return shunt::plan_scratch_bytes(where, sizes, options); });
  return plan;
}

nb::tuple plan_from_expert_choice(maybe token_, offset_t tokens, maybe gate_, maybe dense_gate_,
                                  maybe valid_, offset_t segment_multiple, maybe on) {
  policy const where = policy_of(on);
  array const token(token_, "plan_from_expert_choice.token", 2, {element::i32}, access::read, here);
  array const gate =
      optional(gate_, "plan_from_expert_choice.gate", 2, {element::f32}, access::read, here);
  array const valid =
      optional(valid_, "plan_from_expert_choice.valid", 1, {element::u8}, access::read, here);
  offset_t const local = token.extent(0);
  check_sizes("plan_from_expert_choice.tokens", tokens, "plan_from_expert_choice.token: extent 0",
              local, "plan_from_expert_choice: tokens x experts", local, segment_multiple);
  raise_unless_ok(
      shunt::check::fits_index("plan_from_expert_choice.token", local, token.extent(1)));
  array dense_gate;
  if (gate || !dense_gate_.is_none()) {
    dense_gate = output(dense_gate_, token_, "plan_from_expert_choice.dense_gate", {tokens, local},
                        {element::f32}, here);
  }
  apart().reads(token, gate, valid).writes(dense_gate).check();

  plan_state plan;
  plan.tokens = static_cast<index_t>(tokens);
  plan.top_k = plan.local = static_cast<index_t>(local);
  plan.rows = shunt::expert_choice_rows_bound(plan.local, static_cast<index_t>(token.extent(1)),
                                              static_cast<index_t>(segment_multiple));
  raise_unless_ok(shunt::check::fits_index("plan_from_expert_choice: rows", plan.rows, 1));
  plan.allocate<S>(token_, here);
  shunt::expert_choice_options<S> options;
  options.gate = gate.as<float const, 2, S>();
  options.dense_gate = dense_gate.as<float, 2, S>();
  options.valid = valid.as<std::uint8_t const, 1, S>();
  options.segment_multiple = static_cast<index_t>(segment_multiple);
  options.report = report_of(plan, token_, {}, {});
  run_with_scratch(
      token_,
      [&](auto work) {
        return shunt::plan_from_expert_choice(where, token.as<index_t const, 2, S>(), plan.as<S>(),
                                              work, options);
      },
      [&] { return shunt::plan_from_expert_choice_scratch_bytes(where, plan.local); });
  nb::object const dense = dense_gate ? nb::borrow(dense_gate.object()) : nb::none();
  return nb::make_tuple(std::move(plan), dense);
}

nb::object dispatch(maybe x_, maybe plan_, maybe gate_, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const x(x_, "dispatch.x", 2, storage_types, access::read, here);
  plan_state const& plan = plan_of(plan_, "dispatch.plan", here);
  array const gate = optional(gate_, "dispatch.gate", 2, {element::f32}, access::read, here);
  array rows = output(out, x_, "dispatch.out", {plan.rows, x.extent(1)}, {x.type()}, here);
  apart().reads(x, gate, plan.memory).writes(rows).check();
  with_storage(x.type(), [&]<class T>() {
    run([&] {
      return shunt::dispatch(where, x.as<T const, 2, S>(), plan.as<S>(), rows.as<T, 2, S>(),
                             {gate.as<float const, 2, S>()});
    });
  });
  return nb::borrow(rows.object());
}

nb::tuple dispatch_backward(maybe d_rows_, maybe plan_, maybe gate_, maybe x_, maybe d_gate_,
                            bool accumulate, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const d_rows(d_rows_, "dispatch_backward.d_rows", 2, storage_types, access::read, here);
  plan_state const& plan = plan_of(plan_, "dispatch_backward.plan", here);
  array const gate =
      optional(gate_, "dispatch_backward.gate", 2, {element::f32}, access::read, here);
  array const x = optional(x_, "dispatch_backward.x", 2, {d_rows.type()}, access::read, here);
  if (accumulate && out.is_none()) {
    throw nb::value_error("dispatch_backward.d_x is None; to accumulate it must hold a sum");
  }
  array d_x = output(out, d_rows_, "dispatch_backward.d_x", {plan.tokens, d_rows.extent(1)},
                     {d_rows.type(), element::f32}, here);
  array d_gate;
  if (x || !d_gate_.is_none()) {
    d_gate = output(d_gate_, d_rows_, "dispatch_backward.d_gate", {plan.tokens, plan.top_k},
                    {element::f32}, here);
  }
  apart().reads(d_rows, gate, x, plan.memory).writes(d_x, d_gate).check();
  with_storage(d_rows.type(), [&]<class T>() {
    shunt::dispatch_gradients<T, S> const options{
        gate.as<float const, 2, S>(), x.as<T const, 2, S>(), d_gate.as<float, 2, S>(), accumulate};
    with_type_or_float<T>(d_x.type(), [&]<class D>() {
      run([&] {
        return shunt::dispatch_backward(where, d_rows.as<T const, 2, S>(), plan.as<S>(),
                                        d_x.as<D, 2, S>(), options);
      });
    });
  });
  return nb::make_tuple(nb::borrow(d_x.object()),
                        d_gate ? nb::borrow(d_gate.object()) : nb::none());
}

nb::object row_tokens(maybe plan_, maybe out, maybe on) {
  policy const where = policy_of(on);
  plan_state const& plan = plan_of(plan_, "row_tokens.plan", here);
  array token =
      output(out, plan.memory.object(), "row_tokens.out", {plan.rows}, {element::i32}, here);
  apart().reads(plan.memory).writes(token).check();
  run([&] { return shunt::row_tokens(where, plan.as<S>(), token.as<index_t, 1, S>()); });
  return nb::borrow(token.object());
}

nb::object gates_to_rows(maybe gate_, maybe plan_, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const gate(gate_, "gates_to_rows.gate", 2, {element::f32}, access::read, here);
  plan_state const& plan = plan_of(plan_, "gates_to_rows.plan", here);
  array rows = output(out, gate_, "gates_to_rows.out", {plan.rows}, {element::f32}, here);
  apart().reads(gate, plan.memory).writes(rows).check();
  run([&] {
    return shunt::gates_to_rows(where, gate.as<float const, 2, S>(), plan.as<S>(),
                                rows.as<float, 1, S>());
  });
  return nb::borrow(rows.object());
}

nb::object rows_to_gates(maybe row_gate_, maybe plan_, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const row_gate(row_gate_, "rows_to_gates.row_gate", 1, {element::f32}, access::read, here);
  plan_state const& plan = plan_of(plan_, "rows_to_gates.plan", here);
  array gate =
      output(out, row_gate_, "rows_to_gates.out", {plan.tokens, plan.top_k}, {element::f32}, here);
  apart().reads(row_gate, plan.memory).writes(gate).check();
  run([&] {
    return shunt::rows_to_gates(where, row_gate.as<float const, 1, S>(), plan.as<S>(),
                                gate.as<float, 2, S>());
  });
  return nb::borrow(gate.object());
}

}  // namespace

void bind_dispatch(nb::module_& m) {
  def(m, "plan_dispatch", &plan_dispatch);
  def(m, "plan_from_expert_choice", &plan_from_expert_choice);
  def(m, "dispatch", &dispatch);
  def(m, "dispatch_backward", &dispatch_backward);
  def(m, "row_tokens", &row_tokens);
  def(m, "gates_to_rows", &gates_to_rows);
  def(m, "rows_to_gates", &rows_to_gates);
}

}  // namespace bindings
