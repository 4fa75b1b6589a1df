#include "cuda_network.hpp"

#include <string>

#include "device_memory.cuh"
#include "network.hpp"
#include "shunt/nn/model.cuh"

namespace lm {

std::unique_ptr<any_network> cuda_network(settings const& s, bool mixed) {
  shunt::on_cuda const on{};
  if (s.bf16) return std::make_unique<network<shunt::bf16, shunt::on_cuda>>(s, mixed, on);
  return std::make_unique<network<float, shunt::on_cuda>>(s, mixed, on);
}

std::string cuda_device_name() {
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

}  // namespace lm
