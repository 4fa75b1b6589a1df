#include "machine/block.hpp"

#include <bit>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"

namespace softgpu {

dim block::thread(warp const& w, int lane) const {
  auto const t = static_cast<std::uint32_t>(w.index * lanes_per_warp + lane);
  dim const& size = launch->block;
  if (t < size.x) return {t, 0, 0};  // three divisions less for most
  return {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
}

bool block::finished() const {
  for (auto const& w : warps)
    if (w->idle != all_lanes) return false;
  return true;
}

/// Threads of a barrier without a count: all that have not exited.
static std::uint32_t alive_threads(block const& b) {
  std::uint32_t alive = 0;
  for (auto const& w : b.warps) alive += static_cast<std::uint32_t>(std::popcount(~w->idle));
  return alive;
}

void block::arrive(warp& w, int barrier, std::uint32_t expected, lane_mask true_predicates,
                   bool wait, op const* finish) {
  barrier_state& b = barriers[static_cast<std::size_t>(barrier)];
  lane_mask const arriving = w.mask;
  b.arrived += static_cast<std::uint32_t>(std::popcount(arriving));
  // A counted barrier counts whole warps: lanes that have exited arrive with the rest of theirs.
  if (expected != 0 && (arriving | w.idle) == all_lanes)
    b.arrived += static_cast<std::uint32_t>(std::popcount(w.idle));
  b.count += static_cast<std::uint32_t>(std::popcount(arriving & true_predicates));
  b.expected = expected;
  b.open = true;
  checks::at_barrier(*this, w, barrier);
  if (wait) w.wait_at_barrier(barrier, finish);
  complete(barrier);
}

void block::complete(int barrier) {
  barrier_state& b = barriers[static_cast<std::size_t>(barrier)];
  if (!b.open) return;
  std::uint32_t const needed = b.expected != 0 ? b.expected : alive_threads(*this);
  if (b.arrived < needed) return;
  for (auto const& w : warps)
    for (int i = 0; i < w->group_count; ++i) {
      group const& g = w->groups[static_cast<std::size_t>(i)];
      if (g.state == state::at_barrier && g.barrier == barrier && g.finish != nullptr)
        deliver_reduction(*w, g, *g.finish, b.count, b.arrived);
    }
  checks::leave_barrier(*this, barrier, b.expected == 0);
  for (auto const& w : warps) w->release_barrier(barrier);
  if (b.expected == 0 || b.expected >= threads) ++barrier_epoch;
  launch->barriers.fetch_add(1, std::memory_order_relaxed);
  b = {};
}

bool block::turn(std::int32_t quantum) {
  bool progressed = false, all_finished = true;
  for (auto const& w : warps) {
    if (w->idle == all_lanes) continue;
    lane_mask const idle_before = w->idle;
    bool const could_run = w->can_run();
    warp::outcome const how = w->run(quantum);
    progressed |= could_run || w->idle != idle_before;
    all_finished &= how == warp::outcome::finished;
    if (w->idle != idle_before) {  // exits may complete a barrier
      note_progress(*launch);
      for (int i = 0; i < static_cast<int>(barriers.size()); ++i) complete(i);
    }
    if (launch->stop.load(std::memory_order_relaxed)) return true;
  }
  if (all_finished || finished()) return true;
  if (!progressed && !report_divergent_barriers(*this)) {
    report_deadlock(*this);
    return true;
  }
  return false;
}

}  // namespace softgpu
