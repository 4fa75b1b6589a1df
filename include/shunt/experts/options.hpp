#pragma once
#include <cstdint>

#include "shunt/core/segments.hpp"
#include "shunt/core/view.hpp"
#include "shunt/experts/weights.hpp"

namespace shunt {

/// Rows read through a plan instead of from a permuted copy: row r is row slot[r] / top_k of the
/// matrix, and zeros where slot[r] is -1 (a padding row). `{plan.row_slot, plan.top_k}` fuses dispatch
/// into a product. Null: the rows as they stand.
template <space S = space::host> struct row_gather {
  view<index_t const, 1, S> slot = {};  ///< [R] the slot of each row; null: none is gathered
  index_t top_k = 1;                    ///< slots of one row of the matrix
};

/// A factor for each row: factor[r], or, with slots, factor[slot[r]] (0 where the slot is -1): a
/// gate [T,K] taken as [T*K] with plan.row_slot. Null: 1.
template <space S = space::host> struct row_factors {
  view<float const, 1, S> factor = {};  ///< [R], or [slots] where `slot` is given
  view<index_t const, 1, S> slot = {};  ///< [R] where the factor of each row stands; null: at r
};

/// Options of grouped_gemm.
template <space S = space::host> struct gemm_options {
  row_gather<S> gather = {};   ///< of a
  expert_vector<S> bias = {};  ///< [E,N], in the order of the weights' rows
  matrix_out<S> pre = {};      ///< out, [R,N]: the pre-activations, gate columns before up columns
  /// Round the pre-activations to c's type although they are not stored, so that the result is the
  /// one that a run that stores them gets.
  bool round_pre = false;
  row_factors<S> scale = {};  ///< times the activation's value
  /// Weights int8_channel or mxfp4: round the rows to int8 too, so that products are of integers. See
  /// docs/stages/weight_formats.md, "Rows in int8".
  bool int8_rows = false;
};

/// Options of grouped_dgrad.
template <space S = space::host> struct dgrad_options {
  row_gather<S> gather = {};  ///< of dc
  row_factors<S> scale = {};  ///< times the sums
  bool accumulate = false;    ///< onto what da holds
};

/// Options of grouped_wgrad.
template <space S = space::host> struct wgrad_options {
  row_gather<S> gather_dc = {};   ///< of dc
  row_gather<S> gather_a = {};    ///< of a
  row_factors<S> scale = {};      ///< times the rows of dc
  bool accumulate = false;        ///< onto what dw and d_bias hold, instead of overwriting
  view<float, 2, S> d_bias = {};  ///< out, [E,N], in the order of dw's rows
  view<std::uint8_t const, 1, S> frozen = {};  ///< [E]: not 0: nothing of this expert is written
};

/// Options of activation_forward and activation_backward.
template <space S = space::host> struct activation_options {
  segments<S> rows = {};      ///< the rows in use are [0, offset[E]); null: all
  row_factors<S> scale = {};  ///< forward: times the value; backward: times d_act, see there
  matrix_out<S> act = {};  ///< backward, out, [R,I]: scale times the activation, for the next wgrad
  view<float, 1, S> d_scale = {};  ///< backward, out, [R]: the gradient of each row's factor
};

namespace detail {
/// The backend of a policy: a specialization for each.
template <class P> struct experts_backend;
}  // namespace detail
}  // namespace shunt
