#pragma once
#include <type_traits>

#include "shunt/layer.hpp"
#include "shunt/nn/cross_entropy.hpp"
#include "shunt/nn/embedding.hpp"
#include "shunt/nn/linear.hpp"
#include "shunt/nn/norm.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// What a model asks of whoever has its tokens and experts: the mixture, and each sum over tokens. One process has
/// them all, and these are its primitives; across_ranks.hpp has the same for ranks.
struct one_process {
  /// What the mixture keeps for backward.
  template <storage T, space S>
  [[nodiscard]] static moe_saved<T, S> carve_saved(arena<S>& from, index_t tokens,
                                                   moe_weights<T, T, S> const& w,
                                                   layer_options<swiglu, S> const& o) noexcept {
    return carve_moe_saved(from, tokens, w, o);
  }
  template <class P, storage T>
  [[nodiscard]] static std::size_t forward_bytes(
      P const& on, index_t tokens, moe_weights<T, T, P::memory> const& w,
      layer_options<swiglu, P::memory> const& o) noexcept {
    return moe_layer_scratch_bytes(on, tokens, w, o, true);
  }
  template <class P, storage T>
  [[nodiscard]] static std::size_t backward_bytes(
      P const& on, index_t tokens, moe_weights<T, T, P::memory> const& w,
      layer_options<swiglu, P::memory> const& o) noexcept {
    return moe_layer_backward_scratch_bytes(on, tokens, w, o);
  }

  template <class P, storage T>
  [[nodiscard]] static status mixture(P const& on, view<T, 2, P::memory> x,
                                      moe_weights<T, T, P::memory> const& w,
                                      view<T, 2, P::memory> y, moe_outputs<T, P::memory> out,
                                      moe_saved<T, P::memory> const& saved, arena<P::memory> work,
                                      layer_options<swiglu, P::memory> const& o) noexcept {
    out.saved = &saved;
    return moe_layer(on, x, w, y, out, work, o);
  }
  template <class P, storage T>
  [[nodiscard]] static status mixture_backward(
      P const& on, view<T, 2, P::memory> x, moe_weights<T, T, P::memory> const& w,
      view<T const, 2, P::memory> d_y, moe_saved<T, P::memory> const& saved,
      view<T, 2, P::memory> d_x, moe_gradients<P::memory> const& g, arena<P::memory> work,
      layer_options<swiglu, P::memory> const& o) noexcept {
    return moe_layer_backward(on, x, w, d_y, saved, d_x, g, work, o);
  }

  /// d_weight = d_yᵀ·x.
  template <class P, class DY, class X>
  [[nodiscard]] static status weight_gradient(P const& on, DY const& d_y, X const& x,
                                              view<float, 2, P::memory> d_weight,
                                              bool accumulate) noexcept {
    return linear_wgrad(on, d_y, x, d_weight, {.accumulate = accumulate});
  }
  template <class P, class X, class W, class DY, class DX>
  [[nodiscard]] static status norm_backward(
      P const& on, X const& x, W const& weight,
      std::type_identity_t<view<float const, 1, P::memory>> inverse, DY const& d_y, DX const& d_x,
      view<float, 1, P::memory> d_weight, arena<P::memory> work,
      rms_norm_backward_options<element_t<DX>, P::memory> const& o) noexcept {
    return rms_norm_backward(on, x, weight, inverse, d_y, d_x, d_weight, work, o);
  }
  template <class P, class Rows>
  [[nodiscard]] static status table_gradient(P const& on, Rows const& d_rows,
                                             view<index_t const, 1, P::memory> id,
                                             view<float, 2, P::memory> d_table,
                                             bool accumulate) noexcept {
    return embedding_backward(on, d_rows, id, d_table, {.accumulate = accumulate});
  }
  /// The loss of all tokens, and its gradients where `out` asks for them.
  template <class P, storage T>
  [[nodiscard]] static status head(P const& on, view<T, 2, P::memory> x,
                                   view<T const, 2, P::memory> weight,
                                   view<index_t const, 1, P::memory> target,
                                   cross_entropy_out<T, P::memory> const& out,
                                   arena<P::memory> work, cross_entropy_options const& o) noexcept {
    return nn::cross_entropy(on, x, weight, target, out, work, o);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
