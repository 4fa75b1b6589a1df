#include <string>

#include "layer.hpp"
#include "maybe.hpp"
#include "shunt/core/arena.hpp"

namespace bindings {

saved_state::use::use(saved_state* of, bool writes) : of_(of), writes_(writes) {
  if (of->users < 0 || (writes && of->users > 0)) {
    throw nb::value_error("saved is in use by a call in another thread; each needs one of its own");
  }
  of->users = writes ? -1 : of->users + 1;
}

saved_state::use::~use() { of_->users = writes_ ? 0 : of_->users - 1; }

namespace {

/// The memory, for a framework that keeps it, moves it or lets it go; the state is then not filled.
nb::object lend(saved_state& s) {
  if (!s.filled) value_error("saved is empty; only one that a call filled has memory to lend");
  saved_state::use const mine(&s, true);
  nb::object memory = nb::borrow(s.memory.object());
  s.lent = s.memory.extent(0);
  s.memory = array();
  s.filled = false;
  return memory;
}

/// A filled state in `memory`, which is what `lend` gave or a copy of it.
saved_state with_memory(saved_state const& s, maybe memory) {
  saved_state made;
  made.memory = array(memory, "saved.memory", 1, {element::u8}, access::write, place::any);
  offset_t const size = made.memory.extent(0);
  if (s.lent == 0 || size != s.lent) {
    value_error("saved.memory has " + std::to_string(size) + " bytes; it must have the " +
                std::to_string(s.lent) + " that were lent");
  }
  // Pieces start on aligned addresses: elsewhere their offsets from the first byte would differ.
  if (reinterpret_cast<std::uintptr_t>(made.memory.data()) % shunt::arena<>::alignment != 0 ||
      (size > 1 && made.memory.stride(0) != 1)) {
    value_error("saved.memory must be contiguous and start on " +
                std::to_string(shunt::arena<>::alignment) + " bytes");
  }
  made.key = s.key;
  made.filled = true;
  return made;
}

}  // namespace

layer_inputs::layer_inputs(nb::handle valid_, nb::handle frozen_, nb::handle ids_,
                           nb::handle token_, place where)
    : valid(optional(valid_, "moe_layer.valid", 1, {element::u8}, access::read, where)),
      frozen(optional(frozen_, "moe_layer.frozen", 1, {element::u8}, access::read, where)),
      ids(optional(ids_, "moe_layer.ids", 2, {element::i32, element::i16}, access::read, where)),
      token(optional(token_, "moe_layer.token", 1, {element::i32}, access::read, where)) {}

void bind_layer_types(nb::module_& m) {
  nb::class_<saved_state>(m, "Saved", "What moe_layer keeps for moe_layer_backward.")
      .def(nb::init<>())
      .def_prop_ro("nbytes", [](saved_state const& s) { return s.memory ? s.memory.extent(0) : 0; })
      .def_ro("filled", &saved_state::filled)
      .def("lend", &lend,
           "The memory of what was saved. It is filled no more: with_memory makes one that is.")
      .def("with_memory", &with_memory,
           "A filled Saved in the memory that lend gave, or in a copy of it.");
  nb::class_<layer_report>(m, "LayerReport", "Figures of the load of one call of moe_layer.")
      .def(nb::init<>())
      .def_prop_ro("figures", [](layer_report& r) { return described(r.figures.value()); })
      .def_prop_ro("totals", [](layer_report& r) { return described(r.totals.value()); });
}

}  // namespace bindings
