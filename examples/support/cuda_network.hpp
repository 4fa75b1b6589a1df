#pragma once
#include <memory>
#include <string>

#include "any_network.hpp"
#include "settings.hpp"

namespace lm {

/// A network on the CUDA device, of float or of bf16 elements; and what that device calls itself. Each
/// type has a source that nvcc compiles, so that two compilers share the work.
[[nodiscard]] std::unique_ptr<any_network> cuda_network_of_float(settings const& s, bool mixed);
[[nodiscard]] std::unique_ptr<any_network> cuda_network_of_bf16(settings const& s, bool mixed);
[[nodiscard]] std::string cuda_device_name();

}  // namespace lm
