#pragma once
// What warps ask of memory: counted per block as accesses go by, added up at the block's end.

#include <cstdint>

#include "counters/touched.hpp"

namespace softgpu {

inline constexpr std::uint64_t sector_bytes = 32;

struct traffic {
  /// Accesses of one kind (load, store, atomic: as access_kind) to global memory.
  struct direction {
    std::uint64_t accesses = 0;  // of warps
    std::uint64_t bytes = 0;     // asked for, lane by lane
    std::uint64_t sectors = 0;   // touched, warp by warp
    std::uint64_t least = 0;     // sectors that the warp's distinct bytes would fill
    std::uint64_t fresh = 0;     // bytes that this launch had not touched so (touched_bytes)
  };
  direction global[3];
  std::uint64_t shared_accesses = 0;    // of warps
  std::uint64_t shared_wavefronts = 0;  // passes over the banks
  std::uint64_t shared_least = 0;       // passes without a conflict
  std::uint64_t local_bytes = 0;

  void add(traffic const& other);

  /// All lanes of a warp, one after the other from `low`.
  void count_span(int kind, std::uint64_t low, unsigned bytes) {
    direction& d = global[kind];
    std::uint64_t const last = low + std::uint64_t{bytes} * 32 - 1;
    ++d.accesses;
    d.bytes += std::uint64_t{bytes} * 32;
    d.sectors += last / sector_bytes - low / sector_bytes + 1;
    d.least += bytes;
  }
  /// The lanes of `lanes`, each at a multiple of `bytes`.
  void count_lanes(int kind, std::uint64_t const* address, unsigned bytes, std::uint32_t lanes,
                   touched_bytes* touched);
  /// Shared memory: `consecutive` where all 32 lanes lie one after the other. True where lanes
  /// of one pass share a piece of it.
  bool count_shared(std::uint64_t const* address, unsigned bytes, std::uint32_t lanes, bool atomic,
                    bool consecutive);
};

}  // namespace softgpu
