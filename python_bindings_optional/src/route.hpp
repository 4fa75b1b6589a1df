#pragma once
#include <nanobind/nanobind.h>

namespace bindings {

void bind_route(nanobind::module_& m);

}  // namespace bindings
