#include "plan.hpp"

#include <string>

#include "device_call.hpp"

namespace bindings {
namespace {

/// A part of a plan's memory, read-only, that keeps the plan alive.
nb::object part(nb::handle self, shunt::view<index_t, 1> ids) {
  auto const& plan = nb::cast<plan_state const&>(self);
  auto const count = static_cast<std::size_t>(ids.extent(0));
  if (plan.memory.where() != place::host) {
    auto const first = reinterpret_cast<std::byte const*>(ids.data()) -
                       static_cast<std::byte const*>(plan.memory.data());
    return nb::module_::import_("shunt._arrays")
        .attr("int32_part")(nb::borrow(plan.memory.object()), first, count);
  }
  return nb::cast(nb::ndarray<nb::numpy, index_t const, nb::ndim<1>>(ids.data(), {count}, self));
}

}  // namespace

plan_state const& plan_of(nb::handle object, char const* name, place where) {
  auto const* const plan = instance<plan_state>(object, name, "a shunt.Plan");
  if (plan == nullptr) throw nb::type_error((std::string(name) + " must be a shunt.Plan").c_str());
  if (plan->memory.where() != where) {
    throw nb::value_error((std::string(name) + " lies in " +
                           (where == place::host ? "device" : "host") + " memory; it must lie in " +
                           (where == place::host ? "host" : "device") + " memory")
                              .c_str());
  }
  if (where == place::cuda && plan->memory.device() >= 0 &&
      plan->memory.device() != called().device) {
    value_error(std::string(name) + " lies on CUDA device " +
                std::to_string(plan->memory.device()) + "; it must lie on device " +
                std::to_string(called().device) + ", as the call does");
  }
  return *plan;
}

segments_argument::segments_argument(nb::handle object, char const* name, place where) {
  if (nb::isinstance<plan_state>(object)) {
    plan = &plan_of(object, name, where);
  } else if (!object.is_none()) {
    offset = array(object, name, 1, {element::i32}, access::read, where);
  }
}

void bind_plan(nb::module_& m) {
  constexpr auto host = shunt::space::host;
  nb::class_<plan_state>(m, "Plan",
                         "Which row each slot (token * top_k + k) has, and which slot each row "
                         "serves. Made by plan_dispatch and plan_from_expert_choice.")
      .def_ro("tokens", &plan_state::tokens)
      .def_ro("top_k", &plan_state::top_k)
      .def_ro("experts", &plan_state::local)
      .def_ro("rows", &plan_state::rows)
      .def_prop_ro("memory", [](plan_state const& p) { return nb::borrow(p.memory.object()); })
      .def_prop_ro("totals", [](plan_state const& p) { return described(p.totals.value()); })
      .def_prop_ro("offset",
                   [](nb::handle self) {
                     return part(self, nb::cast<plan_state const&>(self).as<host>().offset);
                   })
      .def_prop_ro("row_slot",
                   [](nb::handle self) {
                     return part(self, nb::cast<plan_state const&>(self).as<host>().row_slot);
                   })
      .def_prop_ro("slot_row", [](nb::handle self) {
        return part(self, nb::cast<plan_state const&>(self).as<host>().slot_row);
      });
}

}  // namespace bindings
