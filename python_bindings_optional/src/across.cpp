#include "shunt/across.hpp"

#include <string>

#include "across_ranks.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "layer_arguments.hpp"
#include "maybe.hpp"

namespace bindings {
namespace {

using ranks = shunt::among_ranks<transport>;

/// Runs a call of all ranks once, with its scratch measured before: it could not be called again.
template <class Call> void run_once(std::size_t bytes, Call&& call) {
  run([&] {
    scratch& mine = scratch::of_thread();
    if (mine.size() < bytes) mine.grow(bytes);
    shunt::status const done = call(mine.arena());
    mine.shrink();
    return done;
  });
}
/// Of a call that this rank alone would refuse: room for what the ranks say of themselves.
std::size_t room_to_refuse(ranks const& among) {
  return static_cast<std::size_t>(shunt::detail::rank_messages::bytes) *
         static_cast<std::size_t>(among.transport.ranks());
}

template <class T, class G>
saved_key key_across(element type, ranks const& among, offset_t tokens,
                     shunt::moe_weights<T, G> const& w, options_type const& o) {
  saved_key key = key_of(type, shunt::detail::moe_sizes(tokens, w, o), o);
  key.received = shunt::across_rows_bound(among, static_cast<index_t>(tokens), o.top_k, o.capacity);
  key.ranks = among.transport.ranks();
  key.rank = among.transport.rank();
  key.placement = shunt::placement_number(among.placement);
  return key;
}

nb::object moe_layer_across(maybe x, weights const& w, among_state& among_,
                            layer_settings const& settings, maybe valid, maybe ids, maybe token,
                            maybe loss, maybe observe, maybe report_, maybe out, maybe saved_,
                            maybe on) {
  return meeting(among_, "moe_layer_across").hold([&]() -> nb::object {
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
    ranks const among = among_.ranks();
    with_types(w, [&]<class T, class G>() {
      auto const of_rank = w.as<T, G, S>(addresses);
      auto const from = in.as<T const, 2, S>();
      auto const to = y.as<T, 2, S>();
      auto const tokens = static_cast<index_t>(from.extent(0));
      shunt::moe_outputs<T, S> common{.loss = losses.as<float, 1, S>()};
      wanted.fill(common.route);
      if (report != nullptr) report->wanted_in(common, x, fetcher);
      shunt::moe_across_outputs<T> outputs{
          .loss = common.loss, .route = common.route, .load = common.load, .plan = common.plan};
      shunt::moe_across_saved<T> keep;
      bool const good =
          shunt::check::layer_across_forward(where, among, from, of_rank, to, outputs, o).ok();
      std::size_t bytes = room_to_refuse(among);
      saved_key key;
      std::optional<saved_state::use> mine;
      if (saved != nullptr) {
        mine.emplace(saved, true);
        saved->filled = false;
      }
      if (good) {
        if (saved != nullptr) {
          key = key_across(w.type(), among, tokens, of_rank, o);
          if (!(saved->key == key) || !saved->memory || !saved->reached(here)) {
            auto const needed =
                static_cast<offset_t>(shunt::moe_across_saved_bytes(among, tokens, of_rank, o));
            saved->memory = output(nb::none(), x, "Saved", {needed}, {element::u8}, here);
          }
          auto from_bytes = saved->arena<S>();
          keep = shunt::carve_moe_across_saved(from_bytes, among, tokens, of_rank, o);
          outputs.saved = &keep;
        }
        bytes = shunt::moe_layer_across_scratch_bytes(where, among, tokens, of_rank, o,
                                                      saved != nullptr);
      }
      run_once(bytes, [&](shunt::arena<> work) {
        return shunt::moe_layer_across(where, among, from, of_rank, to, outputs, work, o);
      });
      if (saved == nullptr) return;
      saved->key = key;
      saved->filled = true;
    });
    return nb::borrow(y.object());
  });
}

nb::object moe_layer_across_backward(maybe x, weights const& w, maybe d_y, maybe saved_,
                                     among_state& among_, layer_settings const& settings,
                                     maybe valid, maybe frozen, maybe ids, maybe token,
                                     maybe from_losses, maybe gradients, maybe out, maybe on) {
  return meeting(among_, "moe_layer_across_backward").hold([&]() -> nb::object {
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
      value_error("moe_layer_backward.frozen: extent 0 is " +
                  std::to_string(with.frozen.extent(0)) + "; it must be " +
                  std::to_string(w.up.experts()) + " (experts of this rank)");
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
    ranks const among = among_.ranks();
    with_types(w, [&]<class T, class G>() {
      auto const of_rank = w.as<T, G, S>(addresses);
      auto const from = in.as<T const, 2, S>();
      auto const tokens = static_cast<index_t>(from.extent(0));
      saved_state::use const mine(&saved, false);
      if (saved.key != key_across(w.type(), among, tokens, of_rank, o) || !saved.reached(here)) {
        value_error(
            "moe_layer_backward.saved was made by another call of across.moe_layer; it must be the "
            "one with these tokens, weights, ranks and options");
      }
      auto held = saved.arena<S>();
      auto const keep = shunt::carve_moe_across_saved(held, among, tokens, of_rank, o);
      auto const go = [&]<class D>() {
        auto const d_y_of = back.as<T const, 2, S>();
        auto const to = d_x.as<D, 2, S>();
        bool const good = shunt::check::layer_across_backward(where, among, from, of_rank, d_y_of,
                                                              keep, to, g.views(), o)
                              .ok();
        std::size_t const bytes =
            good ? shunt::moe_layer_across_backward_scratch_bytes(where, among, tokens, of_rank, o)
                 : room_to_refuse(among);
        run_once(bytes, [&](shunt::arena<> work) {
          return shunt::moe_layer_across_backward(where, among, from, of_rank, d_y_of, keep, to,
                                                  g.views(), work, o);
        });
      };
      if (d_x.type() == w.type()) {
        go.template operator()<T>();
      } else {
        go.template operator()<float>();
      }
    });
    return nb::borrow(d_x.object());
  });
}

void sum_across(maybe values_, among_state& among_) {
  meeting(among_, "sum_across", false).hold([&] {
    array const values(values_, "sum_across.values", 1, {element::f32}, access::write, here);
    ranks const among = among_.ranks();
    run_once(shunt::sum_across_scratch_bytes(among, values.extent(0)), [&](shunt::arena<> work) {
      return shunt::sum_across(among, values.as<float, 1, S>(), work);
    });
  });
}

double gradient_norm_across(nb::list experts, nb::list whole, among_state& among_) {
  return meeting(among_, "gradient_norm_across", false).hold([&] {
    std::vector<array> kept;
    std::vector<shunt::view<float const, 2>> of_experts;
    std::vector<shunt::view<float const, 1>> of_all;
    kept.reserve(nb::len(experts) + nb::len(whole));
    for (nb::handle one : experts) {
      kept.emplace_back(one, "gradient_norm.experts", 2,
                        std::initializer_list<element>{element::f32}, access::read, here);
      of_experts.push_back(kept.back().as<float const, 2, S>());
    }
    for (nb::handle one : whole) {
      kept.emplace_back(one, "gradient_norm.whole", 1, std::initializer_list<element>{element::f32},
                        access::read, here);
      of_all.push_back(kept.back().as<float const, 1, S>());
    }
    shunt::gradients_of_rank const g{shunt::view<shunt::view<float const, 2> const, 1>(of_experts),
                                     shunt::view<shunt::view<float const, 1> const, 1>(of_all)};
    ranks const among = among_.ranks();
    double norm = 0.0;
    run_once(
        shunt::gradient_norm_across_scratch_bytes(among, g.experts.extent(0)),
        [&](shunt::arena<> work) { return shunt::gradient_norm_across(among, g, norm, work); });
    return norm;
  });
}

}  // namespace

void bind_across(nb::module_& m) {
  m.def("moe_layer_across", &moe_layer_across);
  m.def("moe_layer_across_backward", &moe_layer_across_backward);
  m.def("sum_across", &sum_across);
  m.def("gradient_norm_across", &gradient_norm_across);
}

}  // namespace bindings
