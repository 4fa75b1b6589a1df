#include "shunt/gate_projection.hpp"

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"

namespace bindings {
namespace {

nb::object gate_logits(maybe x_, maybe w_, maybe bias_, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const x(x_, "gate_logits.x", 2, storage_types, access::read, here);
  array const w(w_, "gate_logits.w", 2, {x.type(), element::f32}, access::read, here);
  array const bias = optional(bias_, "gate_logits.bias", 1, {element::f32}, access::read, here);
  array logits =
      output(out, x_, "gate_logits.out", {x.extent(0), w.extent(0)}, {element::f32}, here);
  apart().reads(x, w, bias).writes(logits).check();
  with_storage(x.type(), [&]<class X>() {
    with_type_or_float<X>(w.type(), [&]<class W>() {
      run([&] {
        return shunt::gate_logits(where, x.as<X const, 2, S>(), w.as<W const, 2, S>(),
                                  logits.as<float, 2, S>(), bias.as<float const, 1, S>());
      });
    });
  });
  return nb::borrow(logits.object());
}

nb::tuple gate_logits_backward(maybe d_logits_, maybe x_, maybe w_, bool add_x, bool add_weights,
                               maybe d_x_, maybe d_w_, maybe d_bias_, maybe on) {
  policy const where = policy_of(on);
  array const d_logits(d_logits_, "gate_logits_backward.d_logits", 2, {element::f32}, access::read,
                       here);
  array const x(x_, "gate_logits_backward.x", 2, storage_types, access::read, here);
  array const w(w_, "gate_logits_backward.w", 2, {x.type(), element::f32}, access::read, here);
  if ((add_x && d_x_.is_none()) || (add_weights && (d_w_.is_none() || d_bias_.is_none()))) {
    throw nb::value_error(
        "gate_logits_backward: a gradient that is added to is None; it must hold a sum");
  }
  array d_x = output(d_x_, x_, "gate_logits_backward.d_x", {x.extent(0), x.extent(1)},
                     {x.type(), element::f32}, here);
  array d_w = output(d_w_, w_, "gate_logits_backward.d_w", {w.extent(0), w.extent(1)},
                     {element::f32}, here);
  array d_bias =
      output(d_bias_, w_, "gate_logits_backward.d_bias", {w.extent(0)}, {element::f32}, here);
  apart().reads(d_logits, x, w).writes(d_x, d_w, d_bias).check();
  with_storage(x.type(), [&]<class X>() {
    with_type_or_float<X>(w.type(), [&]<class W>() {
      with_type_or_float<X>(d_x.type(), [&]<class D>() {
        shunt::gate_gradients<D, S> const d{d_x.as<D, 2, S>(), d_w.as<float, 2, S>(),
                                            d_bias.as<float, 1, S>(), add_x, add_weights};
        run([&] {
          return shunt::gate_logits_backward(where, d_logits.as<float const, 2, S>(),
                                             x.as<X const, 2, S>(), w.as<W const, 2, S>(), d);
        });
      });
    });
  });
  return nb::make_tuple(nb::borrow(d_x.object()), nb::borrow(d_w.object()),
                        nb::borrow(d_bias.object()));
}

}  // namespace

void bind_projection(nb::module_& m) {
  def(m, "gate_logits", &gate_logits);
  def(m, "gate_logits_backward", &gate_logits_backward);
}

}  // namespace bindings
