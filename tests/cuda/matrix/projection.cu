#include "shunt/gate_projection.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void projection_module(on_cuda const& on) {
  (void)gate_logits(on, in<T, 2>(), in<T, 2>(), out<float, 2>());
  (void)gate_logits(on, in<T, 2>(), in<float, 2>(), out<float, 2>());
  (void)gate_logits_backward(on, in<float, 2>(), in<T, 2>(), in<float, 2>(),
                             gate_gradients<T, space::device>());
}
SHUNT_MATRIX(projection_module)

}  // namespace shunt::matrix
