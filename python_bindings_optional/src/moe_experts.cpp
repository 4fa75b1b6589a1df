/// The layer without its router, as one call: what a framework's experts module computes from ids and
/// gates that it made itself.

#include <string>
#include <utility>

#include "call.hpp"
#include "layer.hpp"
#include "maybe.hpp"
#include "options.hpp"
#include "policy.hpp"
#include "shunt/backend/host/layer.hpp"
#include "shunt/combine.hpp"
#include "shunt/moe_experts/feed_forward.hpp"

namespace bindings {
namespace {

/// Ids, gates and experts of one call; what is wrong with them raises before anything is written.
struct experts_call {
  array x, expert, gate;
  matrices up, down;
  array up_bias, down_bias;
  shunt::activation act;
  shunt::shape sizes{};
  offset_t rows = 0;  // R

  experts_call(nb::handle x_, nb::handle expert_, nb::handle gate_, nb::tuple const& experts)
      : expert(expert_, "moe_experts.expert", 2, {element::i32}, access::read, here),
        gate(gate_, "moe_experts.gate", 2, {element::f32}, access::read, here),
        up(experts[0], "moe_experts.up", storage_types, access::read, here, experts[4]),
        down(experts[1], "moe_experts.down", storage_types, access::read, here, nb::none()),
        act(activation_of(experts[5])) {
    up_bias = optional(experts[2], "moe_experts.up_bias", 2, storage_types, access::read, here);
    down_bias = optional(experts[3], "moe_experts.down_bias", 2, storage_types, access::read, here);
    x = array(x_, "moe_experts.x", 2, {up.type()}, access::read, here);
    must_be("moe_experts.down", "its type", 0, 0, down.type() == up.type());
    offset_t const T = x.extent(0), H = x.extent(1), N = up.rows();
    must_be("moe_experts.up", "extent 2", up.columns(), H);
    must_be("moe_experts.down", "extent 0", down.experts(), up.experts());
    must_be("moe_experts.down", "extent 1", down.rows(), H);
    must_be("moe_experts.up", "extent 1", N, (shunt::gated(act) ? 2 : 1) * down.columns());
    must_be("moe_experts.expert", "extent 0", expert.extent(0), T);
    must_be("moe_experts.gate", "extent 0", gate.extent(0), T);
    must_be("moe_experts.gate", "extent 1", gate.extent(1), expert.extent(1));
    // Backward reads them as one row of T·K.
    if (T > 1) must_be("moe_experts.gate", "stride 0", gate.stride(0), gate.extent(1));
    if (gate.extent(1) > 1) must_be("moe_experts.gate", "stride 1", gate.stride(1), 1);
    if (expert.extent(1) < 1)
      value_error("moe_experts.expert: extent 1 is 0; it must be at least 1");
    if (up_bias) {
      must_be("moe_experts.up_bias", "extent 0", up_bias.extent(0), up.experts());
      must_be("moe_experts.up_bias", "extent 1", up_bias.extent(1), N);
    }
    if (down_bias) {
      must_be("moe_experts.down_bias", "extent 0", down_bias.extent(0), up.experts());
      must_be("moe_experts.down_bias", "extent 1", down_bias.extent(1), H);
    }
    sizes = {.tokens = static_cast<index_t>(T),
             .experts = static_cast<index_t>(up.experts()),
             .top_k = static_cast<index_t>(expert.extent(1))};
    rows = shunt::plan_rows_bound(sizes);
  }

  static void must_be(char const* name, char const* what, offset_t is, offset_t must,
                      bool same_type = true) {
    if (!same_type) value_error(std::string(name) + " has another type than moe_experts.up");
    if (is == must) return;
    value_error(std::string(name) + ": " + what + " is " + std::to_string(is) + "; it must be " +
                std::to_string(must));
  }

  [[nodiscard]] saved_key key() const noexcept {
    saved_key k;
    k.type = up.type();
    k.tokens = sizes.tokens;
    k.hidden = x.extent(1);
    k.local = sizes.experts;
    k.top_k = sizes.top_k;
    k.up_rows = up.rows();
    k.intermediate = down.columns();
    k.rows = rows;
    return k;
  }

