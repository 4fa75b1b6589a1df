#pragma once
/// What the device call that runs on this thread was told: where arrays must lie, and how new ones
/// are made. Known here without CUDA's headers.
#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

namespace bindings {

/// Puts addresses into a device's memory, in the order of the call's stream; `from` may go at once.
using write_pointers = void (*)(void** to, void* const* from, std::size_t count);

struct device_call {
  int device = -1;             ///< where arrays must lie; -1: no call is going on
  std::uintptr_t stream = 0;   ///< as the runtime counts them; 0: the legacy default stream
  nanobind::handle empty{};    ///< makes arrays (shape, type name); null: the like array's library
  nanobind::handle scratch{};  ///< the caller's bytes; null: an array is made for each call
  std::size_t taken = 0;       ///< of the scratch, for addresses
  write_pointers pointers = nullptr;
};

/// Of this thread, in this module.
[[nodiscard]] device_call& called() noexcept;

/// Bytes of a device's memory, copied when all that was enqueued there has run.
using fetch_bytes = void (*)(void* to, void const* from, std::size_t bytes, int device);

}  // namespace bindings
