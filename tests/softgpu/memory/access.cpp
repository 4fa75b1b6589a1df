#include "memory/access.hpp"

#include <bit>
#include <cstring>

#include "checks/memory_checks.hpp"
#include "memory/map.hpp"

namespace softgpu {
namespace {

/// The space an address of the generic space lies in.
ptx::space space_of(std::uint64_t address) {
  if (address - map::shared_window < map::window_bytes) return ptx::space::shared;
  if (address - map::local_window < map::window_bytes) return ptx::space::local;
  return ptx::space::global;
}

lane_mask admit_global(access& a) {
  // The common case: 32 neighbours, one allocation, all of it written.
  std::uint64_t const first = a.address[0], span = std::uint64_t{a.bytes} * lanes_per_warp;
  if (a.lanes == all_lanes && map::in_arena(first) && map::in_arena(first + span) &&
      first % a.bytes == 0) {
    std::uint64_t differs = 0;
    for (int i = 0; i < lanes_per_warp; ++i)
      differs |= a.address[i] ^ (first + static_cast<std::uint64_t>(i) * a.bytes);
    if (differs == 0 && checks::global_span(a, first, span)) {
      a.contiguous = true;
      for (int i = 0; i < lanes_per_warp; ++i)
        a.host[i] = map::host(first + static_cast<std::uint64_t>(i) * a.bytes);
      return all_lanes;
    }
  }
  lane_mask good = checks::global_lanes(a);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (good >> i & 1) a.host[i] = map::host(a.address[i]);
  return good;
}

lane_mask admit_shared(access& a) {
  lane_mask const good = checks::shared_lanes(a);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (good >> i & 1) a.host[i] = a.w.block->shared + a.address[i];
  return good;
}

lane_mask admit_local(access& a) {
  lane_mask const good = checks::local_lanes(a);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (good >> i & 1) a.host[i] = a.w.local + i * a.w.local_stride + a.address[i];
  return good;
}

lane_mask admit_in(access& a, ptx::space where) {
  switch (where) {
    case ptx::space::shared: return admit_shared(a);
    case ptx::space::local: return admit_local(a);
    default: return admit_global(a);
  }
}

}  // namespace

lane_mask admit(access& a) {
  if (a.space != ptx::space::generic) return admit_in(a, a.space);
  int const lead = std::countr_zero(a.lanes);
  lane_mask const all = a.lanes;
  lane_mask by_space[3] = {};  // global, shared, local
  for (int i = lead; i < lanes_per_warp; ++i) {
    if ((all >> i & 1) == 0) continue;
    ptx::space const s = space_of(a.address[i]);
    by_space[s == ptx::space::shared ? 1 : s == ptx::space::local ? 2 : 0] |= lane_mask{1} << i;
  }
  lane_mask good = 0;
  constexpr ptx::space spaces[] = {ptx::space::global, ptx::space::shared, ptx::space::local};
  constexpr std::uint64_t bases[] = {0, map::shared_window, map::local_window};
  for (int s = 0; s < 3; ++s) {
    if (by_space[s] == 0) continue;
    if (s > 0)
      for (int i = 0; i < lanes_per_warp; ++i)
        if (by_space[s] >> i & 1) a.address[i] -= bases[s];
    a.lanes = by_space[s];
    good |= admit_in(a, spaces[s]);
  }
  a.lanes = all;
  return good;
}

}  // namespace softgpu
