#pragma once
/// What Python's on_cuda comes to, for one call.
#include <cuda_runtime.h>
#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

#include "array.hpp"
#include "device_call.hpp"
#include "shunt/backend/cuda/policy.cuh"

namespace bindings {

inline void raise_unless(cudaError_t done, char const* what) {
  if (done == cudaSuccess) return;
  PyErr_Format(PyExc_RuntimeError, "%s: CUDA says: %s", what, cudaGetErrorString(done));
  throw nb::python_error();
}

struct cuda_policy {
  int device = 0;
  std::uintptr_t stream = 0;
  shunt::arithmetic products = shunt::arithmetic::best;
  nb::object scratch, empty;
};

/// The device that is current when a call begins is so again when it ends, and what the call was
/// told is forgotten.
class whole_call {
 public:
  whole_call() noexcept : before_(called()) {
    if (cudaGetDevice(&device_) != cudaSuccess) device_ = -1;
  }
  ~whole_call() {
    called() = before_;
    int now = device_;
    if (device_ >= 0 && cudaGetDevice(&now) == cudaSuccess && now != device_) {
      static_cast<void>(cudaSetDevice(device_));
    }
  }
  whole_call(whole_call const&) = delete;
  whole_call& operator=(whole_call const&) = delete;

 private:
  device_call before_;
  int device_ = -1;
};

/// write_pointers of this backend.
void write_addresses(void** to, void* const* from, std::size_t count);

inline shunt::on_cuda cuda_policy_of(nb::handle on) {
  auto const& asked = nb::cast<cuda_policy const&>(on);
  auto const given = [](nb::object const& o) { return o.is_none() ? nb::handle() : nb::handle(o); };
  called() = {asked.device,    asked.stream, given(asked.empty), given(asked.scratch), 0,
              &write_addresses};
  if (auto const set = cudaSetDevice(asked.device); set != cudaSuccess) {
    raise_unless(set, ("on_cuda.device is " + std::to_string(asked.device)).c_str());
  }
  shunt::on_cuda p;
  p.stream = reinterpret_cast<cudaStream_t>(asked.stream);
  p.products = asked.products;
  return p;
}

/// fetch_bytes of this backend.
void fetch(void* to, void const* from, std::size_t bytes, int device);

}  // namespace bindings
