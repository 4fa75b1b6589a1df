#pragma once
#include "shunt/layer/memory.hpp"

namespace shunt::check {

template <execution P, class T, class G, class A>
[[nodiscard]] status moe_layer(P const& on, view<T const, 2, P::memory> x,
                               moe_weights<T, G, P::memory> const& w, view<T, 2, P::memory> y,
                               layer_options<A, P::memory> const& o,
                               moe_saved<T, P::memory> const* saved) noexcept {
  (void)x;
  (void)w;
  (void)y;
  (void)o;
  (void)saved;
  return policy(on);
}
template <execution P, class T, class G, class D, class A>
[[nodiscard]] status moe_layer_backward(P const& on, view<T const, 2, P::memory> x,
                                        moe_weights<T, G, P::memory> const& w,
                                        view<T const, 2, P::memory> d_y,
                                        moe_saved<T, P::memory> const& saved,
                                        view<D, 2, P::memory> d_x,
                                        moe_gradients<P::memory> const& g,
                                        layer_options<A, P::memory> const& o) noexcept {
  (void)x;
  (void)w;
  (void)d_y;
  (void)saved;
  (void)d_x;
  (void)g;
  (void)o;
  return policy(on);
}

}  // namespace shunt::check
