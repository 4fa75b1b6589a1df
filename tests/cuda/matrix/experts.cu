#include "shunt/experts.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void experts_module(on_cuda const& on) {
  segments<space::device> const rows;
  (void)grouped_gemm(on, in<T, 2>(), in<T, 3>(), rows, out<T, 2>());
  (void)grouped_gemm(on, in<T, 2>(), in<T, 3>(), rows, out<T, 2>(), swiglu{});
  (void)grouped_dgrad(on, in<T, 2>(), in<T, 3>(), rows, out<T, 2>());
  (void)grouped_wgrad(on, in<T, 2>(), in<T, 2>(), rows, out<float, 3>());
  (void)pack_weights(on, in<T, 3>(), out<T, 1>());
  (void)activation_forward(on, in<T, 2>(), swiglu{}, out<T, 2>());
  (void)activation_backward(on, in<T, 2>(), in<T, 2>(), swiglu{}, out<T, 2>());
  // what the layer's backward calls instead of grouped_dgrad and activation_backward
  (void)detail::experts_backend<on_cuda>::dgrad_activation(
      on, in<T, 2>(), expert_matrix<T, space::device>(in<T, 3>()), rows, {}, in<T, 2>(), swiglu{},
      out<T, 2>(), {.d_scale = out<float, 1>()}, out<float, 2>());
}
SHUNT_MATRIX(experts_module)

}  // namespace shunt::matrix
