#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/dispatch/options.hpp"

namespace shunt {

/// Zero experts: ids [first, first + count) are the identity. A slot with such an id adds gate · x.
///   Shapes  expert [T,K] · x [T,H]
template <class T, space S = space::host> struct zero_experts {
  view<index_t const, 2, S> expert = {};  ///< global ids of all slots; null: no zero experts
  view<T const, 2, S> x = {};             ///< the tokens as they came to the layer
  index_t first = 0, count = 0;           ///< the global id of the first, and how many; 0: none
};

/// What is added to a token in addition to its rows. T is the element type of y.
///   Shapes  shared [T,H] · shared_gate [T] · residual [T,H] · valid [T]
template <class T, space S = space::host> struct combine_options {
  view<T const, 2, S> shared = {};            ///< the shared experts' output
  view<float const, 1, S> shared_gate = {};   ///< its factor for each token; null: 1
  view<T const, 2, S> residual = {};          ///< [T,H] added last; null: none
  zero_experts<T, S> zero = {};               ///< the identity experts of the layer, if any
  view<std::uint8_t const, 1, S> valid = {};  ///< 0: the token's output is zero, all of it
};

/// Further inputs and results of combine_backward. T is the element type of d_y; each result is
/// optional.
template <class T, space S = space::host> struct combine_gradients {
  view<T const, 2, S> shared = {};            ///< forward's, needed for d_shared_gate only
  view<float const, 1, S> shared_gate = {};   ///< forward's
  zero_experts<T, S> zero = {};               ///< forward's
  view<std::uint8_t const, 1, S> valid = {};  ///< [T] forward's
  view<float, 2, S> d_gate = {};  ///< [T,K] <d_y, row>; not written for slots with a row where
                                  ///< rows is null; 0 for slots that add nothing
  view<T, 2, S> d_shared = {};    ///< [T,H] shared_gate · d_y
  view<float, 1, S> d_shared_gate = {};  ///< [T] <d_y, shared>
  view<T, 2, S> d_residual = {};         ///< [T,H] d_y, zero for tokens that do not count
  view<T, 2, S> d_x = {};                ///< [T,H] Σ gate · d_y over zero-expert slots
  bool accumulate = false;               ///< add to d_x instead of overwriting it
};

namespace detail {
/// The backend of a policy: one specialization in each backend's combine header.
template <class P> struct combine_backend;
}  // namespace detail

}  // namespace shunt
