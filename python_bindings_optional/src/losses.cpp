#include "shunt/route_losses.hpp"

#include <nanobind/stl/string_view.h>

#include <string_view>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "shunt/route_bias.hpp"

namespace bindings {
namespace {

nb::tuple both(array const& loss, array const& gradient) {
  return nb::make_tuple(nb::borrow(loss.object()), nb::borrow(gradient.object()));
}

/// An output that is added to must be given.
void check_given(bool accumulate, nb::handle loss, nb::handle gradient) {
  if (accumulate && (loss.is_none() || gradient.is_none())) {
    throw nb::value_error("loss or its gradient is None; to accumulate both must hold sums");
  }
}

/// What a loss of the load reads, of rank 1 or of N sequences, and writes.
struct load_loss {
  array counts, importance, tokens, loss, d;

  load_loss(nb::handle counts_, nb::handle importance_, nb::handle tokens_, int rank,
            bool accumulate, nb::handle loss_, char const* loss_name, nb::handle d_,
            char const* d_name)
      : counts(counts_, "load.counts", rank, {element::i32}, access::read, here),
        importance(importance_, "load.importance", rank, {element::f32}, access::read, here),
        tokens(tokens_, "load.tokens", 1, {element::i32}, access::read, here) {
    check_given(accumulate, loss_, d_);
    loss = output(loss_, importance_, loss_name, {1}, {element::f32}, here);
    offset_t const first = importance.extent(0);
    d = rank == 1
            ? output(d_, importance_, d_name, {first}, {element::f32}, here)
            : output(d_, importance_, d_name, {first, importance.extent(1)}, {element::f32}, here);
    apart().reads(counts, importance, tokens).writes(loss, d).check();
  }
  [[nodiscard]] shunt::routing<S> load() const noexcept {
    shunt::routing<S> r;
    if (importance.rank() == 1) {
      r.counts = counts.as<index_t, 1, S>();
      r.importance = importance.as<float, 1, S>();
      r.tokens = tokens.as<index_t, 1, S>();
    } else {
      r.sequence_counts = counts.as<index_t, 2, S>();
      r.sequence_importance = importance.as<float, 2, S>();
      r.sequence_tokens = tokens.as<index_t, 1, S>();
    }
    return r;
  }
};

nb::tuple balance_loss(maybe counts, maybe importance, maybe tokens, float coefficient,
                       bool accumulate, maybe loss, maybe d_importance, maybe on) {
  policy const where = policy_of(on);
  load_loss const a(counts, importance, tokens, 1, accumulate, loss, "balance_loss.loss",
                    d_importance, "balance_loss.d_importance");
  run([&] {
    return shunt::balance_loss(where, a.load(), a.loss.as<float, 1, S>(), a.d.as<float, 1, S>(),
                               {coefficient, accumulate});
  });
  return both(a.loss, a.d);
}

nb::tuple sequence_balance_loss(maybe counts, maybe importance, maybe tokens, float coefficient,
                                bool accumulate, maybe loss, maybe d_importance, maybe on) {
  policy const where = policy_of(on);
  load_loss const a(counts, importance, tokens, 2, accumulate, loss, "sequence_balance_loss.loss",
                    d_importance, "sequence_balance_loss.d_sequence_importance");
  shunt::routing<S> const r = a.load();
  raise_unless_ok(
      shunt::first_of(shunt::check::rows("load.sequence_counts", r.sequence_counts),
                      shunt::check::rows("load.sequence_importance", r.sequence_importance)));
  run([&] {
    return shunt::sequence_balance_loss(where, r, a.loss.as<float, 1, S>(), a.d.as<float, 2, S>(),
                                        {coefficient, accumulate});
  });
  return both(a.loss, a.d);
}

nb::tuple z_loss(maybe z_, maybe tokens_, float coefficient, bool accumulate, maybe loss_,
                 maybe d_z_, maybe on) {
  policy const where = policy_of(on);
  array const z(z_, "load.z", 1, {element::f32}, access::read, here);
  array const tokens(tokens_, "load.tokens", 1, {element::i32}, access::read, here);
  check_given(accumulate, loss_, d_z_);
  array loss = output(loss_, z_, "z_loss.loss", {1}, {element::f32}, here);
  array d = output(d_z_, z_, "z_loss.d_z", {z.extent(0)}, {element::f32}, here);
  apart().reads(z, tokens).writes(loss, d).check();
  shunt::routing<S> r;
  r.z = z.as<float, 1, S>();
  r.tokens = tokens.as<index_t, 1, S>();
  run([&] {
    return shunt::z_loss(where, r, loss.as<float, 1, S>(), d.as<float, 1, S>(),
                         {coefficient, accumulate});
  });
  return both(loss, d);
}

nb::tuple band_loss(maybe counts, maybe importance, maybe tokens, float coefficient, float low,
                    float high, std::string_view load_kind, bool accumulate, maybe loss,
                    maybe d_importance, maybe on) {
  policy const where = policy_of(on);
  if (load_kind != "probability" && load_kind != "counts") {
    throw nb::value_error("band_loss.load: it must be probability or counts");
  }
  load_loss const a(counts, importance, tokens, 1, accumulate, loss, "band_loss.loss", d_importance,
                    "band_loss.d_importance");
  auto const kind =
      load_kind == "counts" ? shunt::band_load::counts : shunt::band_load::probability;
  run([&] {
    return shunt::band_loss(where, a.load(), a.loss.as<float, 1, S>(), a.d.as<float, 1, S>(),
                            {coefficient, low, high, kind, accumulate});
  });
  return both(a.loss, a.d);
}

nb::object sign_step(maybe counts_, maybe bias_, float step, maybe on) {
  policy const where = policy_of(on);
  array const counts(counts_, "sign_step.counts", 1, {element::i32}, access::read, here);
  array const bias(bias_, "sign_step.bias", 1, {element::f32}, access::write, here);
  apart().reads(counts).writes(bias).check();
  run([&] {
    return shunt::sign_step(where, counts.as<index_t const, 1, S>(), bias.as<float, 1, S>(), step);
  });
  return nb::borrow(bias.object());
}

nb::object quantile_step(maybe histogram_, maybe bias_, index_t top_k, maybe on) {
  policy const where = policy_of(on);
  array const histogram(histogram_, "quantile_step.histogram", 2, {element::i32}, access::read,
                        here);
  array const bias(bias_, "quantile_step.bias", 1, {element::f32}, access::write, here);
  apart().reads(histogram).writes(bias).check();
  run([&] {
    return shunt::quantile_step(where, histogram.as<index_t const, 2, S>(), bias.as<float, 1, S>(),
                                top_k);
  });
  return nb::borrow(bias.object());
}

}  // namespace

void bind_losses(nb::module_& m) {
  def(m, "balance_loss", &balance_loss);
  def(m, "sequence_balance_loss", &sequence_balance_loss);
  def(m, "z_loss", &z_loss);
  def(m, "band_loss", &band_loss);
  def(m, "sign_step", &sign_step);
  def(m, "quantile_step", &quantile_step);
}

}  // namespace bindings
