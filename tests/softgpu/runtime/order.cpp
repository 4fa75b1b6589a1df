#include "runtime/order.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <thread>

namespace softgpu {
namespace {

struct monitor {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t numbers = 0;
  std::uint64_t calls = 0, calls_when_idle = 0;
  int running = 0;
  std::chrono::steady_clock::time_point busy_at;  // the last call, or the end of the last work
};
monitor& the_monitor() {
  static monitor* const m = [] {
    auto* made = new monitor;  // outlives static destructors that use the device
    // A child of fork may use the device: the lock must be nobody's.
    pthread_atfork([] { the_monitor().mutex.lock(); }, [] { the_monitor().mutex.unlock(); },
                   [] { the_monitor().mutex.unlock(); });
    return made;
  }();
  return *m;
}

/// The open dependency enqueued last; nothing where all are done.
work_ref latest_open(work& w) {
  auto const done = std::remove_if(w.after.begin(), w.after.end(), is_done);
  w.after.erase(done, w.after.end());
  if (w.after.empty()) return nullptr;
  return *std::max_element(w.after.begin(), w.after.end(),
                           [](auto const& a, auto const& b) { return a->number < b->number; });
}

void run(held_lock& lock, work& w) {
  w.state = work::state::running;
  ++the_monitor().running;
  lock.unlock();
  perform(w.what);
  lock.lock();
  --the_monitor().running;
  w.what = empty_action{};  // its parameters and staged bytes
  w.finished = the_monitor().busy_at = std::chrono::steady_clock::now();
  w.state = work::state::done;
  the_monitor().changed.notify_all();
}

/// Follows open dependencies from w and runs what is ready. True where there was any.
bool advance(held_lock& lock, work_ref const& w, bool only_one) {
  std::vector<work_ref> path{w};
  bool ran = false;
  while (!path.empty() && !(ran && only_one)) {
    work& here = *path.back();
    if (here.state == work::state::done) {
      path.pop_back();
    } else if (here.state == work::state::running) {
      if (only_one) return true;
      the_monitor().changed.wait(lock);
    } else if (work_ref next = latest_open(here)) {
      path.push_back(std::move(next));
    } else {
      run(lock, here);
      ran = true;
    }
  }
  return ran;
}

}  // namespace

held_lock lock_runtime() {
  held_lock lock(the_monitor().mutex);
  ++the_monitor().calls;
  the_monitor().busy_at = std::chrono::steady_clock::now();
  return lock;
}

held_lock lock_when_idle(std::chrono::steady_clock::duration how_long) {
  for (;; std::this_thread::sleep_for(how_long / 4)) {
    monitor& m = the_monitor();
    held_lock lock(m.mutex);
    m.calls_when_idle = m.calls;
    if (m.running == 0 && std::chrono::steady_clock::now() - m.busy_at >= how_long) return lock;
  }
}

bool called_since(held_lock const&) { return the_monitor().calls != the_monitor().calls_when_idle; }

work_ref make_work(action what, std::vector<work_ref> after) {
  auto w = std::make_shared<work>();
  w->what = std::move(what);
  w->after = std::move(after);
  w->after.erase(std::remove_if(w->after.begin(), w->after.end(), is_done), w->after.end());
  w->number = ++the_monitor().numbers;
  return w;
}

bool is_done(work_ref const& w) { return w == nullptr || w->state == work::state::done; }

void finish(held_lock& lock, work_ref const& w) {
  if (!is_done(w)) advance(lock, w, false);
}

bool step(held_lock& lock, work_ref const& w) { return !is_done(w) && advance(lock, w, true); }

}  // namespace softgpu
