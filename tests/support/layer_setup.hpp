#pragma once
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "shunt/layer.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_layer.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

/// A published layer at a size that a tape can hold, its numbers, and one run of the library on them.
namespace shunt::test {

struct layer_case {
  char const* name = "";
  layer_formula f{};
  route_options route{};
  bool choice_bias = false;
  index_t capacity = 0;
  drop_policy drop = drop_policy::by_position;
  index_t table = 0;  // rows of a table token id -> experts; 0: chosen by score
  index_t taken = 0;  // tokens that each expert takes; 0: tokens choose
};

/// Fills in what the formula and the options of the library say in two ways.
inline layer_case made(layer_case c) {
  c.f.score = c.route.score;
  c.f.gates = c.route.gates;
  c.f.scale = static_cast<double>(c.route.scale);
  c.f.epsilon = static_cast<double>(c.route.epsilon);
  c.f.zero_experts = c.route.zero_experts;
  c.f.gate_on_input = c.route.gate_on_input;
  if (!c.f.latent) c.f.hidden = c.f.width;
  return c;
}

/// The numbers of a case, as the library stores them.
template <class T> struct layer_setup {
  layer_case is;
  guarded<T> x, gate, up, down, up_bias, down_bias;
  guarded<T> shared_up, shared_down, shared_gate, latent_down, latent_up, d_y;
  guarded<float> gate_bias, choice_bias;
  guarded<std::uint8_t> valid;
  guarded<index_t> table, token;

  explicit layer_setup(layer_case const& c, std::uint64_t seed = 1) : is(made(c)) {
    // A stored pre-activation may be rounded over a clamp's edge, where the slope jumps.
    if (!std::is_same_v<T, float>) is.f.limit = 1e3;
    layer_formula const& f = is.f;
    auto const count = [](auto... n) { return (static_cast<std::size_t>(n) * ... * 1); };
    auto const some = [&](auto n, double scale) {
      return normal_values<T>(static_cast<std::size_t>(n), ++seed * 7919, scale);
    };
    auto const fan = [](int n) { return 1.0 / std::sqrt(static_cast<double>(n)); };
    int const L = f.local(), N = f.halves() * f.intermediate, Ns = f.halves() * f.shared;
    x = some(count(f.tokens, f.width), 1.0);
    d_y = some(count(f.tokens, f.width), 1.0);
    gate = some(count(f.experts, f.width), 2.0 * fan(f.width));
    up = some(count(L, N, f.hidden), 1.5 * fan(f.hidden));
    down = some(count(L, f.hidden, f.intermediate), fan(f.intermediate));
    if (f.biases) {
      up_bias = some(count(L, N), 0.5);
      down_bias = some(count(L, f.hidden), 0.5);
    }
    if (f.gate_bias) gate_bias = normal_values<float>(count(f.experts), ++seed, 0.5);
    if (is.choice_bias) choice_bias = normal_values<float>(count(f.experts), ++seed, 0.1);
    if (f.shared > 0) {
      shared_up = some(count(Ns, f.width), 1.5 * fan(f.width));
      shared_down = some(count(f.width, f.shared), fan(f.shared));
      if (f.shared_gated) shared_gate = some(count(f.width), fan(f.width));
    }
    if (f.latent) {
      latent_down = some(count(f.hidden, f.width), fan(f.width));
      latent_up = some(count(f.width, f.hidden), fan(f.hidden));
    }
    if (is.table > 0) {
      rng d(seed);
      table = guarded<index_t>(chosen_experts({.tokens = is.table, .experts = L, .top_k = f.top_k},
                                              skew::uniform, ++seed));
      token = guarded<index_t>(count(f.tokens));
      for (index_t& id : token) id = static_cast<index_t>(d.below(is.table));
    }
    set_valid(f.valid);
  }

  void set_valid(std::vector<std::uint8_t> const& mask) {
    is.f.valid = mask;
    valid = guarded<std::uint8_t>(mask);
  }

  [[nodiscard]] moe_weights<T> weights() const {
    layer_formula const& f = is.f;
    int const L = f.local(), N = f.halves() * f.intermediate, Ns = f.halves() * f.shared;
    moe_weights<T> w;
    w.gate = gate.as(f.experts, f.width);
    if (f.gate_bias) w.gate_bias = gate_bias.as(f.experts);
    if (is.choice_bias) w.choice_bias = choice_bias.as(f.experts);
    w.up = up.as(L, N, f.hidden);
    w.down = down.as(L, f.hidden, f.intermediate);
    if (f.halves() == 2) w.up = w.up.in_pairs(layout());
    if (f.biases) {
      w.up_bias = up_bias.as(L, N);
      w.down_bias = down_bias.as(L, f.hidden);
    }
    if (f.shared > 0) {
      w.shared_up = shared_up.as(1, Ns, f.width);
      w.shared_down = shared_down.as(1, f.width, f.shared);
      if (f.halves() == 2) w.shared_up = w.shared_up.in_pairs(layout());
      if (f.shared_gated) w.shared_gate = shared_gate.as(f.width);
    }
    if (f.latent) {
      w.latent_down = latent_down.as(f.hidden, f.width);
      w.latent_up = latent_up.as(f.width, f.hidden);
    }
    return w;
  }

  [[nodiscard]] pair_layout layout() const {
    return {.order = is.f.up_first ? pair_order::up_gate : pair_order::gate_up,
            .block = static_cast<index_t>(is.f.interleave)};
  }

  /// With the activation chosen at run time: one instantiation serves all cases.
  [[nodiscard]] layer_options<activation> options() const {
    layer_options<activation> o;
    o.top_k = is.f.top_k;
    o.route = is.route;
    o.act = is.f.activation;
    if (is.f.activation == activation_kind::swiglu_clamped) {
      o.act = swiglu_clamped{.limit = static_cast<float>(is.f.limit)};
    }
    if (is.f.activation == activation_kind::swiglu_capped) {
      o.act = swiglu_capped{.limit = static_cast<float>(is.f.limit)};
    }
    o.tokens_per_expert = is.taken;
    o.capacity = is.capacity;
    o.drop = is.drop;
    o.balance_loss = static_cast<float>(is.f.balance);
    o.z_loss = static_cast<float>(is.f.z);
    if (!is.f.valid.empty()) o.valid = valid.as(is.f.tokens);
    if (is.table > 0) {
      o.ids = table.as(is.table, is.f.top_k);
      o.token = token.as(is.f.tokens);
    }
    return o;
  }

  [[nodiscard]] layer_numbers<double> numbers() const {
    layer_numbers<double> n;
    n.x = in_double(x);
    n.gate = in_double(gate);
    n.gate_bias = in_double(gate_bias);
    n.up = in_double(up);
    n.down = in_double(down);
    n.up_bias = in_double(up_bias);
    n.down_bias = in_double(down_bias);
    n.shared_up = in_double(shared_up);
    n.shared_down = in_double(shared_down);
    n.shared_gate = in_double(shared_gate);
    n.latent_down = in_double(latent_down);
    n.latent_up = in_double(latent_up);
    return n;
  }
};

/// Float buffers for every gradient of a setup.
struct gradient_buffers {
  guarded<float> x, gate, gate_bias, up, down, up_bias, down_bias;
  guarded<float> shared_up, shared_down, shared_gate, latent_down, latent_up;

