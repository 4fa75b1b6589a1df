#pragma once
/// The parts of a module, each in a translation unit of its own.
#include <nanobind/nanobind.h>

namespace bindings {

void bind_across(nanobind::module_& m);        ///< of the host alone
void bind_across_ranks(nanobind::module_& m);  ///< likewise
void bind_combine(nanobind::module_& m);
void bind_dispatch(nanobind::module_& m);
void bind_experts(nanobind::module_& m);
void bind_ids(nanobind::module_& m);  ///< of the host alone
void bind_layer(nanobind::module_& m);
void bind_losses(nanobind::module_& m);
void bind_moe_experts(nanobind::module_& m);
void bind_projection(nanobind::module_& m);
void bind_route(nanobind::module_& m);
void bind_stats(nanobind::module_& m);

/// All of them.
inline void bind_stages(nanobind::module_& m) {
  bind_route(m);
  bind_losses(m);
  bind_projection(m);
  bind_dispatch(m);
  bind_experts(m);
  bind_combine(m);
  bind_stats(m);
  bind_layer(m);
  bind_moe_experts(m);
}

}  // namespace bindings
