#include "routing.hpp"

#include <string>

namespace bindings {
namespace {

/// The items of a tuple of `count`; raises where it is something else.
nb::tuple tuple_of(nb::handle object, char const* name, std::size_t count) {
  if (!nb::isinstance<nb::tuple>(object) || nb::len(object) != count) {
    throw nb::type_error(
        (std::string(name) + " must be a tuple of " + std::to_string(count)).c_str());
  }
  return nb::borrow<nb::tuple>(object);
}

}  // namespace

wanted_arrays::wanted_arrays(nb::handle tuple, place where) {
  if (tuple.is_none()) return;
  nb::tuple const given = tuple_of(tuple, "the wanted outputs", 10);
  bool any = false;
  for (nb::handle const one : given) any = any || !one.is_none();
  if (!any) return;
  auto const out = [&](int at, char const* name, int rank, element type) {
    return optional(given[at], name, rank, {type}, access::write, where);
  };
  given_ = fields{out(0, "route.recorded", 2, element::i16),
                  out(1, "route.z", 1, element::f32),
                  out(2, "route.counts", 1, element::i32),
                  out(3, "route.importance", 1, element::f32),
                  out(4, "route.tokens", 1, element::i32),
                  out(5, "route.sequence_counts", 2, element::i32),
                  out(6, "route.sequence_importance", 2, element::f32),
                  out(7, "route.sequence_tokens", 1, element::i32),
                  out(8, "route.histogram", 2, element::i32),
                  out(9, "route.report", 1, element::i64)};
}

loss_gradients::loss_gradients(nb::handle tuple, place where) {
  if (tuple.is_none()) return;
  nb::tuple const given = tuple_of(tuple, "from_losses", 3);
  auto const in = [&](int at, char const* name, int rank) {
    return optional(given[at], name, rank, {element::f32}, access::read, where);
  };
  importance = in(0, "from_losses.importance", 1);
  sequence_importance = in(1, "from_losses.sequence_importance", 2);
  z = in(2, "from_losses.z", 1);
}

}  // namespace bindings
