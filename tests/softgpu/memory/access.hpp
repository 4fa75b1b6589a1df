#pragma once
// A warp's access to memory: which lanes, which addresses, how wide. Every instruction that touches
// memory fills one of these and asks for the lanes that may go ahead; the checks and the counters
// see it on the way.

#include <cstdint>

#include "machine/block.hpp"
#include "ptx/module.hpp"

namespace softgpu {

enum class access_kind : std::uint8_t { load, store, atomic };

struct access {
  access(warp& in, op const& of, ptx::space where, access_kind what, unsigned bytes_per_lane)
      : w(in), o(of), space(where), kind(what), bytes(bytes_per_lane), lanes(in.mask) {}
  warp& w;
  op const& o;
  ptx::space space;  // as the instruction says
  access_kind kind;
  unsigned bytes;           // per lane: the whole vector, a power of two
  lane_mask lanes;          // who asks
  bool strong = false;      // volatile, relaxed, acquire, release: may conflict without a race
  bool later = false;       // a store whose bytes come when it is waited for (cp.async)
  bool together = false;    // set by admit: lanes may share addresses of shared memory
  bool contiguous = false;  // set by admit: all 32 lanes, one after the other from host[0]
  // Lanes that do not ask have the address of one that does.
  alignas(64) std::uint64_t address[lanes_per_warp];  // in that space
  alignas(64) std::byte* host[lanes_per_warp];        // set by admit for the lanes it lets through
};

/// Resolves, checks and counts. Returns the lanes whose host pointers may be used; the others have
/// been reported. A load's byte that nobody wrote is reported and still read.
lane_mask admit(access& a);

}  // namespace softgpu
