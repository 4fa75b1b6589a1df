#include "shunt/dispatch.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

void plans(on_cuda const& on) {
  (void)plan_dispatch(on, in<index_t, 2>(), plan(), scratch());
  (void)plan_from_expert_choice(on, in<index_t, 2>(), plan(), scratch());
  (void)row_tokens(on, plan(), out<index_t, 1>());
  (void)gates_to_rows(on, in<float, 2>(), plan(), out<float, 1>());
  (void)rows_to_gates(on, in<float, 1>(), plan(), out<float, 2>());
}

template <class T> void dispatch_module(on_cuda const& on) {
  (void)shunt::dispatch(on, in<T, 2>(), plan(), out<T, 2>());
  (void)dispatch_backward(on, in<T, 2>(), plan(), out<T, 2>());
  (void)dispatch_backward(on, in<T, 2>(), plan(), out<float, 2>());
}
SHUNT_MATRIX(dispatch_module)

}  // namespace shunt::matrix
