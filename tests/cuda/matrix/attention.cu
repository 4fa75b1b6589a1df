#include "shunt/nn/attention.cuh"
#include "shunt/nn/kv_cache.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void attention_module(on_cuda const& on) {
  (void)nn::attention(on, in<T, 4>(), in<T, 4>(), in<T, 4>(), out<T, 4>(), out<float, 3>(),
                      scratch());
  (void)nn::attention_backward(on, in<T, 4>(), in<T, 4>(), in<T, 4>(), in<T, 4>(), in<float, 3>(),
                               in<T, 4>(), out<T, 4>(), out<T, 4>(), out<T, 4>(), scratch());
  nn::kv_cache<T, space::device> const cache;
  (void)nn::cache_append(on, in<T, 4>(), in<T, 4>(), cache, 0);
  (void)nn::cache_attend(on, in<T, 4>(), cache, 0, out<T, 4>(), scratch());
}
SHUNT_MATRIX(attention_module)

}  // namespace shunt::matrix
