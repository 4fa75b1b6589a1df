#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <set>
#include <shunt/layer.hpp>
#include <utility>
#include <vector>

#include "support/inputs.hpp"

/// A layer with weights and tokens, whose choice of experts is forced: a skew is what it says.
namespace bench::layers {

using namespace shunt;
using index = std::size_t;

template <class T> constexpr char const* type_name = std::is_same_v<T, float> ? "f32" : "bf16";

inline void (*release)() = nullptr;  // gives back what the last model held

/// Weights of one shape and type; only the last one asked for is held.
template <class T> struct model {
  shape s;
  paged<T> gate, up, down, packed_up, packed_down;
  paged<float> d_gate, d_up, d_down;

  explicit model(shape const& is) : s(is) {
    auto const e = index(s.experts), h = index(s.hidden), i = index(s.intermediate);
    gate = bench::long_noise<T>(e * h, 2.0 / std::sqrt(double(h)), 1);
    up = bench::long_noise<T>(e * 2 * i * h, 2.0 / std::sqrt(double(h)), 2);
    down = bench::long_noise<T>(e * h * i, 2.0 / std::sqrt(double(i)), 3);
  }
  static model& of(shape const& is, bool packed, bool training) {
    if (release != &model::drop) {
      if (release != nullptr) release();
      release = &model::drop;
    }
    if (!held || held->s.experts != is.experts || held->s.hidden != is.hidden ||
        held->s.intermediate != is.intermediate) {
      held.reset();
      held = std::make_unique<model>(is);
    }
    if (!packed) held->packed_up = held->packed_down = {};
    if (packed && held->packed_up.empty()) held->pack();
    if (training) {
      held->d_gate.resize(held->gate.size());
      held->d_up.resize(held->up.size());
      held->d_down.resize(held->down.size());
    } else {
      held->d_up = held->d_down = {};
    }
    return *held;
  }

  view<T const, 3> up_view() const {
    return {up.data(), {{s.experts, 2 * s.intermediate, s.hidden}}};
  }
  view<T const, 3> down_view() const {
    return {down.data(), {{s.experts, s.hidden, s.intermediate}}};
  }
  moe_weights<T> weights(bool packed) const {
    moe_weights<T> w;
    w.gate = view<T const, 2>(gate.data(), {{s.experts, s.hidden}});
    w.up = up_view();
    w.down = down_view();
    if (packed) {
      w.up = expert_matrix<T>::packed(packed_up.data(), s.experts, 2 * s.intermediate, s.hidden,
                                      pair_layout{});
      w.down = expert_matrix<T>::packed(packed_down.data(), s.experts, s.hidden, s.intermediate);
    }
    return w;
  }
  moe_gradients<> gradients() {
    moe_gradients<> g;
    g.gate = view<float, 2>(d_gate.data(), {{s.experts, s.hidden}});
    g.up = view<float, 3>(d_up.data(), {{s.experts, 2 * s.intermediate, s.hidden}});
    g.down = view<float, 3>(d_down.data(), {{s.experts, s.hidden, s.intermediate}});
    return g;
  }

 private:
  static inline std::unique_ptr<model> held;
  static void drop() { held.reset(); }

  void pack() {
    auto const put = [](expert_matrix<T> const& m, paged<T>& to) {
      to.resize(index(m.packed_elements()));
      (void)pack_weights(on_host{}, m, view<T, 1>(to));
    };
    put(expert_matrix<T>(up_view(), pair_layout{}), packed_up);
    put(expert_matrix<T>(down_view()), packed_down);
  }
};

template <class T> struct scene {
  model<T>& m;
  shape s;
  on_host on;
  moe_weights<T> w;
  layer_options<> o;
  std::vector<T> x, d_y, y, d_x;
  std::vector<std::vector<index_t>> choices;  // one for each batch of a cycle
  index batch = 0;
  std::vector<std::byte> keep, work;
  moe_saved<T> saved;

  /// For each batch of a cycle [T,K] ids.
  scene(shape const& is, std::vector<std::vector<index_t>> ids, int threads, bool packed,
        bool training)
      : m(model<T>::of(is, packed, training)),
        s(is),
        on{.threads = threads},
        w(m.weights(packed)),
        choices(std::move(ids)) {
    index const count = index(s.tokens) * index(s.hidden);
    x = bench::noise<T>(count, 1.0, 4);
    d_y = bench::noise<T>(count, 1.0, 5);
    y.resize(count);
    d_x.resize(count);
    o.top_k = s.top_k;
    give_choice();
    if (training) {
      keep.resize(moe_saved_bytes(s.tokens, w, o));
      arena<> from(keep);
      saved = carve_moe_saved(from, s.tokens, w, o);
    }
    index const back = training ? moe_layer_backward_scratch_bytes(on, s.tokens, w, o) : 0;
    work.resize(std::max(back, moe_layer_scratch_bytes(on, s.tokens, w, o, training)));
  }
  view<T const, 2> tokens(std::vector<T> const& v) const {
    return {v.data(), {{s.tokens, s.hidden}}};
  }
  void give_choice() {
    o.ids = view<index_t const, 2>(choices[batch].data(), {{s.tokens, s.top_k}});
  }
  status forward(bool training) {
    batch = (batch + 1) % choices.size();
    give_choice();
    return moe_layer(on, tokens(x), w, view<T, 2>(y.data(), {{s.tokens, s.hidden}}),
                     {.saved = training ? &saved : nullptr}, arena<>(work), o);
  }
  status backward() {
    return moe_layer_backward(on, tokens(x), w, tokens(d_y), saved,
                              view<T, 2>(d_x.data(), {{s.tokens, s.hidden}}), m.gradients(),
                              arena<>(work), o);
  }
  /// Experts that at least one token chose, of the mean batch of the cycle.
  double touched() const {
    double all = 0;
    for (auto const& ids : choices) all += double(std::set<index_t>(ids.begin(), ids.end()).size());
    return all / double(choices.size());
  }
};

/// Batches of a skew: one; small ones in a cycle of sixteen, each through other experts, so that
/// weights come from where they lie.
[[nodiscard]] inline std::vector<std::vector<index_t>> batches_of(shape const& s, skew how) {
  std::vector<std::vector<index_t>> all;
  for (std::uint64_t seed = 1; seed <= (s.tokens <= 8 ? 16u : 1u); ++seed) {
    all.push_back(chosen_experts(s, how, seed));
  }
  return all;
}

}  // namespace bench::layers