  template <class T>
  [[nodiscard]] shunt::detail::feed_forward<T, shunt::activation, S> feed(
      shunt::dispatch_plan<S> const& plan) const noexcept {
    return {.up = up.as<T const, S>(),
            .down = down.as<T const, S>(),
            .up_bias = weights::vector_of<S>(up_bias),
            .down_bias = weights::vector_of<S>(down_bias),
            .act = act,
            .plan = plan,
            .gather = {plan.row_slot, plan.top_k}};
  }
  void read_in(apart& arrays) const {
    arrays.reads(x, expert, gate, up_bias, down_bias);
    for (matrices const* m : {&up, &down}) {
      m->each_array([&](array const& a) { arrays.reads(a); });
    }
  }
};

/// What forward keeps; without backward it lies in the scratch, and has no pre-activations.
template <class T> struct kept {
  shunt::dispatch_plan<S> plan;
  shunt::view<T, 2, S> pre;

  kept(shunt::arena<S>& from, experts_call const& c, bool training) noexcept
      : plan(shunt::carve_plan(from, c.sizes, c.rows)) {
    if (training) pre = shunt::detail::carve<T, 2, S>(from, {{c.rows, c.up.rows()}});
  }
};

template <class T> struct forward_room {
  shunt::view<T, 2, S> act, rows;
  shunt::arena<S> plan;

  forward_room(policy const& on, shunt::arena<S>& from, experts_call const& c) noexcept
      : act(shunt::detail::carve<T, 2, S>(from, {{c.rows, c.down.columns()}})),
        rows(shunt::detail::carve<T, 2, S>(from, {{c.rows, c.x.extent(1)}})),
        plan(shunt::detail::carve_part(
            from, shunt::plan_scratch_bytes(on, c.sizes, shunt::plan_options<S>{}))) {}
};

template <class T> struct backward_room {
  shunt::detail::feed_scratch<T, S> feed;
  shunt::view<float, 2, S> d_rows, bias_part;

  backward_room(shunt::arena<S>& from, experts_call const& c) noexcept
      : feed(shunt::detail::feed_scratch<T, S>::carve(from, c.rows, c.down.columns(), c.up.rows(),
                                                      false, true)),
        d_rows(shunt::detail::carve<float, 2, S>(from, {{c.rows, c.x.extent(1)}})) {
    if (c.down_bias) bias_part = shunt::detail::carve<float, 2, S>(from, {{c.rows, 1}});
  }
};

template <class F> shunt::status in_turn(F&& step) { return step(); }
template <class F, class... Then> shunt::status in_turn(F&& step, Then&&... then) {
  shunt::status const done = step();
  return done.ok() ? in_turn(std::forward<Then>(then)...) : done;
}

nb::object moe_experts(maybe x, maybe expert, maybe gate, nb::tuple experts, maybe saved_,
                       maybe out, maybe on) {
  policy const where = policy_of(on);
  experts_call const c(x, expert, gate, experts);
  auto* const saved = instance<saved_state>(saved_, "moe_experts.saved", "a shunt.Saved");
  array y = output(out, x, "moe_experts.out", {c.x.extent(0), c.x.extent(1)}, {c.up.type()}, here);
  apart arrays;
  c.read_in(arrays);
  arrays.writes(y).check();

  with_storage(c.up.type(), [&]<class T>() {
    auto const go = [&](shunt::arena<S> work, kept<T> const* keep) {
      kept<T> const k = keep != nullptr ? *keep : kept<T>(work, c, false);
      forward_room<T> const s(where, work, c);
      if (auto bad = work.check("moe_experts.work"); !bad.ok()) return bad;
      auto const f = c.feed<T>(k.plan);
      return in_turn(
          [&] {
            return shunt::plan_dispatch(where, c.expert.as<index_t const, 2, S>(), k.plan, s.plan);
          },
          [&] { return f.forward(where, c.x.as<T const, 2, S>(), k.pre, s.act, s.rows); },
          [&] {
            return shunt::combine(where, s.rows, k.plan, c.gate.as<float const, 2, S>(),
                                  y.as<T, 2, S>());
          });
    };
    auto const bytes = [&](bool training) {
      auto from = shunt::arena<S>::measuring();
      if (!training) static_cast<void>(kept<T>(from, c, false));
      static_cast<void>(forward_room<T>(where, from, c));
      return from.needed();
    };
    if (saved == nullptr) {
      run_with_scratch(
          x, [&](auto work) { return go(work, nullptr); }, [&] { return bytes(false); });
      return;
    }
    saved_state::use const mine(saved, true);
    saved->filled = false;
    auto measure = shunt::arena<S>::measuring();
    static_cast<void>(kept<T>(measure, c, true));
    auto const needed = static_cast<offset_t>(measure.needed());
    if (!saved->memory || saved->memory.extent(0) < needed || !saved->reached(here)) {
      saved->memory = output(nb::none(), x, "Saved", {needed}, {element::u8}, here);
    }
    auto from = saved->arena<S>();
    kept<T> const keep(from, c, true);
    run_with_scratch(x, [&](auto work) { return go(work, &keep); }, [&] { return bytes(true); });
    saved->key = c.key();
    saved->filled = true;
  });
  return nb::borrow(y.object());
}

/// gradients: float32 arrays or None for (gate, up, down, up_bias, down_bias).
nb::object moe_experts_backward(maybe x, maybe expert, maybe gate, nb::tuple experts, maybe d_y,
                                maybe saved_, nb::tuple gradients, maybe out, maybe on) {
  policy const where = policy_of(on);
  experts_call const c(x, expert, gate, experts);
  auto* const saved = instance<saved_state>(saved_, "moe_experts_backward.saved", "a shunt.Saved");
  if (saved == nullptr || !saved->filled || saved->key != c.key() || !saved->reached(here)) {
    value_error(
        "moe_experts_backward.saved must be one that moe_experts filled with these arguments");
  }
  array const back(d_y, "moe_experts_backward.d_y", 2, {c.up.type()}, access::read, here);
  experts_call::must_be("moe_experts_backward.d_y", "extent 0", back.extent(0), c.x.extent(0));
  experts_call::must_be("moe_experts_backward.d_y", "extent 1", back.extent(1), c.x.extent(1));
  auto const plain = [&](int at, char const* name) {
    return optional(gradients[at], name, 2, {element::f32}, access::write, here);
  };
  auto const stack = [&](int at, char const* name, matrices const& of) {
    matrices m(gradients[at], name, {element::f32}, access::write, here, nb::none());
    m.set_pairs(of.pairs());
    return m;
  };
  array const d_gate = plain(0, "gradients.gate");
  matrices const d_up = stack(1, "gradients.up", c.up);
  matrices const d_down = stack(2, "gradients.down", c.down);
  array const d_up_bias = plain(3, "gradients.up_bias");
  array const d_down_bias = plain(4, "gradients.down_bias");
  array d_x = output(out, x, "moe_experts_backward.d_x", {c.x.extent(0), c.x.extent(1)},
                     {c.up.type(), element::f32}, here);
  apart arrays;
  c.read_in(arrays);
  d_up.each_array([&](array const& a) { arrays.writes(a); });
  d_down.each_array([&](array const& a) { arrays.writes(a); });
  arrays.reads(back).writes(d_gate, d_up_bias, d_down_bias, d_x).check();

  with_storage(c.up.type(), [&]<class T>() {
    saved_state::use const mine(saved, false);
    auto from = saved->arena<S>();
    kept<T> const keep(from, c, true);
    auto const f = c.feed<T>(keep.plan);
    auto const d_out = back.as<T const, 2, S>();
    auto const go = [&](shunt::arena<S> work) {
      backward_room<T> const s(work, c);
      if (auto bad = work.check("moe_experts_backward.work"); !bad.ok()) return bad;
      shunt::view<float, 2, S> const row_gate = shunt::detail::column_of_one(s.feed.d_scale);
      return in_turn(
          [&] {
            return shunt::detail::feed_backward(
                where, f, c.x.as<T const, 2, S>(), d_out, shunt::view<T const, 2, S>(keep.pre),
                shunt::detail::flat(c.gate.as<float const, 2, S>()), s.feed, s.d_rows, false,
                {d_up.as<float, S>(),
                 d_down.as<float, S>(),
                 d_up_bias.as<float, 2, S>(),
                 d_down_bias.as<float, 2, S>(),
                 {},
                 false});
          },
          [&] {
            if (!c.down_bias || !d_gate) return shunt::status();
            return in_turn(
                [&] {
                  return shunt::detail::bias_part(where, d_out, f.down_bias, keep.plan,
                                                  s.bias_part);
                },
                [&] {
                  return shunt::detail::layer_backend<policy>::add(
                      where, shunt::view<float const, 2, S>(s.bias_part), row_gate,
                      keep.plan.rows());
                });
          },
          [&] {
            if (!d_gate) return shunt::status();
            return shunt::rows_to_gates(where, s.feed.d_scale, keep.plan, d_gate.as<float, 2, S>());
          },
          [&] {
            return d_x.type() == element::f32
                       ? shunt::dispatch_backward(where, s.d_rows, keep.plan, d_x.as<float, 2, S>())
                       : shunt::dispatch_backward(where, s.d_rows, keep.plan, d_x.as<T, 2, S>());
          });
    };
    run_with_scratch(x, go, [&] {
      auto measure = shunt::arena<S>::measuring();
      static_cast<void>(backward_room<T>(measure, c));
      return measure.needed();
    });
  });
  return nb::borrow(d_x.object());
}

}  // namespace

void bind_moe_experts(nb::module_& m) {
  def(m, "moe_experts", &moe_experts);
  def(m, "moe_experts_backward", &moe_experts_backward);
}

}  // namespace bindings
