// Races on shared memory (shared_shadow.hpp), and reads of bytes of it that nobody wrote. Two
// accesses by different warps race where one of them writes, they touch the same bytes, and no
// barrier lies between. Volatile and atomic accesses order the warps that make them and do not race
// with one another. So do accesses by different lanes of a warp with no bar.warp.sync between them:
// that lanes run together here is nothing to rely on. (Two lanes that write one word are left out:
// they often write the same.)
#include <bit>
#include <cstring>
#include <memory>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"
#include "checks/memory_checks.hpp"
#include "checks/shared_shadow.hpp"

namespace softgpu::checks {
namespace {

shared_shadow& of(block& b) { return *static_cast<shared_shadow*>(b.shared_shadow.get()); }

bool any_unwritten(std::uint8_t const* state, unsigned bytes) {
  std::uint64_t word = 0;
  switch (bytes) {
    case 1: return state[0] == 0;
    case 2: std::memcpy(&word, state, 2); return word != 0x0101u;
    case 4: std::memcpy(&word, state, 4); return word != 0x01010101u;
    default:
      for (unsigned i = 0; i < bytes; i += 8) {
        std::memcpy(&word, state + i, 8);
        if (word != 0x0101010101010101u) return true;
      }
      return false;
  }
}

/// Which lanes of a warp wait at a barrier.
lane_mask waiting_at(warp const& w, int barrier) {
  lane_mask out = 0;
  for (int i = 0; i < w.group_count; ++i) {
    group const& g = w.groups[std::size_t(i)];
    if (g.state == state::at_barrier && g.barrier == barrier) out |= g.lanes;
  }
  return out;
}

/// One lane's words; which of them races.
conflict touch_lane(shared_shadow& s, access const& a, int lane, bool reads, bool writes) {
  std::uint64_t const at = a.address[lane];
  if (!a.strong && a.bytes >= 4 && reads != writes &&
      s.touch_words(at / 4, a.bytes / 4, a.w.index, shared_shadow::words_of(lane), writes))
    return {};
  conflict worst;
  std::uint32_t const bytes = a.bytes >= 4 ? 15u : ((1u << a.bytes) - 1) << (at % 4);
  for (std::uint64_t word = at / 4; word * 4 < at + a.bytes; ++word)
    if (conflict const c = s.touch(word, a.w.index, lane, bytes, reads, writes, a.strong); c.what)
      worst = c;
  return worst;
}

}  // namespace

void begin_block(block& b) {
  auto const bytes = static_cast<std::size_t>(b.shared_bytes);
  std::memset(b.shared, 0xcd, bytes);
  if (!b.shared_shadow) b.shared_shadow = std::make_shared<shared_shadow>(bytes);
  of(b).begin(bytes, b.warps.size());
  of(b).local.begin();
}

void end_block(block&) {}

void at_barrier(block& b, warp& w, int barrier) {
  shared_shadow& s = of(b);
  auto const me = static_cast<std::size_t>(w.index);
  join(s.barriers[std::size_t(barrier)], s.seen[me]);
  s.tick(me);
}

void leave_barrier(block& b, int barrier, bool whole) {
  shared_shadow& s = of(b);
  stamps& gathered = s.barriers[std::size_t(barrier)];
  bool all = true;
  for (auto const& w : b.warps) {
    all &= (waiting_at(*w, barrier) | w->idle) == all_lanes;
    if (whole && w->idle == all_lanes) join(gathered, s.seen[std::size_t(w->index)]);
  }
  if (all) return s.all_met(b.warps.size());
  for (auto const& w : b.warps)
    if (waiting_at(*w, barrier) != 0) join(s.seen[std::size_t(w->index)], gathered);
}

void shared_touch(access& a, lane_mask good, bool row) {
  shared_shadow& s = of(*a.w.block);
  auto const me = static_cast<std::size_t>(a.w.index);
  bool const reads = a.kind != access_kind::store, writes = a.kind != access_kind::load;
  if (row && !a.strong && a.bytes >= 4 && reads != writes) {  // the common case
    std::uint64_t const span = std::uint64_t{a.bytes} * lanes_per_warp;
    std::uint8_t* const state = s.written.data() + a.address[0];
    bool const fine = writes || !any_unwritten(state, static_cast<unsigned>(span));
    stamp const* const lanes = shared_shadow::row_of(a.bytes / 4);
    if (fine && s.touch_words(a.address[0] / 4, span / 4, a.w.index, lanes, writes)) {
      if (writes) std::memset(state, a.later ? 0 : 1, span);
      return;
    }
  }
  if (a.strong) join(s.seen[me], s.strong);
  conflict worst;
  lane_mask racing = 0, unwritten = 0;
  for (lane_mask left = good; left != 0; left &= left - 1) {
    int const lane = std::countr_zero(left);
    std::uint8_t* const state = s.written.data() + a.address[lane];
    if (reads && any_unwritten(state, a.bytes)) unwritten |= lane_mask{1} << lane;
    if (writes || (unwritten >> lane & 1) != 0) std::memset(state, a.later ? 0 : 1, a.bytes);
    if (conflict const c = touch_lane(s, a, lane, reads, writes); c.what != nullptr)
      racing |= lane_mask{1} << lane, worst = c;
  }
  if (a.strong) {
    join(s.strong, s.seen[me]);
    s.tick(me);
  }
  if (unwritten != 0)
    raise_fault(a.w, a.o, unwritten, fault::uninitialized,
                "read of " + std::to_string(a.bytes) + " bytes of shared memory at " +
                    std::to_string(a.address[std::countr_zero(unwritten)]) + " that nobody wrote");
  if (racing == 0) return;
  std::string const whom =
      worst.lane < 0
          ? "warp " + std::to_string(worst.warp)
          : (worst.lane == several ? "several lanes" : "lane " + std::to_string(worst.lane)) +
                " of its warp";
  std::string const address = std::to_string(a.address[std::countr_zero(racing)]);
  raise_fault(a.w, a.o, racing, fault::shared_race,
              std::string(worst.what) + " what " + whom + " " + worst.before + ", with no " +
                  (worst.lane < 0 ? "barrier" : "__syncwarp") + " between: shared memory at " +
                  address);
}

void warp_synced(block& b, warp const& w) { of(b).tick(std::size_t(w.index)); }

void shared_arrive(block& b, std::ptrdiff_t offset, unsigned bytes) {
  std::memset(of(b).written.data() + offset, 1, bytes);
}

}  // namespace softgpu::checks
