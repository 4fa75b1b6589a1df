#include "machine/warp.hpp"

#include <bit>

#include "checks/faults.hpp"
#include "machine/async.hpp"
#include "machine/block.hpp"

namespace softgpu {
namespace {

bool same_frame(place const& a, place const& b) {
  return a.code == b.code && a.registers == b.registers && a.depth == b.depth;
}

/// Which of two runnable groups goes first: the deeper call, then the lower function, then pc.
bool before(place const& a, place const& b) {
  if (a.depth != b.depth) return a.depth > b.depth;
  if (a.code != b.code) return a.code->id < b.code->id;
  if (a.registers != b.registers) return a.registers < b.registers;
  return a.pc < b.pc;
}

constexpr std::int32_t patience = 1 << 14;  // ops run backward before another group gets a turn

}  // namespace

void warp::execute() {
  while (pc < limit) {
    op const& o = ops[pc++];
    lane_mask const m = active & (predicate(o.guard) ^ o.flip);
    auto const k = static_cast<int>(o.kind);
    ++executed[k];
    executed_lanes[k] += m == all_lanes ? 32u : static_cast<std::uint64_t>(std::popcount(m));
    mask = m;
    if ((m | idle) == all_lanes)
      o.full(*this, o);
    else if (m != 0)
      o.some(*this, o);
  }
}

void warp::open(group const& g) {
  active = g.lanes;
  here = g.at;
  pc = g.at.pc;
  ops = g.at.code->ops.data();
  bank[0] = registers + g.at.registers;
  bank[1] = g.at.code->constants - 1;
}

void warp::store_current() {
  if (active == 0) return;
  here.pc = pc;
  group& g = groups[group_count++];
  g = {};
  g.lanes = active;
  g.at = here;
  active = 0;
}

/// Groups of one state at one place become one.
void warp::merge(state which) {
  for (int i = 0; i < group_count; ++i)
    for (int j = i + 1; j < group_count; ++j) {
      group &a = groups[i], &b = groups[j];
      if (a.state != which || b.state != which || a.anywhere || b.anywhere || a.at != b.at)
        continue;
      a.lanes |= b.lanes;
      b = groups[--group_count];
      --j;
    }
}

/// Lanes of meeting groups whose members are all there become runnable.
void warp::wake_ready() {
  lane_mask anywhere = 0, ready[lanes_per_warp] = {};
  for (int i = 0; i < group_count; ++i)
    if (groups[i].state == state::meeting && groups[i].anywhere) anywhere |= groups[i].lanes;
  int const known = group_count;
  for (int i = 0; i < known; ++i) {
    if (groups[i].state != state::meeting) continue;
    lane_mask const there = groups[i].anywhere ? anywhere : groups[i].lanes;
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      if ((groups[i].lanes >> lane & 1) != 0 && (awaited[lane] & ~idle & ~there) == 0)
        ready[i] |= lane_mask{1} << lane;
  }
  for (int i = 0; i < known; ++i) {
    if (ready[i] == 0) continue;
    if (ready[i] != groups[i].lanes) {  // the rest goes on waiting
      group& rest = groups[group_count++];
      rest = groups[i];
      rest.lanes &= ~ready[i];
    }
    groups[i].lanes = ready[i];
    groups[i].state = state::runnable;
    groups[i].anywhere = false;
  }
}

/// Opens the group to run next; false where none can run.
bool warp::choose() {
  store_current();
  merge(state::meeting);
  wake_ready();
  merge(state::runnable);
  int best = -1, runnable = 0;
  for (int i = 0; i < group_count; ++i) {
    if (groups[i].state != state::runnable) continue;
    ++runnable;
    if (best < 0 || before(groups[i].at, groups[best].at)) best = i;
  }
  if (best < 0) return false;
  bool const rotate = rotate_ && runnable > 1;
  rotate_ = false;
  for (int step = 1; rotate && step <= lanes_per_warp; ++step) {  // who holds the next lane in turn
    int const lane = (turn_ + step) % lanes_per_warp;
    int found = -1;
    for (int i = 0; i < group_count; ++i)
      if (groups[i].state == state::runnable && (groups[i].lanes >> lane & 1) != 0) found = i;
    if (found < 0) continue;
    turn_ = lane;
    best = found;
    break;
  }
  group const g = groups[best];
  groups[best] = groups[--group_count];
  open(g);
  limit = static_cast<std::uint32_t>(here.code->ops.size());
  for (int i = 0; i < group_count && !rotate; ++i)
    if (groups[i].state == state::runnable && same_frame(groups[i].at, here) &&
        groups[i].at.pc < limit)
      limit = groups[i].at.pc;
  return true;
}

bool warp::can_run() {
  if (active != 0) return true;
  wake_ready();
  for (int i = 0; i < group_count; ++i)
    if (groups[i].state == state::runnable) return true;
  return false;
}

warp::outcome warp::run(std::int32_t quantum) {
  for (std::int32_t left = quantum; left > 0;) {
    if (!choose()) return group_count == 0 ? outcome::finished : outcome::waiting;
    if (patience_ <= 0) patience_ = patience;
    std::int32_t const granted = left < patience_ ? left : patience_;
    budget = granted;
    execute();
    std::int32_t const used = budget < 0 ? granted : granted - budget;
    left -= used;
    patience_ -= used;
    if (patience_ <= 0) rotate_ = true;
  }
  store_current();
  return outcome::spent;
}

void warp::remove_current(lane_mask leaving) {
  active &= ~leaving;
  if (active == 0) limit = 0;
}

void warp::split(lane_mask leaving, std::uint32_t target) {
  if (leaving == active) return jump(target);
  ++divergent_branches;
  std::uint32_t const next = pc;
  if (target == next) return;
  here.pc = pc;
  group& g = groups[group_count++];
  g = {};
  g.at = here;
  if (target > next) {  // the others are lower: they go on
    g.lanes = leaving;
    g.at.pc = target;
    active &= ~leaving;
    if (target < limit) limit = target;
  } else {
    g.lanes = active & ~leaving;
    active = leaving;
    if (next < limit) limit = next;
    jump(target);
  }
}

void warp::exit_lanes(lane_mask leaving) {
  if (!copies.empty()) {  // what a thread leaves behind still arrives
    for (int i = 0; i < lanes_per_warp; ++i) copy_groups[i] += leaving >> i & 1;
    finish_copies(*this, leaving, 0);
  }
  idle |= leaving;
  remove_current(leaving);
}

void warp::call(code const& callee) {
  if (mask != active) {  // the others go on after the call
    here.pc = pc;
    group& g = groups[group_count++];
    g = {};
    g.at = here;
    g.lanes = active & ~mask;
    active = mask;
  }
  here.pc = pc;
  if (returns.size() <= here.depth) returns.resize(here.depth + 1);
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    if (active >> lane & 1) returns[here.depth].at[lane] = here;
  place next;
  next.code = &callee;
  next.depth = here.depth + 1;
  next.registers = here.registers + static_cast<std::uint32_t>(here.code->frame_bytes);
  next.local = here.local + static_cast<std::uint32_t>(here.code->local_bytes);
  bool const registers_fit =
      next.registers + static_cast<std::size_t>(callee.frame_bytes) <= register_bytes;
  bool const local_fits = next.local + callee.local_bytes <= local_stride;
  if (!registers_fit || !local_fits) {
    raise_fault(*this, ops[pc - 1], active, fault::stack_overflow,
                "the call of " + std::string(callee.source->name) + " exceeds the stack");
    return exit_lanes(active);
  }
  group g;
  g.lanes = active;
  g.at = next;
  open(g);
  limit = static_cast<std::uint32_t>(callee.ops.size());
}

void warp::return_lanes(lane_mask leaving) {
  if (here.depth == 0) return exit_lanes(leaving);
  auto const& back = returns[here.depth - 1].at;
  for (lane_mask left = leaving; left != 0;) {
    int const first = std::countr_zero(left);
    group& g = groups[group_count];
    g = {};
    g.at = back[first];
    for (int lane = first; lane < lanes_per_warp; ++lane)
      if ((left >> lane & 1) != 0 && back[lane] == back[first]) g.lanes |= lane_mask{1} << lane;
    left &= ~g.lanes;
    active &= ~g.lanes;
    ++group_count;
  }
  limit = 0;  // choose again: lanes may have met
}

void warp::wait(lane_mask lanes, state why, std::uint32_t at) {
  group& g = groups[group_count++];
  g = {};
  g.lanes = lanes;
  g.at = here;
  g.at.pc = at;
  g.state = why;
  active &= ~lanes;
  limit = 0;
}

lane_mask warp::meet(lane_mask const* members, op const& o) {
  lane_mask ready = 0;
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    if ((mask >> lane & 1) != 0 && (members[lane] & ~mask & ~idle) == 0)
      ready |= lane_mask{1} << lane;
  lane_mask const rest = mask & ~ready;
  if (rest == 0) return ready;
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    if (rest >> lane & 1) awaited[lane] = members[lane];
  wait(rest, state::meeting, static_cast<std::uint32_t>(&o - ops));
  return ready;
}

void warp::meet_anywhere(lane_mask const* members) {
  lane_mask rest = 0;
  for (int lane = 0; lane < lanes_per_warp; ++lane) {
    if ((mask >> lane & 1) == 0 || (members[lane] & ~mask & ~idle) == 0) continue;
    rest |= lane_mask{1} << lane;
  }
  if (rest == 0) return;
  rest = mask;  // all wait: those that are ready wake at once
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    if (rest >> lane & 1) awaited[lane] = members[lane];
  wait(rest, state::meeting, pc);
  groups[group_count - 1].anywhere = true;
}

void warp::wait_at_barrier(int barrier, op const* finish) {
  wait(mask, state::at_barrier, pc);
  groups[group_count - 1].barrier = barrier;
  groups[group_count - 1].finish = finish;
}

void warp::release_barrier(int barrier) {
  for (int i = 0; i < group_count; ++i)
    if (groups[i].state == state::at_barrier && groups[i].barrier == barrier) {
      groups[i].state = state::runnable;
      groups[i].barrier = -1;
      groups[i].finish = nullptr;
    }
}

}  // namespace softgpu
