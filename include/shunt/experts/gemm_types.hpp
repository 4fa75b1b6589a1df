#pragma once
#include <cstdint>

#include "shunt/core/shape.hpp"
#include "shunt/core/view.hpp"
#include "shunt/experts/element_type.hpp"

/// The operands of a product with their element types put aside: what the backends' GEMMs are told.
namespace shunt::detail {

/// A factor for row r: factor[r], or with slots factor[slot[r]], 0 where the slot is -1. Null: 1.
struct gemm_scale {
  float const* factor = nullptr;
  index_t const* slot = nullptr;
};

/// Rows of tokens or of experts' work. With `slot` they are gathered: row r lies at row
/// slot[r] / top_k, and reads as zeros where slot[r] is -1. With `scale` row r is multiplied by its
/// factor (rounded to float) before use.
struct gemm_rows {
  void const* data = nullptr;
  element_type type = element_type::f32;
  std::int64_t stride = 0;  ///< elements from row to row
  index_t const* slot = nullptr;
  index_t top_k = 1;
  gemm_scale scale{};
};

/// How the caller's 2I rows of a gated matrix lie: logical row n is of half n / half_rows (0 gate,
/// 1 up). block 0: one half behind the other; b: blocks of b rows in turn. half_rows 0: no pairs.
struct gemm_pairs {
  std::int64_t half_rows = 0;
  std::int64_t block = 0;
  bool up_first = false;
};

/// E matrices W[e][n][k]: at data + e * expert_stride, or at each[e]; element (n, k) at
/// n * row_stride + k * column_stride. With `second` the rows of the caller's second half are at
/// second[e]. Packed: panels of gemm_panel rows, each half of a pair in
/// panels of its own.
template <class Void> struct gemm_experts {
  Void* data = nullptr;
  Void* const* each = nullptr;
  Void* const* second = nullptr;
  element_type type = element_type::f32;
  std::int64_t expert_stride = 0, row_stride = 0, column_stride = 1;
  bool packed = false;
  gemm_pairs pairs{};
};

inline constexpr std::int64_t gemm_panel = 16;  ///< columns of a panel: one cache line of floats

enum class gemm_kind : std::uint8_t {
  forward,  ///< c[r][n]  = sum over k of a[r][k] w[e][n][k]
  dgrad,    ///< c[r][k]  = sum over n of a[r][n] w[e][n][k]
  wgrad     ///< dw[e][n][k] (+)= sum over r of a[r][n] b[r][k]
};

/// Where sums go: c = sum, times the row's factor, or c + that, rounded to what c is stored as.
struct gemm_store {
  void* data = nullptr;
  element_type type = element_type::f32;
  std::int64_t stride = 0;
  bool accumulate = false;
  gemm_scale scale{};
};

/// One grouped product but for what becomes of its sums.
struct gemm_product {
  gemm_kind kind = gemm_kind::forward;
  index_t experts = 1;
  index_t const* offset = nullptr;  ///< [E+1]; null: one segment of `rows` rows
  std::int64_t rows = 0;            ///< with offsets: at most, of all experts together
  index_t expected = 0;             ///< of one expert, as guessed; 0: rows / experts
  std::int64_t n = 0, k = 0;        ///< N and K of w[e][n][k]
  gemm_rows a{};
  gemm_rows b{};                       ///< wgrad only
  gemm_experts<void const> w{};        ///< forward and dgrad
  bool paired = false;                 ///< forward: gate and up columns come together
  bool skip_empty = false;             ///< wgrad: an empty segment leaves its output alone
  std::uint8_t const* skip = nullptr;  ///< wgrad: experts that want no gradient
};

template <storage T, space S> gemm_rows gemm_rows_of(view<T const, 2, S> x) noexcept {
  return {.data = x.data(), .type = element_type_of<T>, .stride = x.stride(0)};
}
template <storage T, space S> gemm_store gemm_store_of(view<T, 2, S> x, bool accumulate) noexcept {
  return {x.data(), element_type_of<T>, x.stride(0), accumulate, {}};
}

/// a times one matrix w [N,K], or its transpose (dgrad).
template <storage A, storage W, space S>
gemm_product dense_product_of(gemm_kind kind, view<A const, 2, S> a,
                              view<W const, 2, S> w) noexcept {
  gemm_product product;
  product.kind = kind;
  product.rows = a.extent(0);
  product.n = w.extent(0);
  product.k = w.extent(1);
  product.a = gemm_rows_of(a);
  product.w.data = w.data();
  product.w.type = element_type_of<W>;
  product.w.row_stride = w.stride(0);
  product.w.column_stride = w.stride(1);
  return product;
}
/// dyᵀ times x: the gradient of one matrix [N,K].
template <storage Y, storage X, space S>
gemm_product dense_wgrad_of(view<Y const, 2, S> dy, view<X const, 2, S> x) noexcept {
  gemm_product product;
  product.kind = gemm_kind::wgrad;
  product.rows = dy.extent(0);
  product.n = dy.extent(1);
  product.k = x.extent(1);
  product.a = gemm_rows_of(dy);
  product.b = gemm_rows_of(x);
  return product;
}

}  // namespace shunt::detail
