#pragma once
// What a stream or a node of a graph does: one action, with everything it needs but the memory it
// reads and writes.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "runtime/launch.hpp"

namespace softgpu {

struct kernel_action {
  launch_request request;
  std::vector<std::byte> parameters;
};

/// A box of bytes in rows; device memory by its device addresses.
struct plane {
  std::uint64_t address = 0;
  std::size_t pitch = 0, slice = 0;  // bytes from a row to the next, and from a layer
};
struct box {
  std::size_t width = 0, height = 1, depth = 1;
  [[nodiscard]] bool empty() const { return width == 0 || height == 0 || depth == 0; }
  /// Bytes from a plane's first to its last.
  [[nodiscard]] std::size_t span(plane const& p) const {
    return (depth - 1) * p.slice + (height - 1) * p.pitch + width;
  }
};

struct copy_action {
  plane to, from;
  box size;
  char const* call = "";
  std::vector<std::byte> staged;  // the source's span, taken when the call was made
};

struct fill_action {
  plane to;
  box size;                 // in bytes
  std::uint32_t value = 0;  // its low bytes are repeated
  int element = 1;          // bytes: 1, 2 or 4
  char const* call = "";
};

struct host_action {
  cudaHostFn_t function = nullptr;
  void* data = nullptr;
};
struct callback_action {
  cudaStreamCallback_t function = nullptr;
  cudaStream_t stream = nullptr;
  void* data = nullptr;
};

/// The address of memory that a graph allocates, while the graph or a copy of it is there.
struct reservation {
  std::uint64_t address = 0;
  explicit reservation(std::uint64_t at) : address(at) {}
  reservation(reservation const&) = delete;
  ~reservation();
};

/// Stream-ordered memory: from here on it may be touched, or no longer.
struct open_action {
  std::uint64_t address = 0;
  std::shared_ptr<reservation const> of_graph = nullptr;
};
struct free_action {
  std::uint64_t address = 0;
  std::shared_ptr<reservation const> of_graph = nullptr;
};
struct empty_action {};

/// A graph inside a graph: a launch puts works of its nodes in its place.
struct instance;
struct child_action {
  std::shared_ptr<std::vector<instance> const> nodes;
};

using action = std::variant<empty_action, kernel_action, copy_action, fill_action, host_action,
                            callback_action, open_action, free_action, child_action>;

/// Does it, now. After a fault only what keeps the books still happens.
void perform(action const& what);

/// Whether this host thread is inside a host function, where CUDA calls are not allowed.
bool in_host_function();
/// The process is ending: what host functions refer to may be gone, so they are left out.
void skip_host_functions();

/// How a call's memory is known to the device.
enum class memory_kind { pageable, pinned, managed, device };
memory_kind kind_of(std::uint64_t address);

}  // namespace softgpu
