#pragma once
/// The parts of a module, each in a translation unit of its own.
#include <nanobind/nanobind.h>

namespace bindings {

void bind_combine(nanobind::module_& m);
void bind_dispatch(nanobind::module_& m);
void bind_experts(nanobind::module_& m);
void bind_layer(nanobind::module_& m);
void bind_losses(nanobind::module_& m);
void bind_moe_experts(nanobind::module_& m);
void bind_projection(nanobind::module_& m);
void bind_route(nanobind::module_& m);
void bind_stats(nanobind::module_& m);

}  // namespace bindings
