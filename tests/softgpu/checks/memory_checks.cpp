#include "checks/memory_checks.hpp"

#include <bit>
#include <cstring>
#include <string>

#include "checks/faults.hpp"
#include "memory/arena.hpp"

namespace softgpu::checks {
namespace {

std::string hex(std::uint64_t n) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(n));
  return text;
}

char const* verb(access const& a) {
  return a.kind == access_kind::load ? "read" : a.kind == access_kind::store ? "write" : "atomic";
}

std::string what_of(access const& a, int lane) {
  return std::string(verb(a)) + " of " + std::to_string(a.bytes) + " bytes at " +
         hex(a.address[lane]);
}

/// Says where an address lies relative to the nearest allocation.
std::string neighbourhood(std::uint64_t address) {
  auto const n = arena::nearest(address);
  if (!n) return "there is no device allocation";
  std::string const whose = std::string("the ") + std::to_string(n->bytes) + " bytes of " +
                            n->what + " at " + hex(n->address);
  if (address < n->address) return std::to_string(n->address - address) + " bytes before " + whose;
  std::uint64_t const end = n->address + n->bytes;
  if (address >= end) return std::to_string(address - end) + " bytes past " + whose;
  return "inside " + whose;
}

constexpr std::uint64_t repeated(std::uint8_t byte) { return 0x0101010101010101u * byte; }

/// The least state of a range's bytes and whether all are equal to `written`.
bool all_written(std::uint8_t const* shadow, std::uint64_t bytes) {
  std::uint64_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, shadow + i, 8);
    if (word != repeated(map::written)) return false;
  }
  for (; i < bytes; ++i)
    if (shadow[i] != map::written) return false;
  return true;
}

bool all_mapped(std::uint8_t const* shadow, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i < bytes; ++i)
    if (shadow[i] < map::unwritten) return false;
  return true;
}

/// Reports a lane's fault; the lane does not go ahead.
void refuse(access& a, int lane, fault what, std::string const& sentence) {
  raise_fault(a.w, a.o, lane_mask{1} << lane, what, sentence);
}

bool global_lane(access& a, int lane) {
  std::uint64_t const at = a.address[lane];
  if ((at & (a.bytes - 1)) != 0) {
    refuse(a, lane, fault::misaligned, what_of(a, lane) + ", which is no multiple of the size");
    return false;
  }
  bool const inside = map::in_arena(at) && map::in_arena(at + a.bytes);
  if (inside && at < map::constant_end && a.kind != access_kind::load) {
    refuse(a, lane, fault::read_only, what_of(a, lane) + ", which is constant memory");
    return false;
  }
  std::uint8_t* const shadow = map::shadow_of(at);
  if (inside && all_written(shadow, a.bytes)) return true;
  if (!inside || !all_mapped(shadow, a.bytes)) {
    std::string const where = inside ? neighbourhood(at) : "no device memory";
    bool const freed = inside && std::memchr(shadow, map::freed, a.bytes) != nullptr;
    refuse(a, lane, freed ? fault::use_after_free : fault::out_of_bounds,
           what_of(a, lane) + (freed ? ", which has been freed" : ": " + where));
    return false;
  }
  if (a.kind == access_kind::store) {
    std::memset(shadow, map::written, a.bytes);
    return true;
  }
  raise_fault(a.w, a.o, lane_mask{1} << lane, fault::uninitialised,
              what_of(a, lane) + ", which nobody wrote: " + neighbourhood(at));
  if (a.kind == access_kind::atomic) std::memset(shadow, map::written, a.bytes);
  return true;
}

}  // namespace

bool global_span(access& a, std::uint64_t first, std::uint64_t span) {
  std::uint8_t* const shadow = map::shadow_of(first);
  if (all_written(shadow, span)) return true;
  if (a.kind != access_kind::store || !all_mapped(shadow, span)) return false;
  std::memset(shadow, map::written, span);
  return true;
}

lane_mask global_lanes(access& a) {
  lane_mask good = 0;
  for (int i = 0; i < lanes_per_warp; ++i)
    if ((a.lanes >> i & 1) != 0 && global_lane(a, i)) good |= lane_mask{1} << i;
  return good;
}

lane_mask shared_lanes(access& a) {
  lane_mask good = 0;
  auto const end = static_cast<std::uint64_t>(a.w.block->shared_bytes);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((a.lanes >> i & 1) == 0) continue;
    std::uint64_t const at = a.address[i];
    if ((at & (a.bytes - 1)) != 0)
      refuse(a, i, fault::misaligned,
             what_of(a, i) + " of shared memory, which is no multiple of the size");
    else if (at < static_cast<std::uint64_t>(map::first_shared) || at + a.bytes > end || at > end)
      refuse(a, i, fault::out_of_bounds,
             what_of(a, i) + " of shared memory: the block's ends at " + hex(end));
    else
      good |= lane_mask{1} << i;
  }
  return good;
}

lane_mask local_lanes(access& a) {
  lane_mask good = 0;
  auto const end = static_cast<std::uint64_t>(a.w.local_stride);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((a.lanes >> i & 1) == 0) continue;
    std::uint64_t const at = a.address[i];
    if ((at & (a.bytes - 1)) != 0)
      refuse(a, i, fault::misaligned,
             what_of(a, i) + " of local memory, which is no multiple of the size");
    else if (at + a.bytes > end || at > end)
      refuse(a, i, fault::out_of_bounds,
             what_of(a, i) + " of local memory: the thread's ends at " + hex(end));
    else
      good |= lane_mask{1} << i;
  }
  return good;
}

}  // namespace softgpu::checks
