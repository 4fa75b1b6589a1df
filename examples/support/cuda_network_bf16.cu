#include "cuda_network.hpp"
#include "device_memory.cuh"
#include "network.hpp"
#include "shunt/nn/model.cuh"

namespace lm {

std::unique_ptr<any_network> cuda_network_of_bf16(settings const& s, bool mixed) {
  return std::make_unique<network<shunt::bf16, shunt::on_cuda>>(s, mixed, shunt::on_cuda{});
}

}  // namespace lm
