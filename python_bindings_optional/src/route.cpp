#include "shunt/route.hpp"

#include <limits>
#include <string>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "policy.hpp"
#include "routing.hpp"

namespace bindings {
namespace {

/// What route() and its backward read beside the logits.
struct route_arrays {
  array choice_bias, valid, ids, token;

  route_arrays(nb::handle choice_bias_, nb::handle valid_, nb::handle ids_, nb::handle token_)
      : choice_bias(
            optional(choice_bias_, "route.choice_bias", 1, {element::f32}, access::read, here)),
        valid(optional(valid_, "route.valid", 1, {element::u8}, access::read, here)),
        ids(optional(ids_, "route.ids", 2, {element::i32, element::i16}, access::read, here)),
        token(optional(token_, "route.token", 1, {element::i32}, access::read, here)) {}

  [[nodiscard]] shunt::route_inputs<S> views() const noexcept {
    return {choice_bias.as<float const, 1, S>(), valid.as<std::uint8_t const, 1, S>(),
            ids_of<S>(ids), token.as<index_t const, 1, S>()};
  }
};

shunt::shape sizes_of(array const& logits, offset_t top_k) noexcept {
  return {.tokens = static_cast<index_t>(logits.extent(0)),
          .experts = static_cast<index_t>(logits.extent(1)),
          .top_k = static_cast<index_t>(top_k)};
}

nb::tuple route(maybe logits_, offset_t top_k, shunt::route_options const& options,
                maybe choice_bias, maybe valid, maybe ids, maybe token, maybe wanted_,
                maybe expert_, maybe gate_, maybe on) {
  policy const where = policy_of(on);
  array const logits(logits_, "route.logits", 2, storage_types, access::read, here);
  route_arrays const with(choice_bias, valid, ids, token);
  wanted_arrays const wanted(wanted_, here);
  if (top_k < 1 || top_k > logits.extent(1)) {
    throw nb::value_error(("route.top_k is " + std::to_string(top_k) + "; it must be from 1 to " +
                           std::to_string(logits.extent(1)) + " (experts)")
                              .c_str());
  }
  offset_t const tokens = logits.extent(0);
  array expert = output(expert_, logits_, "route.expert", {tokens, top_k}, {element::i32}, here);
  array gate = output(gate_, logits_, "route.gate", {tokens, top_k}, {element::f32}, here);
  shunt::routing<S> out;
  out.expert = expert.as<index_t, 2, S>();
  out.gate = gate.as<float, 2, S>();
  wanted.fill(out);
  apart arrays;
  wanted.written_in(arrays);
  arrays.reads(logits, with.choice_bias, with.valid, with.ids, with.token)
      .writes(expert, gate)
      .check();
  with_storage(logits.type(), [&]<class T>() {
    run_with_scratch(
        logits_,
        [&](auto work) {
          return shunt::route(where, logits.as<T const, 2, S>(), with.views(), out, work, options);
        },
        [&] {
          return shunt::route_scratch_bytes(where, sizes_of(logits, out.expert.extent(1)),
                                            static_cast<index_t>(shunt::detail::sequences_of(out)));
        });
  });
  return nb::make_tuple(nb::borrow(expert.object()), nb::borrow(gate.object()));
}

/// Ids that name an expert, or none. A device's are not read here.
void check_ids(array const& expert, offset_t experts) {
  if constexpr (here == place::host) {
    auto const ids = expert.as<index_t const, 2, S>();
    for (offset_t t = 0; t < ids.extent(0); ++t) {
      for (offset_t k = 0; k < ids.extent(1); ++k) {
        if (ids(t, k) >= -1 && ids(t, k) < experts) continue;
        throw nb::value_error(("route_backward.expert[" + std::to_string(t) + ", " +
                               std::to_string(k) + "] is " + std::to_string(ids(t, k)) +
                               "; it must be from -1 to " + std::to_string(experts - 1))
                                  .c_str());
      }
    }
  }
}

nb::object route_backward(maybe logits_, maybe expert_, maybe d_gate_,
                          shunt::route_options const& options, maybe choice_bias, maybe valid,
                          maybe ids, maybe token, maybe from_losses, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const logits(logits_, "route_backward.logits", 2, storage_types, access::read, here);
  array const expert(expert_, "route_backward.expert", 2, {element::i32}, access::read, here);
  array const d_gate(d_gate_, "route_backward.d_gate", 2, {element::f32}, access::read, here);
  route_arrays const with(choice_bias, valid, ids, token);
  loss_gradients const losses(from_losses, here);
  check_ids(expert, logits.extent(1));
  array d_logits =
      output(out, logits_, "route_backward.d_logits", {logits.extent(0), logits.extent(1)},
             {logits.type(), element::f32}, here);
  apart arrays;
  if (!same_memory(d_logits, logits)) arrays.reads(logits);
  arrays.reads(expert, d_gate, with.choice_bias, with.valid, with.ids, with.token)
      .reads(losses.importance, losses.sequence_importance, losses.z)
      .writes(d_logits)
      .check();
  shunt::routing<S> chosen;
  // Shunt's routing is what is written; a backward only reads it.
  chosen.expert = expert.as<index_t, 2, S>();
  shunt::route_gradients<S> d;
  d.gate = d_gate.as<float const, 2, S>();
  losses.fill(d);
  offset_t const sequences = losses.sequence_importance ? losses.sequence_importance.extent(0) : 1;
  with_storage(logits.type(), [&]<class T>() {
    with_type_or_float<T>(d_logits.type(), [&]<class D>() {
      run_with_scratch(
          logits_,
          [&](auto work) {
            return shunt::route_backward(where, logits.as<T const, 2, S>(), with.views(), chosen, d,
                                         d_logits.as<D, 2, S>(), work, options);
          },
          [&] {
            return shunt::route_scratch_bytes(where, sizes_of(logits, expert.extent(1)),
                                              static_cast<index_t>(sequences));
          });
    });
  });
  return nb::borrow(d_logits.object());
}

nb::tuple route_expert_choice(maybe logits_, offset_t chosen, shunt::route_options const& options,
                              maybe valid_, maybe token_, maybe gate_, maybe counts_,
                              maybe coverage_, maybe report_, maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const logits(logits_, "route_expert_choice.logits", 2, storage_types, read, here);
  array const valid = optional(valid_, "route_expert_choice.valid", 1, {element::u8}, read, here);
  offset_t const experts = logits.extent(1);
  raise_unless_ok(shunt::check::between("route_expert_choice.chosen", chosen, 0,
                                        std::numeric_limits<index_t>::max()));
  array token =
      output(token_, logits_, "route_expert_choice.token", {experts, chosen}, {element::i32}, here);
  array gate =
      output(gate_, logits_, "route_expert_choice.gate", {experts, chosen}, {element::f32}, here);
  auto const given = [&](nb::handle object, char const* name, element type) {
    return optional(object, name, 1, {type}, write, here);
  };
  array const counts = given(counts_, "route_expert_choice.counts", element::i32);
  array const coverage = given(coverage_, "route_expert_choice.coverage", element::i32);
  array const report = given(report_, "route_expert_choice.report", element::i64);
  apart().reads(logits, valid).writes(token, gate, counts, coverage, report).check();
  shunt::expert_choice<S> const out{token.as<index_t, 2, S>(), gate.as<float, 2, S>(),
                                    counts.as<index_t, 1, S>(), coverage.as<index_t, 1, S>(),
                                    report.as<std::int64_t, 1, S>()};
  with_storage(logits.type(), [&]<class T>() {
    run_with_scratch(
        logits_,
        [&](auto work) {
          return shunt::route_expert_choice(where, logits.as<T const, 2, S>(), out, work, options,
                                            valid.as<std::uint8_t const, 1, S>());
        },
        [&] { return shunt::route_expert_choice_scratch_bytes(where, sizes_of(logits, 1)); });
  });
  return nb::make_tuple(nb::borrow(token.object()), nb::borrow(gate.object()));
}

nb::object route_expert_choice_backward(maybe logits_, maybe token_, maybe d_gate_,
                                        shunt::route_options const& options, maybe valid_,
                                        maybe out, maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const logits(logits_, "route_expert_choice_backward.logits", 2, storage_types, read, here);
  array const token(token_, "route_expert_choice_backward.token", 2, {element::i32}, read, here);
  array const d_gate(d_gate_, "route_expert_choice_backward.d_gate", 2, {element::f32}, read, here);
  array const valid =
      optional(valid_, "route_expert_choice_backward.valid", 1, {element::u8}, read, here);
  array d_logits =
      output(out, logits_, "route_expert_choice_backward.d_logits",
             {logits.extent(0), logits.extent(1)}, {logits.type(), element::f32}, here);
  apart().reads(logits, token, d_gate, valid).writes(d_logits).check();
  shunt::expert_choice<S> chosen;
  chosen.token = token.as<index_t, 2, S>();
  with_storage(logits.type(), [&]<class T>() {
    with_type_or_float<T>(d_logits.type(), [&]<class D>() {
      run_with_scratch(
          logits_,
          [&](auto work) {
            return shunt::route_expert_choice_backward(
                where, logits.as<T const, 2, S>(), chosen, d_gate.as<float const, 2, S>(),
                d_logits.as<D, 2, S>(), work, options, valid.as<std::uint8_t const, 1, S>());
          },
          [&] { return shunt::route_expert_choice_scratch_bytes(where, sizes_of(logits, 1)); });
    });
  });
  return nb::borrow(d_logits.object());
}

}  // namespace

void bind_route(nb::module_& m) {
  def(m, "route", &route);
  def(m, "route_backward", &route_backward);
  def(m, "route_expert_choice", &route_expert_choice);
  def(m, "route_expert_choice_backward", &route_expert_choice_backward);
}

}  // namespace bindings
