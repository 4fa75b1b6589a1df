#include "runtime/registry.hpp"

#include <cstring>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include <cuda_runtime_api.h>

#include "checks/exit.hpp"
#include "runtime/stream.hpp"

namespace softgpu::registry {
namespace {

struct binary {
  void const* container = nullptr;
  std::unique_ptr<program> loaded;  // at first use
  program& get() {
    if (!loaded) loaded = std::make_unique<program>(ptx_of(container));
    return *loaded;
  }
};
struct entry {
  binary* owner;
  std::string name;
};
struct shadow {
  binary* owner;
  std::string name;
  std::uint64_t bytes;
  bool constant;
  void** managed;  // the host's pointer to a managed variable
};

struct tables {
  std::mutex mutex;
  std::vector<std::unique_ptr<binary>> binaries;
  std::unordered_map<void const*, entry> kernels;
  std::unordered_map<void const*, shadow> variables;
};
tables& all() {
  static tables* const t = new tables;
  return *t;
}

struct wrapper {
  std::uint32_t magic, version;
  void const* data;
  void const* file;
};

template <class T> T read(unsigned char const* from) {
  T v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

}  // namespace

std::string ptx_of(void const* container) {
  auto const* const base = static_cast<unsigned char const*>(container);
  if (read<std::uint32_t>(base) != 0xba55ed50) throw std::runtime_error("not a fat binary");
  auto const header = read<std::uint16_t>(base + 6);
  auto const size = read<std::uint64_t>(base + 8);
  for (std::uint64_t at = header; at < header + size;) {
    unsigned char const* const e = base + at;
    auto const kind = read<std::uint16_t>(e);
    auto const entry_header = read<std::uint32_t>(e + 4);
    auto const bytes = read<std::uint64_t>(e + 8);
    auto const compressed = read<std::uint32_t>(e + 16);
    if (kind == 1) {
      if (compressed != 0)
        throw std::runtime_error("its PTX is compressed: compile with --no-compress");
      std::string text(reinterpret_cast<char const*>(e + entry_header), bytes);
      while (!text.empty() && text.back() == '\0') text.pop_back();
      return text;
    }
    at += entry_header + bytes;
  }
  throw std::runtime_error(
      "a fat binary without PTX: compile with -gencode arch=compute_80,code=compute_80");
}

kernel const* find_kernel(void const* host_function) {
  tables& t = all();
  std::lock_guard const lock(t.mutex);
  auto const found = t.kernels.find(host_function);
  if (found == t.kernels.end()) return nullptr;
  return found->second.owner->get().find_kernel(found->second.name);
}

device_variable find_variable(void const* host_shadow) {
  tables& t = all();
  std::lock_guard const lock(t.mutex);
  auto const found = t.variables.find(host_shadow);
  if (found == t.variables.end()) return {};
  shadow const& s = found->second;
  return {s.owner->get().variable(s.name), s.bytes, s.constant};
}

}  // namespace softgpu::registry

using namespace softgpu::registry;

extern "C" {

void** __cudaRegisterFatBinary(void* fat) {
  softgpu::watch_exit();  // first of all, so that it runs last
  softgpu::watch_streams();
  auto const* const w = static_cast<wrapper const*>(fat);
  auto b = std::make_unique<binary>();
  b->container = w->magic == 0x466243b1 ? w->data : fat;
  std::lock_guard const lock(all().mutex);
  all().binaries.push_back(std::move(b));
  return reinterpret_cast<void**>(all().binaries.back().get());
}

void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

// The host's pointers to managed variables are set before any of its code uses one.
char __cudaInitModule(void** handle) {
  std::lock_guard const lock(all().mutex);
  for (auto& [host, v] : all().variables)
    if (v.managed != nullptr && v.owner == reinterpret_cast<binary*>(handle))
      *v.managed = reinterpret_cast<void*>(v.owner->get().variable(v.name));
  return 1;
}

void __cudaRegisterFunction(void** handle, char const* host, char*, char const* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  std::lock_guard const lock(all().mutex);
  all().kernels[host] = {reinterpret_cast<binary*>(handle), name};
}

void __cudaRegisterVar(void** handle, char* host, char*, char const* name, int, size_t size,
                       int constant, int) {
  std::lock_guard const lock(all().mutex);
  all().variables[host] = {reinterpret_cast<binary*>(handle), name, size, constant != 0, nullptr};
}

void __cudaRegisterManagedVar(void** handle, void** host, char*, char const* name, int, size_t size,
                              int constant, int) {
  std::lock_guard const lock(all().mutex);
  all().variables[host] = {reinterpret_cast<binary*>(handle), name, size, constant != 0, host};
}

}  // extern "C"
