#pragma once
// The allocator of device memory.

#include <cstdint>
#include <optional>
#include <vector>

#include "memory/map.hpp"

namespace softgpu {

struct allocation {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  bool host_visible = false;    // managed or pinned: the host may use it
  bool internal = false;        // ours (variables, parameters): no leak
  bool constant = false;        // kernels may not write it
  bool managed = false;         // host_visible, and the device's as much as the host's
  bool stream_ordered = false;  // cudaMallocAsync: frees wait for nothing
  bool closed = false;          // reserved: nobody may touch it until it is opened
  bool retired = false;         // a free of it is on its way, or it has not been given out
  bool in_graph = false;        // of an allocation in a graph: a free closes it for the next launch
  char const* what = "";        // "cudaMalloc", …
};

namespace arena {

/// Memory with guard bytes on both sides; 0 where there is none left. Aligned to 256 bytes.
std::uint64_t allocate(std::uint64_t bytes, allocation kind);
/// What was reserved with `closed` may be touched from now on.
void open(std::uint64_t address);
/// The one free of an allocation is on its way. False where there is none to free.
bool retire(std::uint64_t address);
/// Memory of a graph is given out by a launch. False where it still is from the one before.
bool revive(std::uint64_t address);
/// The graph it belonged to is gone: its memory is released once nobody has it.
void disown(std::uint64_t address);
/// False where the address is not the start of a live allocation. The bytes stay poisoned: the
/// range is not handed out again until the arena has been used up once.
bool release(std::uint64_t address);
/// The live allocation that holds, or lies nearest to, an address.
std::optional<allocation> find(std::uint64_t address);
std::optional<allocation> nearest(std::uint64_t address);
std::vector<allocation> live();
std::uint64_t bytes_in_use();
inline constexpr std::uint64_t capacity = std::uint64_t{16}
                                          << 30;  // what the device claims to have

/// Host-side copies: to and from device memory with the shadow kept.
void mark_written(std::uint64_t address, std::uint64_t bytes);
/// True where every byte of the range may be touched (it may be unwritten).
bool is_open(std::uint64_t address, std::uint64_t bytes);
/// True where [address, address + bytes) lies in one live allocation.
bool covers(std::uint64_t address, std::uint64_t bytes);

}  // namespace arena
}  // namespace softgpu
