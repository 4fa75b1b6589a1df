#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shunt/experts.hpp"
#include "shunt/layer.hpp"
#include "support/device_halves.hpp"
#include "support/device_values.hpp"

namespace shunt::test {

/// Copies in device memory of what a host call is given, and, after both calls, the comparison of what
/// they wrote. Views must be row-major and whole.
class device_mirror {
 public:
  /// What is only read.
  template <class T, int Rank> view<T const, Rank, space::device> in(view<T const, Rank> v) {
    if (!v || v.empty()) return {nullptr, v.extents()};
    return {copy(v.data(), v.size())->data(), v.extents()};
  }
  /// What is written: starts as bytes of ones, which are NaN, whatever the host's holds by now.
  template <class T, int Rank> view<T, Rank, space::device> out(std::string name, view<T, Rank> v) {
    if (!v || v.empty()) return {nullptr, v.extents()};
    auto const held = copy(static_cast<T const*>(v.data()), v.size());
    EXPECT_EQ(cudaMemset(held->data(), 0xff, held->size() * sizeof(T)), cudaSuccess);
    auto const* const host = v.data();
    auto const size = static_cast<std::size_t>(v.size());
    compare_.push_back([name, held, host, size] {
      return same_values(held->host(), std::vector<T>(host, host + size)) << " in " << name;
    });
    return {held->data(), v.extents()};
  }

  template <storage T> expert_matrix<T, space::device> in(expert_matrix<T> const& w) {
    if (!w) return {};
    if (w.halves_apart()) return halves(w)->there();
    return as<T const, space::device>(in(plain(w)), w);
  }
  expert_gradient<space::device> out(std::string name, expert_gradient<> const& w) {
    if (!w) return {};
    if (w.halves_apart()) {
      auto const held = halves(w);
      held->wipe();
      compare_.push_back([name, held] { return held->same() << " in " << name; });
      return held->there();
    }
    return as<float, space::device>(out(std::move(name), plain(w)), w);
  }
  expert_vector<space::device> in(expert_vector<> const& b) {
    if (!b) return {};
    auto const typed = [&](auto const* data) -> expert_vector<space::device> {
      using T = std::remove_cvref_t<decltype(*data)>;
      return in(view<T const, 2>(data, {{b.experts(), b.rows()}}));
    };
    switch (b.type()) {
      case element_type::bf16: return typed(static_cast<bf16 const*>(b.data()));
      case element_type::fp16: return typed(static_cast<fp16 const*>(b.data()));
      default: break;
    }
    return typed(static_cast<float const*>(b.data()));
  }

  template <storage T, storage G> moe_weights<T, G, space::device> in(moe_weights<T, G> const& w) {
    return {in(w.gate),        in(w.gate_bias),   in(w.choice_bias), in(w.up),
            in(w.down),        in(w.up_bias),     in(w.down_bias),   in(w.shared_up),
            in(w.shared_down), in(w.shared_gate), in(w.latent_down), in(w.latent_up)};
  }
  moe_gradients<space::device> out(moe_gradients<> const& g) {
    return {out("d gate", g.gate),
            out("d gate_bias", g.gate_bias),
            out("d up", g.up),
            out("d down", g.down),
            out("d up_bias", g.up_bias),
            out("d down_bias", g.down_bias),
            out("d shared_up", g.shared_up),
            out("d shared_down", g.shared_down),
            out("d shared_gate", g.shared_gate),
            out("d latent_down", g.latent_down),
            out("d latent_up", g.latent_up)};
  }
  /// The options that the layer's tests set; ids apart, whose view is not told.
  template <class A> layer_options<A, space::device> in(layer_options<A> const& o) {
    layer_options<A, space::device> d;
    d.top_k = o.top_k;
    d.tokens_per_expert = o.tokens_per_expert;
    d.route = o.route;
    d.act = o.act;
    d.capacity = o.capacity;
    d.drop = o.drop;
    d.first_expert = o.first_expert;
    d.zero_experts_here = o.zero_experts_here;
    d.valid = in(o.valid);
    d.frozen = in(o.frozen);
    d.token = in(o.token);
    d.add_to_y = o.add_to_y;
    d.memory = o.memory;
    d.accumulate = o.accumulate;
    d.balance_loss = o.balance_loss;
    d.z_loss = o.z_loss;
    return d;
  }

  /// Whether everything that was written is what the host wrote.
  void expect_same() const {
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (auto const& compare : compare_) EXPECT_TRUE(compare());
  }

 private:
  template <class T> std::shared_ptr<on_device<T>> copy(T const* from, offset_t count) {
    auto const held = std::make_shared<on_device<T>>(std::vector<T>(from, from + count));
    held_.push_back(held);
    return held;
  }
  template <class Element>
  std::shared_ptr<device_halves<Element>> halves(basic_expert_matrix<Element> const& w) {
    auto const held = std::make_shared<device_halves<Element>>(w);
    held_.push_back(held);
    return held;
  }
  template <class Element> static view<Element, 3> plain(basic_expert_matrix<Element> const& w) {
    return {w.data(), {{w.experts(), w.rows(), w.columns()}}};
  }
  template <class Element, space S>
  static basic_expert_matrix<Element, S> as(view<Element, 3, S> at,
                                            basic_expert_matrix<Element> const& like) {
    basic_expert_matrix<Element, S> m(at);
    return like.has_pairs() ? m.in_pairs(like.pairs()) : m;
  }

  std::vector<std::shared_ptr<void>> held_;
  std::vector<std::function<testing::AssertionResult()>> compare_;
};

}  // namespace shunt::test
