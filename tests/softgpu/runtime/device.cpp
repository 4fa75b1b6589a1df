// The one device, its limits and settings.
#include <cuda_runtime_api.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "runtime/error.hpp"
#include "runtime/launch.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

struct device_settings {
  std::mutex mutex;
  std::array<std::size_t, 7> limits{1024, 1 << 20, 8 << 20, 2, 2048, 64, 0};  // by cudaLimit
  cudaFuncCache cache = cudaFuncCachePreferNone;
  unsigned flags = cudaDeviceScheduleAuto;
};
device_settings& the_settings() {
  static auto* const s = new device_settings;
  return *s;
}

constexpr char bus_id[] = "0000:00:00.0";

cudaError_t no_driver(char const* name, void** out, cudaDriverEntryPointQueryResult* result) {
  if (out != nullptr) *out = nullptr;
  if (result != nullptr) *result = cudaDriverEntryPointSymbolNotFound;
  return unsupported("cudaGetDriverEntryPoint",
                     "the driver's " + std::string(name == nullptr ? "?" : name));
}

/// As on a GPU: a program that is to see no device is started with CUDA_VISIBLE_DEVICES empty.
bool hidden() {
  static char const* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible != nullptr && *visible == '\0';
}

cudaError_t only(int device) {
  if (hidden()) return record(cudaErrorNoDevice);
  return device == 0 ? cudaSuccess : record(cudaErrorInvalidDevice);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGetDevice(int* device) { return *device = 0, only(0); }
cudaError_t cudaGetDeviceCount(int* count) { return *count = hidden() ? 0 : 1, only(0); }
cudaError_t cudaSetDevice(int device) { return only(device); }
cudaError_t cudaChooseDevice(int* device, cudaDeviceProp const*) {
  return *device = 0, cudaSuccess;
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) { return only(device); }

cudaError_t cudaSetDeviceFlags(unsigned flags) {
  std::lock_guard const lock(the_settings().mutex);
  the_settings().flags = flags;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  std::lock_guard const lock(the_settings().mutex);
  *flags = the_settings().flags;
  return cudaSuccess;
}

// The machine sizes stacks by the kernel and takes what the heap and printf need: the values are
// kept for the program to read.
cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  if (static_cast<std::size_t>(limit) >= the_settings().limits.size())
    return record(cudaErrorUnsupportedLimit);
  std::lock_guard const lock(the_settings().mutex);
  the_settings().limits[limit] = value;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  if (static_cast<std::size_t>(limit) >= the_settings().limits.size())
    return record(cudaErrorUnsupportedLimit);
  std::lock_guard const lock(the_settings().mutex);
  *value = the_settings().limits[limit];
  return cudaSuccess;
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache c) {
  std::lock_guard const lock(the_settings().mutex);
  the_settings().cache = c;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* c) {
  std::lock_guard const lock(the_settings().mutex);
  *c = the_settings().cache;
  return cudaSuccess;
}
cudaError_t cudaFuncSetCacheConfig(void const* f, cudaFuncCache) {
  kernel const* k = nullptr;
  return by_host_function(f, k);
}

cudaError_t cudaDeviceGetPCIBusId(char* out, int length, int device) {
  if (cudaError_t const e = only(device); e != cudaSuccess) return e;
  if (out == nullptr || length < static_cast<int>(sizeof bus_id))
    return record(cudaErrorInvalidValue);
  std::memcpy(out, bus_id, sizeof bus_id);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetByPCIBusId(int* device, char const* id) {
  if (device == nullptr || id == nullptr) return record(cudaErrorInvalidValue);
  if (std::strcmp(id, bus_id) != 0) return record(cudaErrorInvalidDevice);
  return *device = 0, cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (device != 0 || peer != 0) return record(cudaErrorInvalidDevice);
  return *can = 0, cudaSuccess;  // a device is no peer of itself
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return record(cudaErrorInvalidDevice); }
cudaError_t cudaDeviceDisablePeerAccess(int) { return record(cudaErrorInvalidDevice); }
cudaError_t cudaDeviceGetP2PAttribute(int*, cudaDeviceP2PAttr, int, int) {
  return record(cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

cudaError_t cudaGetDriverEntryPoint(char const* name, void** out, unsigned long long,
                                    cudaDriverEntryPointQueryResult* result) {
  return no_driver(name, out, result);
}
cudaError_t cudaGetDriverEntryPoint_ptsz(char const* name, void** out, unsigned long long,
                                         cudaDriverEntryPointQueryResult* result) {
  return no_driver(name, out, result);
}
cudaError_t cudaGetDriverEntryPointByVersion(char const* name, void** out, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  return no_driver(name, out, result);
}
cudaError_t cudaGetDriverEntryPointByVersion_ptsz(char const* name, void** out, unsigned,
                                                  unsigned long long,
                                                  cudaDriverEntryPointQueryResult* result) {
  return no_driver(name, out, result);
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
cudaError_t cudaCtxResetPersistingL2Cache() { return cudaSuccess; }

}  // extern "C"
