/// The layer without its router, as one call: what a framework's experts module computes from ids and
/// gates that it made itself.

#include "shunt/moe_experts.hpp"

#include "call.hpp"
#include "layer.hpp"
#include "maybe.hpp"
#include "options.hpp"
#include "policy.hpp"

namespace bindings {
namespace {

using experts_options = shunt::moe_experts_options<shunt::activation, S>;

/// Ids, gates and experts of one call. Types and memory are checked here, extents by the library.
struct experts_call {
  array x, expert, gate;
  matrices up, down;
  array up_bias, down_bias;
  experts_options options;

  experts_call(nb::handle x_, nb::handle expert_, nb::handle gate_, nb::tuple const& experts)
      : expert(expert_, "moe_experts.expert", 2, {element::i32}, access::read, here),
        gate(gate_, "moe_experts.gate", 2, {element::f32}, access::read, here),
        up(experts[0], "moe_experts.up", storage_types, access::read, here, experts[4]),
        down(experts[1], "moe_experts.down", storage_types, access::read, here, nb::none()) {
    options.act = activation_of(experts[5]);
    up_bias = optional(experts[2], "moe_experts.up_bias", 2, storage_types, access::read, here);
    down_bias = optional(experts[3], "moe_experts.down_bias", 2, storage_types, access::read, here);
    x = array(x_, "moe_experts.x", 2, {up.type()}, access::read, here);
    if (down.type() != up.type()) {
      value_error("moe_experts.down has another type than moe_experts.up");
    }
  }
  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(x.extent(0)); }
  [[nodiscard]] index_t top_k() const { return static_cast<index_t>(gate.extent(1)); }

  [[nodiscard]] saved_key key() const noexcept {
    saved_key k;
    k.type = up.type();
    k.tokens = x.extent(0);
    k.hidden = x.extent(1);
    k.local = up.experts();
    k.top_k = gate.extent(1);
    k.up_rows = up.rows();
    k.intermediate = down.columns();
    return k;
  }
  template <class T> [[nodiscard]] shunt::moe_experts_weights<T, S> weights() const noexcept {
    return {up.as<T const, S>(), down.as<T const, S>(), weights::vector_of<S>(up_bias),
            weights::vector_of<S>(down_bias)};
  }
  template <class T> [[nodiscard]] std::size_t saved_bytes() const {
    return shunt::moe_experts_saved_bytes(tokens(), top_k(), weights<T>(), options);
  }
  template <class T>
  [[nodiscard]] shunt::moe_experts_saved<T, S> saved(shunt::arena<S> from) const {
    return shunt::carve_moe_experts_saved(from, tokens(), top_k(), weights<T>(), options);
  }
  void read_in(apart& arrays) const {
    arrays.reads(x, expert, gate, up_bias, down_bias);
    for (matrices const* m : {&up, &down}) {
      m->each_array([&](array const& a) { arrays.reads(a); });
    }
  }
};

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
    auto const w = c.weights<T>();
    auto const in = c.x.as<T const, 2, S>();
    auto const ids = c.expert.as<index_t const, 2, S>();
    auto const gates = c.gate.as<float const, 2, S>();
    auto const to = y.as<T, 2, S>();
    auto const bytes = [&](bool training) {
      return shunt::moe_experts_scratch_bytes<T>(where, c.tokens(), c.top_k(), w, c.options,
                                                 training);
    };
    if (saved == nullptr) {
      auto const go = [&](auto work) {
        return shunt::moe_experts(where, in, ids, gates, w, to, work, c.options);
      };
      run_with_scratch(x, go, [&] { return bytes(false); });
      return;
    }
    saved_state::use const mine(saved, true);
    saved->filled = false;
    auto const needed = static_cast<offset_t>(c.saved_bytes<T>());
    if (!saved->memory || saved->memory.extent(0) < needed || !saved->reached(here)) {
      saved->memory = output(nb::none(), x, "Saved", {needed}, {element::u8}, here);
    }
    auto const keep = c.saved<T>(saved->arena<S>());
    auto const go = [&](auto work) {
      return shunt::moe_experts(where, in, ids, gates, w, to, {.saved = &keep}, work, c.options);
    };
    run_with_scratch(x, go, [&] { return bytes(true); });
    saved->key = c.key();
    saved->filled = true;
  });
  return nb::borrow(y.object());
}

/// Where the gradients go: float32 arrays or None for (gate, up, down, up_bias, down_bias).
struct experts_gradients {
  array gate, up_bias, down_bias;
  matrices up, down;

  experts_gradients(nb::tuple const& of, experts_call const& c)
      : gate(plain(of[0], "gradients.gate")),
        up_bias(plain(of[3], "gradients.up_bias")),
        down_bias(plain(of[4], "gradients.down_bias")),
        up(stack(of[1], "gradients.up", c.up)),
        down(stack(of[2], "gradients.down", c.down)) {}

  [[nodiscard]] shunt::moe_experts_gradients<S> views() const noexcept {
    return {gate.as<float, 2, S>(), up.as<float, S>(), down.as<float, S>(),
            up_bias.as<float, 2, S>(), down_bias.as<float, 2, S>()};
  }
  void written_in(apart& arrays) const {
    up.each_array([&](array const& a) { arrays.writes(a); });
    down.each_array([&](array const& a) { arrays.writes(a); });
    arrays.writes(gate, up_bias, down_bias);
  }

 private:
  static array plain(nb::handle from, char const* name) {
    return optional(from, name, 2, {element::f32}, access::write, here);
  }
  static matrices stack(nb::handle from, char const* name, matrices const& like) {
    matrices m(from, name, {element::f32}, access::write, here, nb::none());
    m.set_pairs(like.pairs());
    return m;
  }
};

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
  experts_gradients const to(gradients, c);
  array d_x = output(out, x, "moe_experts_backward.d_x", {c.x.extent(0), c.x.extent(1)},
                     {c.up.type(), element::f32}, here);
  apart arrays;
  c.read_in(arrays);
  to.written_in(arrays);
  arrays.reads(back).writes(d_x).check();

  with_storage(c.up.type(), [&]<class T>() {
    saved_state::use const mine(saved, false);
    auto const keep = c.saved<T>(saved->arena<S>());
    auto const w = c.weights<T>();
    auto const run = [&](auto work, auto d_in) {
      return shunt::moe_experts_backward(
          where, c.x.as<T const, 2, S>(), c.gate.as<float const, 2, S>(), w,
          back.as<T const, 2, S>(), keep, d_in, to.views(), work, c.options);
    };
    run_with_scratch(
        x,
        [&](auto work) {
          return d_x.type() == element::f32 ? run(work, d_x.as<float, 2, S>())
                                            : run(work, d_x.as<T, 2, S>());
        },
        [&] {
          return shunt::moe_experts_backward_scratch_bytes(where, c.tokens(), c.top_k(), w,
                                                           c.options);
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
