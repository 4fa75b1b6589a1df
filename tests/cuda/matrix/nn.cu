#include "shunt/counter.cuh"
#include "shunt/nn/cross_entropy.cuh"
#include "shunt/nn/embedding.cuh"
#include "shunt/nn/linear.cuh"
#include "shunt/nn/norm.cuh"
#include "shunt/nn/optimizer.cuh"
#include "shunt/nn/rotary.cuh"

#include "cuda/matrix/matrix.hpp"

namespace shunt::matrix {

template <class T> void nn_module(on_cuda const& on) {
  (void)nn::rms_norm(on, in<T, 2>(), in<T, 1>(), out<T, 2>());
  (void)nn::rms_norm_add(on, in<T, 2>(), in<T, 2>(), out<T, 2>(), in<T, 1>(), out<T, 2>());
  (void)nn::rms_norm_backward(on, in<T, 2>(), in<T, 1>(), in<float, 1>(), in<T, 2>(), out<T, 2>(),
                              out<float, 1>(), scratch());
  (void)nn::rotary(on, out<T, 4>(), nn::rotary_table<space::device>());
  (void)nn::rotary_backward(on, out<T, 4>(), nn::rotary_table<space::device>());
  (void)nn::embedding(on, in<T, 2>(), in<index_t, 1>(), out<T, 2>());
  (void)nn::embedding_backward(on, in<T, 2>(), in<index_t, 1>(), out<float, 2>());
  (void)nn::cross_entropy(on, in<T, 2>(), in<T, 2>(), in<index_t, 1>(),
                          nn::cross_entropy_out<T, space::device>(), scratch());
  (void)nn::linear(on, in<T, 2>(), in<T, 2>(), out<T, 2>());
  (void)nn::linear_dgrad(on, in<T, 2>(), in<T, 2>(), out<T, 2>());
  (void)nn::linear_wgrad(on, in<T, 2>(), in<T, 2>(), out<float, 2>());
  (void)nn::adamw(on, nn::adamw_state<T, space::device>(), in<float, 1>(), {});
  (void)nn::working_copy(on, in<float, 1>(), out<T, 1>());
}
SHUNT_MATRIX(nn_module)

void of_floats_alone(on_cuda const& on) {
  (void)nn::rotary_fill(on, nn::rotary_table<space::device>());
  (void)nn::gradient_norm(on, in<float, 1>(), out<float, 1>(), scratch());
  (void)nn::scheduled_rate(on, nn::cosine_schedule(), in<std::int64_t, 1>(), out<float, 1>());
  (void)advance(on, out<index_t, 1>());
  (void)advance(on, out<std::int64_t, 1>());
  (void)advance(on, out<std::uint64_t, 1>());
}

}  // namespace shunt::matrix
