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
std::string neighborhood(std::uint64_t address) {
  auto const n = arena::nearest(address);
  if (!n) return "there is no device allocation";
  std::string const whose = std::string("the ") + std::to_string(n->bytes) + " bytes of " +
                            n->what + " at " + hex(n->address);
  if (address < n->address) return std::to_string(n->address - address) + " bytes before " + whose;
  std::uint64_t const end = n->address + n->bytes;
  if (address >= end) return std::to_string(address - end) + " bytes past " + whose;
  return "inside " + whose;
}

/// The states of a range's bytes, and-ed in groups of eight: a state's bits say which bytes may be
/// touched (bit 1) and which of those have been written (bit 0 too).
std::uint64_t states(std::uint8_t const* shadow, std::uint64_t bytes) {
  static_assert(map::written == 3 && map::unwritten == 2 && map::freed == 1);
  std::uint64_t all = ~std::uint64_t{0};
  if (bytes < 8) {
    std::uint64_t some = 0;
    std::memcpy(&some, shadow, bytes);
    return some | all << (8 * bytes);
  }
  for (std::uint64_t i = 0; i < bytes; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, shadow + i, 8);
    all &= word;
  }
  return all;
}

/// The same of at least 32 bytes, a multiple of that.
std::uint64_t states_of_span(std::uint8_t const* shadow, std::uint64_t bytes) {
  using chunk = std::uint64_t __attribute__((vector_size(16), aligned(1), may_alias));
  auto const* const at = reinterpret_cast<chunk const*>(shadow);
  chunk a = at[0], b = at[1];
  for (std::uint64_t i = 2; i < bytes / 16; i += 2) a &= at[i], b &= at[i + 1];
  a &= b;
  return a[0] & a[1];
}

bool all_are(std::uint64_t states_of_range, std::uint8_t at_least) {
  std::uint64_t const wanted = 0x0101010101010101u * at_least;
  return (states_of_range & wanted) == wanted;
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
  std::uint64_t const now = inside ? states(shadow, a.bytes) : 0;
  if (all_are(now, map::written)) return true;
  if (!all_are(now, map::unwritten)) {
    std::string const where = inside ? neighborhood(at) : "no device memory";
    bool const freed = inside && std::memchr(shadow, map::freed, a.bytes) != nullptr;
    refuse(a, lane, freed ? fault::use_after_free : fault::out_of_bounds,
           what_of(a, lane) + (freed ? ", which has been freed" : ": " + where));
    return false;
  }
  if (a.kind == access_kind::store) {
    std::memset(shadow, map::written, a.bytes);
    return true;
  }
  raise_fault(a.w, a.o, lane_mask{1} << lane, fault::uninitialized,
              what_of(a, lane) + ", which nobody wrote: " + neighborhood(at));
  if (a.kind == access_kind::atomic) std::memset(shadow, map::written, a.bytes);
  return true;
}

}  // namespace

bool global_span(access& a, std::uint64_t first, std::uint64_t span) {
  std::uint8_t* const shadow = map::shadow_of(first);
  std::uint64_t const now = states_of_span(shadow, span);
  if (all_are(now, map::written)) return true;
  if (a.kind != access_kind::store || !all_are(now, map::unwritten)) return false;
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
