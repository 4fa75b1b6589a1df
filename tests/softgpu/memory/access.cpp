#include "memory/access.hpp"

#include <algorithm>
#include <bit>

#include "checks/memory_checks.hpp"
#include "machine/lane_tools.hpp"
#include "memory/map.hpp"

namespace softgpu {
namespace {

/// The space an address of the generic space lies in.
ptx::space space_of(std::uint64_t address) {
  if (address - map::shared_window < map::window_bytes) return ptx::space::shared;
  if (address - map::local_window < map::window_bytes) return ptx::space::local;
  return ptx::space::global;
}

void count_span(access& a, std::uint64_t low, std::uint64_t span) {
  int const kind = static_cast<int>(a.kind);
  traffic& counts = a.w.block->counts;
  counts.count_span(kind, low, a.bytes);
  if (touched_bytes* const t = a.w.block->launch->touched.get(); t != nullptr)
    counts.global[kind].fresh += t->mark(kind != 0, low, span);
}

void count_lanes(access& a, lane_mask good) {
  a.w.block->counts.count_lanes(static_cast<int>(a.kind), a.address, a.bytes, good,
                                a.w.block->launch->touched.get());
}

lane_mask admit_global(access& a) {
  // The common case: 32 neighbors, one allocation, all of it written.
  address_summary const s = loops.summarize(a.address, a.bytes);
  std::uint64_t const span = std::uint64_t{a.bytes} * lanes_per_warp;
  lane_mask good = all_lanes;
  // Constants and parameters, which a device reads through a cache of their own.
  bool const constant = s.low < map::constant_end;
  bool const may_be_written = a.kind == access_kind::load || !constant;
  if (s.consecutive && may_be_written && a.lanes == all_lanes && (s.any & (a.bytes - 1)) == 0 &&
      map::in_arena(s.low) && map::in_arena(s.low + span) && checks::global_span(a, s.low, span)) {
    a.contiguous = true;
    if (!constant) count_span(a, s.low, span);
  } else {
    good = checks::global_lanes(a);
    if (good != 0 && !constant) count_lanes(a, good);
  }
  loops.offset(a.host, a.address, map::view - map::arena);
  return good;
}

lane_mask admit_shared(access& a) {
  address_summary const s = loops.summarize(a.address, a.bytes);
  bool const inside = (s.any & (a.bytes - 1)) == 0 &&
                      s.low >= static_cast<std::uint64_t>(map::first_shared) &&
                      s.high + a.bytes <= static_cast<std::uint64_t>(a.w.block->shared_bytes);
  lane_mask const good = inside ? a.lanes : checks::shared_lanes(a);
  bool const row = inside && s.consecutive && a.lanes == all_lanes;
  if (good != 0) {
    checks::shared_touch(a, good, row);
    a.together = a.w.block->counts.count_shared(a.address, a.bytes, good,
                                                a.kind == access_kind::atomic, row);
  }
  loops.offset(a.host, a.address, reinterpret_cast<std::uint64_t>(a.w.block->shared));
  a.contiguous = row;
  return good;
}

lane_mask admit_local(access& a) {
  lane_mask const good = checks::local_lanes(a);
  if (good != 0) checks::local_touch(a, good);
  a.w.block->counts.local_bytes += static_cast<unsigned>(std::popcount(good)) * a.bytes;
  for (int i = 0; i < lanes_per_warp; ++i)
    a.host[i] = a.w.local + i * a.w.local_stride + a.address[i];
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
  lane_mask const all = a.lanes;
  lane_mask by_space[3] = {};  // global, shared, local
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((all >> i & 1) == 0) continue;
    ptx::space const s = space_of(a.address[i]);
    by_space[s == ptx::space::shared ? 1 : s == ptx::space::local ? 2 : 0] |= lane_mask{1} << i;
  }
  constexpr ptx::space spaces[] = {ptx::space::global, ptx::space::shared, ptx::space::local};
  constexpr std::uint64_t bases[] = {0, map::shared_window, map::local_window};
  for (int s = 0; s < 3; ++s)
    if (by_space[s] == all) {
      for (int i = 0; i < lanes_per_warp; ++i) a.address[i] -= bases[s];
      return admit_in(a, spaces[s]);
    }
  lane_mask good = 0;  // lanes in different spaces: one space after the other
  std::uint64_t const* const asked = a.address;
  std::uint64_t kept[lanes_per_warp];
  std::byte* hosts[lanes_per_warp] = {};
  std::copy(asked, asked + lanes_per_warp, kept);
  for (int s = 0; s < 3; ++s) {
    if (by_space[s] == 0) continue;
    int const lead = std::countr_zero(by_space[s]);
    for (int i = 0; i < lanes_per_warp; ++i)
      a.address[i] = ((by_space[s] >> i & 1) != 0 ? kept[i] : kept[lead]) - bases[s];
    a.lanes = by_space[s];
    good |= admit_in(a, spaces[s]);
    for (int i = 0; i < lanes_per_warp; ++i)
      if (by_space[s] >> i & 1) hosts[i] = a.host[i];
  }
  int const lead = std::countr_zero(all);
  for (int i = 0; i < lanes_per_warp; ++i) a.host[i] = hosts[all >> i & 1 ? i : lead];
  a.lanes = all;
  a.contiguous = false;
  return good;
}

}  // namespace softgpu
