#include <string>

#include "layer.hpp"

namespace bindings {

saved_state::use::use(saved_state* of, bool writes) : of_(of), writes_(writes) {
  if (of->users < 0 || (writes && of->users > 0)) {
    throw nb::value_error("saved is in use by a call in another thread; each needs one of its own");
  }
  of->users = writes ? -1 : of->users + 1;
}

saved_state::use::~use() { of_->users = writes_ ? 0 : of_->users - 1; }

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
      .def_ro("filled", &saved_state::filled);
  nb::class_<layer_report>(m, "LayerReport", "Figures of the load of one call of moe_layer.")
      .def(nb::init<>())
      .def_prop_ro("figures", [](layer_report& r) { return described(r.figures.value()); })
      .def_prop_ro("totals", [](layer_report& r) { return described(r.totals.value()); });
}

}  // namespace bindings