  template <class T> explicit gradient_buffers(layer_setup<T> const& s) {
    auto const like = [](auto const& b) { return guarded<float>(b.size()); };
    x = like(s.x);
    gate = like(s.gate);
    gate_bias = like(s.gate_bias);
    up = like(s.up);
    down = like(s.down);
    up_bias = like(s.up_bias);
    down_bias = like(s.down_bias);
    shared_up = like(s.shared_up);
    shared_down = like(s.shared_down);
    shared_gate = like(s.shared_gate);
    latent_down = like(s.latent_down);
    latent_up = like(s.latent_up);
  }
  /// Calls f(name, buffer) on each but x.
  template <class F> void each_weight(F f) {
    f("gate", gate);
    f("gate_bias", gate_bias);
    f("up", up);
    f("down", down);
    f("up_bias", up_bias);
    f("down_bias", down_bias);
    f("shared_up", shared_up);
    f("shared_down", shared_down);
    f("shared_gate", shared_gate);
    f("latent_down", latent_down);
    f("latent_up", latent_up);
  }
  template <class F> void each(F f) {
    f("x", x);
    each_weight(f);
  }
  [[nodiscard]] moe_gradients<> views(layer_formula const& f, pair_layout layout, int local = 0) {
    int const L = local > 0 ? local : f.local(), N = f.halves() * f.intermediate,
              Ns = f.halves() * f.shared;
    moe_gradients<> g;
    g.gate = gate.as(f.experts, f.width);
    g.up = up.as(L, N, f.hidden);
    if (f.halves() == 2) g.up = g.up.in_pairs(layout);
    g.down = down.as(L, f.hidden, f.intermediate);
    if (f.gate_bias) g.gate_bias = gate_bias.as(f.experts);
    if (f.biases) {
      g.up_bias = up_bias.as(L, N);
      g.down_bias = down_bias.as(L, f.hidden);
    }
    if (f.shared > 0) {
      g.shared_up = shared_up.as(1, Ns, f.width);
      if (f.halves() == 2) g.shared_up = g.shared_up.in_pairs(layout);
      g.shared_down = shared_down.as(1, f.width, f.shared);
      if (f.shared_gated) g.shared_gate = shared_gate.as(f.width);
    }
    if (f.latent) {
      g.latent_down = latent_down.as(f.hidden, f.width);
      g.latent_up = latent_up.as(f.width, f.hidden);
    }
    return g;
  }
};

/// One run of the library: forward, and backward where asked, in memory of its own that starts as
/// NaN, with exactly the bytes that the library asks for.
template <class T> struct layer_run {
  guarded<T> y;
  guarded<T> d_x;
  gradient_buffers d;
  guarded<std::byte> saved_bytes;
  moe_saved<T> saved{};
  status forward{}, backward{};

  template <class A>
  layer_run(on_host const& on, layer_setup<T> const& s, layer_options<A> const& o,
            bool train = true, moe_outputs<T> const& outputs = {})
      : y(s.x.size()), d_x(s.x.size()), d(s) {
    run(on, s, o, s.weights(), outputs, train);
  }
  template <class A>
  layer_run(on_host const& on, layer_setup<T> const& s, layer_options<A> const& o,
            moe_weights<T> const& w, bool train, int local = 0)
      : y(s.x.size()), d_x(s.x.size()), d(s) {
    run(on, s, o, w, {}, train, local);
  }

  /// What the library chose, for the oracle: ids by slot, and those whose slot has a row or is a zero
  /// expert's. Where experts choose, slots are token · E + e.
  void tell(layer_formula& f) const {
    f.chosen.clear();
    f.kept.clear();
    bool const taken = bool(saved.expert_choice.token);
    if (taken) f.top_k = f.experts;
    for (int t = 0; t < f.tokens; ++t) {
      for (int k = 0; k < f.top_k; ++k) {
        index_t const row = saved.plan.slot_row[t * f.top_k + k];
        index_t const id = taken ? (row >= 0 ? k : -1) : saved.choice.expert(t, k);
        f.chosen.push_back(id);
        f.kept.push_back(id >= 0 && id < f.local() && row < 0 ? -1 : id);
      }
    }
  }

 private:
  moe_gradients<> wanted(layer_formula const& f, pair_layout layout, moe_weights<T> const& w,
                         int local) {
    moe_gradients<> g = d.views(f, layout, local);
    if (!w.shared_up) {
      g.shared_up = g.shared_down = {};
      g.shared_gate = {};
    }
    return g;
  }

  template <class A>
  void run(on_host const& on, layer_setup<T> const& s, layer_options<A> const& o,
           moe_weights<T> const& w, moe_outputs<T> outputs, bool train, int local = 0) {
    layer_formula const& f = s.is.f;
    auto const tokens = static_cast<index_t>(f.tokens);
    guarded<std::byte> work(moe_layer_scratch_bytes(on, tokens, w, o, train));
    saved_bytes = guarded<std::byte>(train ? moe_saved_bytes(tokens, w, o) : 0);
    arena<> keep(saved_bytes);
    if (train) {
      saved = carve_moe_saved(keep, tokens, w, o);
      outputs.saved = &saved;
    }
    forward = moe_layer(on, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width), outputs,
                        arena<>(work), o);
    if (!train || !forward.ok()) return;
    work = guarded<std::byte>(moe_layer_backward_scratch_bytes(on, tokens, w, o));
    backward = moe_layer_backward(on, s.x.as(f.tokens, f.width), w, s.d_y.as(f.tokens, f.width),
                                  saved, d_x.as(f.tokens, f.width), wanted(f, s.layout(), w, local),
                                  arena<>(work), o);
  }
};

/// Every result of two runs is the same bits.
template <class T>
[[nodiscard]] testing::AssertionResult same_results(layer_run<T>& a, layer_run<T>& b,
                                                    bool with_d_x = true) {
  if (!a.forward.ok() || !b.forward.ok() || !a.backward.ok() || !b.backward.ok()) {
    return testing::AssertionFailure() << a.forward.message() << b.forward.message()
                                       << a.backward.message() << b.backward.message();
  }
  if (!same_bits(a.y, b.y)) return testing::AssertionFailure() << "y differs";
  if (with_d_x && !same_bits(a.d_x, b.d_x)) return testing::AssertionFailure() << "d_x differs";
  std::vector<guarded<float> const*> others;
  b.d.each_weight([&](char const*, guarded<float>& g) { others.push_back(&g); });
  char const* wrong = nullptr;
  std::size_t i = 0;
  a.d.each_weight([&](char const* name, guarded<float>& g) {
    if (!same_bits(g, *others[i++])) wrong = name;
  });
  if (wrong != nullptr)
    return testing::AssertionFailure() << "the gradient of " << wrong << " differs";
  return testing::AssertionSuccess();
}

}  // namespace shunt::test
