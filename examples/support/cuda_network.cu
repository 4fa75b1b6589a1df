#include "cuda_network.hpp"

#include "device_memory.cuh"
#include "network.hpp"
#include "shunt/nn/model.cuh"

namespace lm {

std::unique_ptr<any_network> cuda_network_of_float(settings const& s, bool mixed) {
  return std::make_unique<network<float, shunt::on_cuda>>(s, mixed, shunt::on_cuda{});
}

std::string cuda_device_name() {
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

}  // namespace lm
