// Races on shared memory, by happens-before: every warp has a vector clock, barriers join them, and
// each word remembers its last write and its last read. Two accesses by different warps race where
// one of them writes, they touch the same bytes, and the later warp's clock does not cover the
// earlier access. Volatile and atomic accesses order the warps that make them and do not race with
// one another. A warp's own lanes are not checked against each other.
//
// Also here: reads of bytes of shared memory that nobody wrote.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <vector>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"
#include "checks/memory_checks.hpp"

namespace softgpu::checks {
namespace {

constexpr int most_warps = 32;
using clocks = std::array<std::uint32_t, most_warps>;

void join(clocks& into, clocks const& from) {
  for (int i = 0; i < most_warps; ++i)
    into[std::size_t(i)] = std::max(into[std::size_t(i)], from[std::size_t(i)]);
}

/// A word's last write and last read: whose, when, which bytes; bit 7: it was a strong access.
struct word_state {
  std::uint32_t write_clock = 0, read_clock = 0;
  std::uint8_t write_warp = 0, write_bytes = 0, read_warp = 0, read_bytes = 0;
};

struct shadow {
  std::vector<word_state> words;
  std::vector<std::uint8_t> written;
  std::array<clocks, most_warps> seen{};
  std::array<clocks, 17> barriers{};
  clocks strong{};
  std::uint32_t latest = 0;
};

shadow& of(block& b) { return *static_cast<shadow*>(b.shared_shadow.get()); }

void tick(shadow& s, std::size_t warp) { s.latest = std::max(s.latest, ++s.seen[warp][warp]); }

struct conflict {
  char const* what = nullptr;
  int other = 0;
};

/// Looks at one word for one lane and notes the access there.
conflict touch_word(word_state& g, clocks const& seen, std::uint8_t warp, std::uint8_t bytes,
                    bool reads, bool writes, bool strong) {
  conflict found;
  auto const unordered = [&](std::uint8_t whose, std::uint8_t which, std::uint32_t when) {
    return (which & bytes) != 0 && whose != warp && when > seen[whose] &&
           !(strong && (which & 0x80) != 0);
  };
  if (unordered(g.write_warp, g.write_bytes, g.write_clock))
    found = {writes ? "writes what another wrote" : "reads what another wrote", g.write_warp};
  else if (writes && unordered(g.read_warp, g.read_bytes, g.read_clock))
    found = {"writes what another read", g.read_warp};
  std::uint8_t const mark = static_cast<std::uint8_t>(bytes | (strong ? 0x80 : 0));
  if (writes) {
    bool const again = g.write_warp == warp && g.write_clock == seen[warp];
    g.write_bytes = again ? static_cast<std::uint8_t>(g.write_bytes | mark) : mark;
    g.write_warp = warp;
    g.write_clock = seen[warp];
  }
  if (reads && !(writes && strong)) {
    bool const again = g.read_warp == warp && g.read_clock == seen[warp];
    g.read_bytes = again ? static_cast<std::uint8_t>(g.read_bytes | mark) : mark;
    g.read_warp = warp;
    g.read_clock = seen[warp];
  }
  return found;
}

bool any_unwritten(std::uint8_t const* state, unsigned bytes) {
  std::uint64_t whole = ~std::uint64_t{0};
  switch (bytes) {
    case 1: return state[0] == 0;
    case 4: {
      std::uint32_t v;
      std::memcpy(&v, state, 4);
      return v != 0x01010101u;
    }
    case 8: std::memcpy(&whole, state, 8); return whole != 0x0101010101010101u;
    default:
      for (unsigned i = 0; i < bytes; ++i)
        if (state[i] == 0) return true;
      return false;
  }
}

}  // namespace

void begin_block(block& b) {
  std::memset(b.shared, 0xcd, static_cast<std::size_t>(b.shared_bytes));
  auto const bytes = static_cast<std::size_t>(b.shared_bytes);
  if (!b.shared_shadow) {
    b.shared_shadow = std::make_shared<shadow>();
    of(b).words.resize(bytes / 4 + 16);
  }
  shadow& s = of(b);
  s.written.assign(bytes + 64, 0);
  // What earlier blocks did in this memory lies before everything that comes.
  std::uint32_t const now = s.latest;
  for (clocks& c : s.seen) c.fill(now);
  for (clocks& c : s.barriers) c.fill(now);
  s.strong.fill(now);
  for (std::size_t w = 0; w < b.warps.size(); ++w) tick(s, w);
}

void end_block(block&) {}

void at_barrier(block& b, warp& w, int barrier) {
  shadow& s = of(b);
  auto const me = static_cast<std::size_t>(w.index);
  join(s.barriers[std::size_t(barrier)], s.seen[me]);
  tick(s, me);
}

void leave_barrier(block& b, int barrier, bool whole) {
  shadow& s = of(b);
  clocks& gathered = s.barriers[std::size_t(barrier)];
  if (whole)
    for (auto const& w : b.warps)
      if (w->idle == all_lanes) join(gathered, s.seen[std::size_t(w->index)]);
  for (auto const& w : b.warps)
    for (int i = 0; i < w->group_count; ++i)
      if (w->groups[std::size_t(i)].state == state::at_barrier &&
          w->groups[std::size_t(i)].barrier == barrier) {
        join(s.seen[std::size_t(w->index)], gathered);
        break;
      }
}

void shared_touch(access& a, lane_mask good) {
  shadow& s = of(*a.w.block);
  auto const me = static_cast<std::uint8_t>(a.w.index);
  clocks& seen = s.seen[me];
  if (a.strong) join(seen, s.strong);
  bool const reads = a.kind != access_kind::store, writes = a.kind != access_kind::load;
  bool const alone = a.w.block->warps.size() == 1;
  conflict worst;
  lane_mask racing = 0, unwritten = 0;
  for (lane_mask left = good; left != 0; left &= left - 1) {
    int const lane = std::countr_zero(left);
    std::uint64_t const at = a.address[lane];
    std::uint8_t* const state = s.written.data() + at;
    if (reads && any_unwritten(state, a.bytes)) unwritten |= lane_mask{1} << lane;
    if (writes || (unwritten >> lane & 1) != 0) std::memset(state, a.later ? 0 : 1, a.bytes);
    if (alone) continue;
    for (std::uint64_t word = at / 4; word * 4 < at + a.bytes; ++word) {
      std::uint8_t const bytes =
          a.bytes >= 4 ? 15 : static_cast<std::uint8_t>(((1u << a.bytes) - 1) << (at % 4));
      conflict const c = touch_word(s.words[word], seen, me, bytes, reads, writes, a.strong);
      if (c.what == nullptr) continue;
      racing |= lane_mask{1} << lane;
      worst = c;
    }
  }
  if (a.strong) {
    join(s.strong, seen);
    tick(s, me);
  }
  if (unwritten != 0)
    raise_fault(a.w, a.o, unwritten, fault::uninitialised,
                "read of " + std::to_string(a.bytes) + " bytes of shared memory at " +
                    std::to_string(a.address[std::countr_zero(unwritten)]) + " that nobody wrote");
  if (racing != 0)
    raise_fault(a.w, a.o, racing, fault::shared_race,
                std::string("warp ") + std::to_string(int{me}) + " " + worst.what +
                    " without a barrier between: warp " + std::to_string(worst.other) +
                    ", shared memory at " + std::to_string(a.address[std::countr_zero(racing)]));
}

void shared_arrive(block& b, std::ptrdiff_t offset, unsigned bytes) {
  std::memset(of(b).written.data() + offset, 1, bytes);
}

}  // namespace softgpu::checks
