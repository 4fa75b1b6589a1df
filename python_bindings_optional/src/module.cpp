#include <nanobind/nanobind.h>

#include "bind.hpp"
#include "call.hpp"
#include "layer.hpp"
#include "options.hpp"
#include "plan.hpp"
#include "weights.hpp"

NB_MODULE(_host, m) {
  // Options in default arguments live as long as the interpreter, which clears no module at its
  // end.
  nanobind::set_leak_warnings(false);
  bindings::bind_options(m);
  bindings::bind_weights(m);
  bindings::bind_plan(m);
  bindings::bind_layer_types(m);

  bindings::bind_stages(m);
  bindings::bind_ids(m);
  bindings::bind_across_ranks(m);
  bindings::bind_across(m);
  m.def("repeat", [](int times) { bindings::repeats() = times < 1 ? 1 : times; });
}
