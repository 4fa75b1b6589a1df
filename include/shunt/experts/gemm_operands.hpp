#pragma once
#include "shunt/experts/gemm_types.hpp"
#include "shunt/experts/options.hpp"

/// From what the experts' primitives take to what the backends' GEMMs are told.
namespace shunt::detail {

template <space S> gemm_scale gemm_scale_of(row_factors<S> const& scale) noexcept {
  return {scale.factor.data(), scale.slot.data()};
}
template <storage T, space S>
gemm_rows gemm_rows_of(view<T const, 2, S> x, row_gather<S> const& gather,
                       gemm_scale scale = {}) noexcept {
  return {x.data(), element_type_of<T>, x.stride(0), gather.slot.data(), gather.top_k, scale};
}
template <space S> gemm_store gemm_store_of(matrix_out<S> const& x) noexcept {
  return {x.data(), x.type(), x.stride(0), false, {}};
}

template <class Element, space S, class Void>
void gemm_strides_of(basic_expert_matrix<Element, S> const& m, gemm_experts<Void>& to) noexcept {
  to.expert_stride = m.stride(0);
  to.row_stride = m.stride(1);
  to.column_stride = m.stride(2);
  to.packed = m.is_packed();
  if (m.has_pairs()) {
    to.pairs = {m.rows() / 2, m.pairs().block, m.pairs().order == pair_order::up_gate};
  }
}
template <weight_format W, space S>
gemm_experts<void const> gemm_weights_of(expert_matrix<W, S> const& w) noexcept {
  gemm_experts<void const> to;
  to.data = w.data();
  to.each = reinterpret_cast<void const* const*>(w.pointers());
  to.second = reinterpret_cast<void const* const*>(w.second_pointers());
  to.type = element_type_of<W>;
  gemm_strides_of(w, to);
  return to;
}
template <space S> gemm_experts<void> gemm_gradients_of(expert_gradient<S> const& dw) noexcept {
  gemm_experts<void> to;
  to.data = dw.data();
  to.each = reinterpret_cast<void* const*>(dw.pointers());
  to.second = reinterpret_cast<void* const*>(dw.second_pointers());
  gemm_strides_of(dw, to);
  return to;
}
/// Biases in the order of the rows of `w`.
template <space S>
gemm_experts<void const> gemm_bias_of(expert_vector<S> const& bias, gemm_pairs pairs) noexcept {
  gemm_experts<void const> to;
  to.data = bias.data();
  to.each = bias.pointers();
  to.type = bias.type();
  to.expert_stride = bias.stride(0);
  to.row_stride = bias.stride(1);
  to.pairs = pairs;
  return to;
}

/// A product of experts, its operands to come. `most`: rows of the expert-ordered matrices.
template <space S>
gemm_product grouped_product_of(gemm_kind kind, segments<S> rows, offset_t most, offset_t N,
                                offset_t K) noexcept {
  gemm_product product;
  product.kind = kind;
  product.experts = rows.experts();
  product.offset = rows.offset.data();
  product.rows = most;
  product.expected = rows.expected;
  product.n = N;
  product.k = K;
  return product;
}

}  // namespace shunt::detail
