#pragma once
#include <cmath>
#include <cstddef>
#include <vector>

#include "shunt/experts/weights.hpp"
#include "support/guarded.hpp"

namespace shunt::test {

/// Gated matrices [E,2I,K] whose gate and up halves are tensors of their own, each at a guard page;
/// rows `spare` elements further apart than they are long.
template <class T> class halves_apart {
 public:
  halves_apart(int experts, int half, int columns, int spare = 0)
      : half_(half), columns_(columns), stride_(columns + spare) {
    auto const size = static_cast<std::size_t>((half - 1) * stride_ + columns);
    for (int i = 0; i < 2 * experts; ++i) own_.emplace_back(size);
    // Up halves first, and from the last expert on: nothing follows from where another lies.
    for (std::size_t e = 0, all = own_.size(); e < all / 2; ++e) {
      gates_.push_back(own_[all / 2 + e].data());
      ups_.push_back(own_[all / 2 - 1 - e].data());
    }
  }
  /// From the same matrices [gate; up].
  halves_apart(guarded<T> const& whole, int experts, int half, int columns, int spare = 0)
      : halves_apart(experts, half, columns, spare) {
    each([&](T* const row, std::size_t from) {
      for (int k = 0; k < columns_; ++k) row[k] = whole[from + static_cast<std::size_t>(k)];
    });
  }
  /// As of an expert without rows, whose weights nobody has.
  void forget(int e) {
    gates_[static_cast<std::size_t>(e)] = ups_[static_cast<std::size_t>(e)] = nullptr;
  }

  [[nodiscard]] expert_matrix<T> weights() const { return lying<T const>(); }
  [[nodiscard]] expert_gradient<> gradients() const { return lying<float>(); }
  /// The same matrices [gate; up].
  [[nodiscard]] guarded<T> together() const {
    guarded<T> whole(gates_.size() * static_cast<std::size_t>(2 * half_ * columns_));
    each([&](T* const row, std::size_t to) {
      for (int k = 0; k < columns_; ++k) whole[to + static_cast<std::size_t>(k)] = row[k];
    });
    return whole;
  }
  /// Whether nobody wrote between the rows.
  [[nodiscard]] bool clean_between() const {
    bool clean = true;
    for (guarded<T> const& own : own_) {
      for (std::size_t i = 0; i < own.size(); ++i) {
        if (static_cast<int>(i) % stride_ >= columns_)
          clean = clean && std::isnan(to_float(own[i]));
      }
    }
    return clean;
  }

 private:
  template <class Element> [[nodiscard]] basic_expert_matrix<Element> lying() const {
    auto const pointers = [](std::vector<T*> const& to) {
      return view<Element* const, 1>(to.data(), {{static_cast<offset_t>(to.size())}});
    };
    return basic_expert_matrix<Element>::each(pointers(gates_), pointers(ups_), half_, columns_,
                                              stride_ == columns_ ? 0 : stride_);
  }
  template <class Row> void each(Row const& row) const {
    std::size_t at = 0;
    for (std::size_t e = 0; e < gates_.size(); ++e) {
      for (int n = 0; n < 2 * half_; ++n, at += static_cast<std::size_t>(columns_)) {
        row(n < half_ ? gates_[e] + n * stride_ : ups_[e] + (n - half_) * stride_, at);
      }
    }
  }

  int half_, columns_, stride_;
  std::vector<guarded<T>> own_;
  std::vector<T*> gates_, ups_;
};

}  // namespace shunt::test
