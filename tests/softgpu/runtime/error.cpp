#include "runtime/error.hpp"

#include <atomic>
#include <cstdio>

namespace softgpu {
namespace {
thread_local cudaError_t last = cudaSuccess;
std::atomic<cudaError_t> device_error = cudaSuccess;
}  // namespace

cudaError_t record(cudaError_t e) {
  if (e != cudaSuccess) last = e;
  return e;
}

cudaError_t refuse(cudaError_t e, std::string const& sentence) {
  std::fprintf(stderr, "softgpu: %s\n", sentence.c_str());
  return record(e);
}

cudaError_t unsupported(std::string const& call, std::string const& what) {
  return refuse(cudaErrorNotSupported, call + (what.empty() ? "" : ": ") + what +
                                           " is not supported by the software device");
}

int absent(char const* call);  // of absent.cpp, which knows no cudaError_t
int absent(char const* call) { return unsupported(call); }

void poison(cudaError_t e) { device_error = e; }
cudaError_t sticky() { return device_error; }
void heal() {
  device_error = cudaSuccess;
  last = cudaSuccess;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGetLastError() {
  if (sticky() != cudaSuccess) return sticky();
  cudaError_t const e = last;
  last = cudaSuccess;
  return e;
}

cudaError_t cudaPeekAtLastError() { return sticky() != cudaSuccess ? sticky() : last; }

char const* cudaGetErrorName(cudaError_t e) {
  switch (e) {
#define SOFTGPU_ERROR(name, text) \
  case name: return #name;
#include "runtime/errors.inc"
#undef SOFTGPU_ERROR
    default: return "unrecognized error code";
  }
}

char const* cudaGetErrorString(cudaError_t e) {
  switch (e) {
#define SOFTGPU_ERROR(name, text) \
  case name: return text;
#include "runtime/errors.inc"
#undef SOFTGPU_ERROR
    default: return "unrecognized error code";
  }
}

}  // extern "C"
