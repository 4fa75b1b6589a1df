#pragma once
#include <nanobind/nanobind.h>

#include "shunt/stats/report.hpp"

namespace bindings {

/// The members of Shunt's reports, by their names.
[[nodiscard]] nanobind::dict described(shunt::load_figures const& f);
[[nodiscard]] nanobind::dict described(shunt::plan_counts const& c);

}  // namespace bindings
