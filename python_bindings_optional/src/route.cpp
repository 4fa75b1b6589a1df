#include "route.hpp"

#include <string>

#include "call.hpp"
#include "maybe.hpp"
#include "policy.hpp"
#include "routing.hpp"
#include "shunt/route.hpp"

namespace bindings {
namespace {

constexpr shunt::space S = policy::memory;

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
        [&](auto work) {
          return shunt::route(where, logits.as<T const, 2, S>(), out, work, options, with.views());
        },
        [&] {
          return shunt::route_bytes(where, sizes_of(logits, out.expert.extent(1)),
                                    static_cast<index_t>(shunt::detail::sequences_of(out)));
        });
  });
  return nb::make_tuple(nb::borrow(expert.object()), nb::borrow(gate.object()));
}

}  // namespace

void bind_route(nb::module_& m) { m.def("route", &route); }

}  // namespace bindings
