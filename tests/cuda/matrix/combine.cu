#include "shunt/combine.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void combine_module(on_cuda const& on) {
  (void)shunt::combine(on, in<T, 2>(), plan(), in<float, 2>(), out<T, 2>());
  (void)combine_backward(on, in<T, 2>(), plan(), in<float, 2>(), in<T, 2>(), out<T, 2>());
}
SHUNT_MATRIX(combine_module)

}  // namespace shunt::matrix
