// The extension module _cuda: the functions of _host for arrays in CUDA memory. Types are _host's.
#include <cuda_runtime.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string_view.h>

#include <string>
#include <string_view>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"

namespace bindings {

void fetch(void* to, void const* from, std::size_t bytes, int device) {
  cudaError_t done = cudaSuccess;
  {
    nb::gil_scoped_release const free;
    int before = device;
    static_cast<void>(cudaGetDevice(&before));
    done = cudaSetDevice(device);
    if (done == cudaSuccess) done = cudaDeviceSynchronize();
    if (done == cudaSuccess) done = cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost);
    static_cast<void>(cudaSetDevice(before));
  }
  raise_unless(done, "a report of the device");
}

namespace {

/// products: as shunt.on_cuda has checked it.
cuda_policy make_policy(int device, std::uintptr_t stream, std::string_view products, maybe scratch,
                        maybe empty) {
  using enum shunt::arithmetic;
  return {device, stream,
          products == "exact"  ? exact
          : products == "tf32" ? tf32
                               : best,
          nb::borrow(scratch), nb::borrow(empty)};
}

/// Zeros in an array that was just made, in the order of the call's stream.
void set_zero(maybe made, maybe on) {
  policy const where = policy_of(on);
  using enum element;
  array const a(made, "a new array", -1, {f32, f16, bf16, i16, i32, i64, u8}, access::write, here);
  auto const [first, last] = a.range();
  raise_unless(cudaMemsetAsync(reinterpret_cast<void*>(first), 0, last - first, where.stream),
               "zeros");
}

/// The device that an address belongs to.
int device_of(std::uintptr_t address) {
  cudaPointerAttributes is{};
  raise_unless(cudaPointerGetAttributes(&is, reinterpret_cast<void const*>(address)),
               "the device of an array");
  return is.device;
}

int current_device() {
  int device = 0;
  raise_unless(cudaGetDevice(&device), "there is no CUDA device to work on");
  return device;
}

}  // namespace
}  // namespace bindings

NB_MODULE(_cuda, m) {
  nanobind::set_leak_warnings(false);
  nanobind::module_::import_("shunt._host");  // whose types it takes and gives
  nanobind::class_<bindings::cuda_policy>(m, "CudaPolicy")
      .def_ro("empty", &bindings::cuda_policy::empty)
      .def_ro("stream", &bindings::cuda_policy::stream);
  m.def("make_policy", &bindings::make_policy);
  bindings::def(m, "set_zero", &bindings::set_zero);
  m.def("device_of", &bindings::device_of);
  m.def("current_device", &bindings::current_device);

  bindings::bind_stages(m);
}
