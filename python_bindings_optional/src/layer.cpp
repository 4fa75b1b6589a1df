#include "layer_arguments.hpp"

#include <string>
#include <utility>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"

namespace bindings {
namespace {

nb::object moe_layer(maybe x, weights const& w, layer_settings const& settings, maybe valid,
                     maybe ids, maybe token, maybe loss, maybe observe, maybe report_, maybe out,
                     maybe saved_, maybe on) {
  auto* const report = instance<layer_report>(report_, "moe_layer.report", "a shunt.LayerReport");
  auto* const saved = instance<saved_state>(saved_, "moe_layer.saved", "a shunt.Saved");
  policy const where = policy_of(on);
  array const in = tokens_of(x, "moe_layer.x", w);
  options_type o = settings.of<S>();
  layer_inputs const with(valid, nb::none(), ids, token, here);
  with.fill(o);
  wanted_arrays const wanted(observe, here);
  array const losses = optional(loss, "moe_layer.loss", 1, {element::f32}, access::write, here);
  if (auto const l = losses.as<float, 1, S>(); l && l.extent(0) != 2) {
    value_error("moe_layer.loss: extent 0 is " + std::to_string(l.extent(0)) +
                "; it must be 2 (balance loss, z-loss)");
  }
  if (o.add_to_y && out.is_none()) {
    value_error("moe_layer.out is None; with add_to_y it must hold what is added to");
  }
  array y = output(out, x, "moe_layer.out", {in.extent(0), in.extent(1)}, {w.type()}, here);
  apart arrays;
  w.each_array([&](array const& a) { arrays.reads(a); });
  with.read_in(arrays);
  wanted.written_in(arrays);
  arrays.reads(in).writes(y, losses).check();

  weights::tables const addresses = w.addresses();
  with_types(w, [&]<class T, class G>() {
    auto const weights = w.as<T, G, S>(addresses);
    auto const from = in.as<T const, 2, S>();
    auto const to = y.as<T, 2, S>();
    auto const tokens = static_cast<index_t>(from.extent(0));
    shunt::moe_outputs<T, S> outputs{.loss = losses.as<float, 1, S>()};
    wanted.fill(outputs.route);
    if (report != nullptr) report->wanted_in(outputs, x, fetcher);
    auto const go = [&](shunt::arena<S> work, shunt::moe_saved<T, S> const* keep) {
      outputs.saved = keep;
      return shunt::moe_layer(where, from, weights, to, outputs, work, o);
    };
    auto const bytes = [&](bool training) {
      return shunt::moe_layer_scratch_bytes(where, tokens, weights, o, training);
    };
    if (saved == nullptr) {
      run_with_scratch(
          x, [&](auto work) { return go(work, nullptr); }, [&] { return bytes(false); });
      return;
    }
    saved_state::use const mine(saved, true);
    auto const key = key_of(w.type(), shunt::detail::moe_sizes(from.extent(0), weights, o), o);
    bool const fits = saved->filled && saved->key == key && saved->reached(here);
    saved->filled = false;
    if (!fits) {
      // Without memory the layer checks all else and writes nothing: sizes are then safe to
      // measure.
      if (auto const bad = go({}, nullptr); bad.code() != shunt::error::arena_too_small) {
        raise_unless_ok(bad);
      }
      auto const needed = static_cast<offset_t>(shunt::moe_saved_bytes(tokens, weights, o));
      saved->memory = output(nb::none(), x, "Saved", {needed}, {element::u8}, here);
    }
    auto from_bytes = saved->arena<S>();
    auto const keep = shunt::carve_moe_saved(from_bytes, tokens, weights, o);
    run_with_scratch(x, [&](auto work) { return go(work, &keep); }, [&] { return bytes(true); });
    saved->key = key;
    saved->filled = true;
  });
  return nb::borrow(y.object());
}

nb::object moe_layer_backward(maybe x, weights const& w, maybe d_y, maybe saved_,
                              layer_settings const& settings, maybe valid, maybe frozen, maybe ids,
                              maybe token, maybe from_losses, maybe gradients, maybe out,
                              maybe on) {
  auto* const given = instance<saved_state>(saved_, "moe_layer_backward.saved", "a shunt.Saved");
  if (given == nullptr || !given->filled) {
    value_error("moe_layer_backward.saved is empty; it must be one that moe_layer filled");
  }
  saved_state& saved = *given;
  policy const where = policy_of(on);
  array const in = tokens_of(x, "moe_layer_backward.x", w);
  array const back(d_y, "moe_layer_backward.d_y", 2, {w.type()}, access::read, here);
  options_type o = settings.of<S>();
  layer_inputs const with(valid, frozen, ids, token, here);
  with.fill(o);
  loss_gradients const losses(from_losses, here);
  losses.fill(o.from_losses);
  gradient_arrays const g(gradients, w);
  if (with.frozen && with.frozen.extent(0) != w.up.experts()) {
    value_error("moe_layer_backward.frozen: extent 0 is " + std::to_string(with.frozen.extent(0)) +
                "; it must be " + std::to_string(w.up.experts()) + " (experts)");
  }
  array d_x = output(out, x, "moe_layer_backward.d_x", {in.extent(0), in.extent(1)},
                     {w.type(), element::f32}, here);
  apart arrays;
  w.each_array([&](array const& a) { arrays.reads(a); });
  with.read_in(arrays);
  g.written_in(arrays);
  arrays.reads(in, back, losses.importance, losses.sequence_importance, losses.z)
      .writes(d_x)
      .check();

  weights::tables const addresses = w.addresses();
  with_types(w, [&]<class T, class G>() {
    auto const weights = w.as<T, G, S>(addresses);
    auto const from = in.as<T const, 2, S>();
    auto const tokens = static_cast<index_t>(from.extent(0));
    saved_state::use const mine(&saved, false);
    if (saved.key != key_of(w.type(), shunt::detail::moe_sizes(from.extent(0), weights, o), o) ||
        !saved.reached(here)) {
      value_error(
          "moe_layer_backward.saved was made by another call of moe_layer; it must be the one with "
          "these tokens, weights and options");
    }
    auto bytes = saved.arena<S>();
    auto const keep = shunt::carve_moe_saved(bytes, tokens, weights, o);
    auto const go = [&]<class D>() {
      run_with_scratch(
          x,
          [&](auto work) {
            return shunt::moe_layer_backward(where, from, weights, back.as<T const, 2, S>(), keep,
                                             d_x.as<D, 2, S>(), g.views(), work, o);
          },
          [&] { return shunt::moe_layer_backward_scratch_bytes(where, tokens, weights, o); });
    };
    if (d_x.type() == w.type()) {
      go.template operator()<T>();
    } else {
      go.template operator()<float>();
    }
  });
  return nb::borrow(d_x.object());
}

}  // namespace

void bind_layer(nb::module_& m) {
  def(m, "moe_layer", &moe_layer);
  def(m, "moe_layer_backward", &moe_layer_backward);
}

}  // namespace bindings
