#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "shunt/core/abi.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/dispatch/plan.hpp"

namespace shunt {

/// Options of dispatch.
///   Shapes  gate [T,K]
template <space S = space::host> struct dispatch_options {
  view<float const, 2, S> gate = {};  ///< rows are gate · x; null: plain copies
};

/// Options and further results of dispatch_backward. T is the element type of d_rows.
///   Shapes  gate [T,K] · x [T,H] · d_gate [T,K]
template <class T, space S = space::host> struct dispatch_gradients {
  view<float const, 2, S> gate = {};  ///< the forward's
  view<T const, 2, S> x = {};         ///< the forward's tokens: needed for d_gate only
  view<float, 2, S> d_gate = {};      ///< written: <d_row, x>, 0 where the slot has no row
  bool accumulate = false;            ///< add to d_x instead of overwriting it
};

namespace detail {
/// The backend of a policy: one specialization in each backend's dispatch header.
template <class P> struct dispatch_backend;
}  // namespace detail

}  // namespace shunt
