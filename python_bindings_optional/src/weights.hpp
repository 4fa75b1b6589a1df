#pragma once
/// Weights as they lie: type-erased here, typed where a call needs them.
#include <nanobind/nanobind.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "array.hpp"
#include "shunt/layer/weights.hpp"

namespace bindings {

/// What pack_weights made: the caller's buffer, and what is in it.
struct packed_weights {
  array data;
  offset_t experts = 0, rows = 0, columns = 0;
  std::optional<shunt::pair_layout> pairs;
};

/// Where each matrix of a list begins, in memory that a call's backend reads.
struct address_table {
  void* const* first = nullptr;
  nb::object memory;  ///< of a device; the table lies in it
};

/// E matrices: one array [E,N,K] (or [N,K]: one matrix), a list of E arrays [N,K], a tuple (gates,
/// ups) of two lists of E arrays [N/2,K], or packed ones.
class matrices {
 public:
  matrices() = default;
  /// None: no matrices. `pairs` is None or (order, block).
  matrices(nb::handle object, char const* name, std::initializer_list<element> types, access how,
           place where, nb::handle pairs);

  [[nodiscard]] explicit operator bool() const noexcept { return bool(whole_) || !each_.empty(); }
  [[nodiscard]] element type() const noexcept { return type_; }
  [[nodiscard]] place where() const noexcept {
    return each_.empty() ? whole_.where() : each_.front().where();
  }
  [[nodiscard]] offset_t experts() const noexcept { return extents_[0]; }
  [[nodiscard]] offset_t rows() const noexcept { return extents_[1]; }
  [[nodiscard]] offset_t columns() const noexcept { return extents_[2]; }
  [[nodiscard]] bool is_packed() const noexcept { return packed_; }
  [[nodiscard]] std::optional<shunt::pair_layout> pairs() const noexcept { return pairs_; }
  /// A ValueError where gate and up are arrays of their own, and the pairs are not one half behind
  /// the other.
  void set_pairs(std::optional<shunt::pair_layout> pairs);

  /// Its arrays, for check_apart.
  template <class F> void each_array(F&& f) const {
    if (whole_) f(whole_);
    for (array const& a : each_) f(a);
  }

  /// For one call: of a device's list a new one, which is written in the order of the call's stream.
  [[nodiscard]] address_table addresses() const;

  /// Element: T const for weights, float for gradients. Those that were made by the call itself have
  /// their addresses; others are given them.
  template <class Element, shunt::space S>
  [[nodiscard]] shunt::basic_expert_matrix<Element, S> as() const noexcept {
    return as<Element, S>(own_);
  }
  template <class Element, shunt::space S>
  [[nodiscard]] shunt::basic_expert_matrix<Element, S> as(
      address_table const& each) const noexcept {
    using matrix = shunt::basic_expert_matrix<Element, S>;
    if (!*this) return {};
    if (packed_) {
      auto* const data = static_cast<Element*>(whole_.data());
      return pairs_ ? matrix::packed(data, experts(), rows(), columns(), *pairs_)
                    : matrix::packed(data, experts(), rows(), columns());
    }
    matrix made;
    if (!each_.empty()) {
      auto* const first = reinterpret_cast<Element* const*>(each.first);
      if (apart_) {
        return matrix::each({first, {{experts()}}}, {first + experts(), {{experts()}}}, rows() / 2,
                            columns(), strides_[1]);
      }
      made = matrix::each({first, {{experts()}}}, rows(), columns(), strides_[1]);
    } else {
      made = matrix(shunt::view<Element, 3, S>(static_cast<Element*>(whole_.data()),
                                               {{experts(), rows(), columns()}},
                                               {{strides_[0], strides_[1], strides_[2]}}));
    }
    return pairs_ ? made.in_pairs(*pairs_) : made;
  }

 private:
  void add(nb::handle list, std::string const& called, char const* name,
           std::initializer_list<element> types, access how, place where);

  array whole_;
  std::vector<array> each_;  ///< of (gates, ups): all gates, then all ups
  std::vector<void*> pointers_;
  address_table own_;
  element type_ = element::other;
  offset_t extents_[3] = {}, strides_[3] = {};
  std::optional<shunt::pair_layout> pairs_;
  bool packed_ = false, apart_ = false;
};

/// (order, block) or None.
[[nodiscard]] std::optional<shunt::pair_layout> pairs_of(nb::handle pairs);

/// Python's Weights.
struct weights {
  array gate, gate_bias, choice_bias;
  matrices up, down;
  array up_bias, down_bias;
  matrices shared_up, shared_down;
  array shared_gate, latent_down, latent_up;

  weights(nb::handle gate, nb::handle up, nb::handle down, nb::handle gate_bias,
          nb::handle choice_bias, nb::handle up_bias, nb::handle down_bias, nb::handle shared_up,
          nb::handle shared_down, nb::handle shared_gate, nb::handle latent_down,
          nb::handle latent_up, nb::handle pairs, nb::handle shared_pairs);

  [[nodiscard]] element type() const noexcept { return up.type(); }
  [[nodiscard]] place where() const noexcept { return gate.where(); }
  [[nodiscard]] int device() const noexcept { return gate.device(); }
  /// The gate is float beside 16-bit experts, or of their type.
  [[nodiscard]] bool wide_gate() const noexcept {
    return gate.type() == element::f32 && type() != element::f32;
  }
  template <class F> void each_array(F&& f) const {
    for (array const* a : {&gate, &gate_bias, &choice_bias, &up_bias, &down_bias, &shared_gate,
                           &latent_down, &latent_up}) {
      if (*a) f(*a);
    }
    for (matrices const* m : {&up, &down, &shared_up, &shared_down}) m->each_array(f);
  }

  /// Of its lists, for one call.
  struct tables {
    address_table up, down, shared_up, shared_down;
  };
  [[nodiscard]] tables addresses() const {
    return {up.addresses(), down.addresses(), shared_up.addresses(), shared_down.addresses()};
  }

  template <class T, class G, shunt::space S>
  [[nodiscard]] shunt::moe_weights<T, G, S> as(tables const& each) const noexcept {
    shunt::moe_weights<T, G, S> w;
    w.gate = gate.as<G const, 2, S>();
    w.gate_bias = gate_bias.as<float const, 1, S>();
    w.choice_bias = choice_bias.as<float const, 1, S>();
    w.up = up.as<T const, S>(each.up);
    w.down = down.as<T const, S>(each.down);
    w.up_bias = vector_of<S>(up_bias);
    w.down_bias = vector_of<S>(down_bias);
    w.shared_up = shared_up.as<T const, S>(each.shared_up);
    w.shared_down = shared_down.as<T const, S>(each.shared_down);
    w.shared_gate = shared_gate.as<T const, 1, S>();
    w.latent_down = latent_down.as<T const, 2, S>();
    w.latent_up = latent_up.as<T const, 2, S>();
    return w;
  }

  template <shunt::space S>
  [[nodiscard]] static shunt::expert_vector<S> vector_of(array const& bias) noexcept {
    if (!bias) return {};
    return with_storage(
        bias.type(), [&]<class B>() { return shunt::expert_vector<S>(bias.as<B const, 2, S>()); });
  }
};

void bind_weights(nb::module_& m);

}  // namespace bindings
