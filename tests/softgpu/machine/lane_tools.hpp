#pragma once
// Small loops over 32 lanes that memory instructions share, in the best instruction set at hand.

#include <cstddef>
#include <cstdint>

#include "machine/op.hpp"

namespace softgpu {

struct address_summary {
  std::uint64_t any = 0, low = 0, high = 0;  // all bits or-ed, least, greatest
  bool consecutive = false;                  // lane i is at low + i · bytes
};

struct lane_tools {
  /// base + offset for the lanes that ask; the others get a copy of one of those.
  void (*add_wide)(std::uint64_t* to, std::uint64_t const* base, std::uint64_t offset, lane_mask m);
  void (*add_narrow)(std::uint64_t* to, std::uint32_t const* base, std::uint32_t offset,
                     lane_mask m);
  address_summary (*summarize)(std::uint64_t const* address, unsigned bytes);
  void (*offset)(std::byte** to, std::uint64_t const* address, std::uint64_t by);
  void (*gather32)(std::uint32_t* row, std::byte* const* from, lane_mask m);
  void (*gather64)(std::uint64_t* row, std::byte* const* from, lane_mask m);
  void (*scatter32)(std::byte* const* to, std::uint32_t const* row, lane_mask m);
};

extern lane_tools const loops;

}  // namespace softgpu
