#include <nanobind/nanobind.h>

#include "layer.hpp"
#include "options.hpp"
#include "route.hpp"
#include "weights.hpp"

NB_MODULE(_host, m) {
  bindings::bind_options(m);
  bindings::bind_weights(m);
  bindings::bind_layer_types(m);
  bindings::bind_layer(m);
  bindings::bind_route(m);
}
