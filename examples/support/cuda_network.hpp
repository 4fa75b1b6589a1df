#pragma once
#include <memory>

#include "any_network.hpp"
#include "settings.hpp"

namespace lm {

/// A network on the CUDA device; and what that device calls itself. In cuda_network.cu, which nvcc
/// compiles.
[[nodiscard]] std::unique_ptr<any_network> cuda_network(settings const& s, bool mixed);
[[nodiscard]] std::string cuda_device_name();

}  // namespace lm
