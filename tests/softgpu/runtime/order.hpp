#pragma once
// The order of work. A work knows what must come before it, and nothing else says when it runs: it
// runs when somebody needs it, as late as CUDA allows, so that a missing synchronization shows.
// Where several works may come first, the one enqueued last does, for the same reason.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/work.hpp"

namespace softgpu {

using held_lock = std::unique_lock<std::mutex>;

struct work;
using work_ref = std::shared_ptr<work>;

struct work {
  enum class state : std::uint8_t { open, running, done };
  action what;
  std::vector<work_ref> after;
  std::uint64_t number = 0;  // in the order of the calls
  work::state state = state::open;
  std::chrono::steady_clock::time_point finished;
};

/// The lock of streams, events, captures and graphs. Work runs without it.
held_lock lock_runtime();

/// For who looks after work that nobody waits for: the lock, when no call has come and no work has
/// run for so long; and whether that is still so after it ran some.
held_lock lock_when_idle(std::chrono::steady_clock::duration how_long);
bool called_since(held_lock const& lock);

work_ref make_work(action what, std::vector<work_ref> after);
bool is_done(work_ref const& w);  // nothing counts as done
/// Runs a work and all it waits for; waits for what other host threads are running of it.
void finish(held_lock& lock, work_ref const& w);
/// Runs the first work that stands before w, or w itself. False where it was done already.
bool step(held_lock& lock, work_ref const& w);

}  // namespace softgpu
