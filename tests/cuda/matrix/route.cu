#include "shunt/route.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void route_module(on_cuda const& on) {
  routing<space::device> const choice;
  (void)shunt::route(on, in<T, 2>(), choice, scratch());
  (void)shunt::route_backward(on, in<T, 2>(), choice, route_gradients<space::device>(), out<T, 2>(),
                              scratch());
  expert_choice<space::device> const chosen;
  (void)shunt::route_expert_choice(on, in<T, 2>(), chosen, scratch());
  (void)shunt::route_expert_choice_backward(on, in<T, 2>(), chosen, in<float, 2>(), out<T, 2>(),
                                            scratch());
}
SHUNT_MATRIX(route_module)

void losses_and_balance(on_cuda const& on) {
  routing<space::device> const load;
  (void)balance_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)sequence_balance_loss(on, load, out<float, 1>(), out<float, 2>());
  (void)z_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)band_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)sign_step(on, in<index_t, 1>(), out<float, 1>());
  (void)quantile_step(on, in<index_t, 2>(), out<float, 1>(), 1);
}

}  // namespace shunt::matrix
