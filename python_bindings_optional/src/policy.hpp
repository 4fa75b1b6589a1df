#pragma once
/// Where primitives run: the same sources are compiled for the host and, by nvcc with
/// SHUNT_BINDINGS_CUDA, for CUDA.
#include "array.hpp"
#include "device_call.hpp"
#ifdef SHUNT_BINDINGS_CUDA
#include "cuda_policy.hpp"
#else
#include "host_policy.hpp"
#endif

namespace bindings {

#ifdef SHUNT_BINDINGS_CUDA
using policy = shunt::on_cuda;
inline constexpr place here = place::cuda;
inline constexpr fetch_bytes fetcher = &fetch;
inline policy policy_of(nb::handle on) { return cuda_policy_of(on); }
#else
using policy = shunt::on_host;
inline constexpr place here = place::host;
inline constexpr fetch_bytes fetcher = nullptr;
inline policy policy_of(nb::handle on) { return host_policy_of(on); }
struct whole_call {};
#endif
inline constexpr shunt::space S = policy::memory;

/// A function of the module. `whole_call` is there from its first line to its last.
template <class F> void def(nb::module_& m, char const* name, F function) {
  m.def(name, function, nb::call_guard<whole_call>());
}

}  // namespace bindings
