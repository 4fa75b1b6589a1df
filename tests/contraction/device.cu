// What tests/cuda/matrix leaves out: the model's own kernels, and double arithmetic on the device.
#include "shunt/backend/cuda/nn/model.cuh"

namespace shunt::contraction {
void first_weights(on_cuda const& on, view<float, 1, space::device> values) {
  (void)nn::detail::model_backend<on_cuda>::fill_normal(on, values, 0, 0, 0.02);
}
}  // namespace shunt::contraction
