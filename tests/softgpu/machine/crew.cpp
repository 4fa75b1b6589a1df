#include "machine/crew.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace softgpu {
namespace {

struct job {
  std::function<void()> const* work;
  std::size_t wanted, inside = 0;
};

struct crew {
  std::mutex mutex;
  std::condition_variable wanted, left;
  std::vector<job*> open;
  std::size_t threads = 0;

  /// What a helper does, for as long as the process lives.
  void help() {
    std::unique_lock lock(mutex);
    for (;;) {
      wanted.wait(lock, [&] { return !open.empty(); });
      job& j = *open.front();
      ++j.inside;
      if (--j.wanted == 0) close(j);
      lock.unlock();
      (*j.work)();
      lock.lock();
      if (--j.inside == 0) left.notify_all();
    }
  }
  void close(job& j) { std::erase(open, &j); }
};

crew& the_crew() {
  static crew* const c = [] {
    auto* made = new crew;  // its threads wait on it when the process ends
    // A child of fork has none of the threads.
    pthread_atfork([] { the_crew().mutex.lock(); }, [] { the_crew().mutex.unlock(); },
                   [] {
                     the_crew().threads = 0;
                     the_crew().mutex.unlock();
                   });
    return made;
  }();
  return *c;
}

}  // namespace

void with_helpers(std::size_t helpers, std::function<void()> const& work) {
  if (helpers == 0) return work();
  crew& c = the_crew();
  job j{&work, helpers};
  {
    std::lock_guard const lock(c.mutex);
    for (; c.threads < helpers; ++c.threads) std::thread([&c] { c.help(); }).detach();
    c.open.push_back(&j);
  }
  for (std::size_t i = 0; i < helpers; ++i) c.wanted.notify_one();
  work();
  std::unique_lock lock(c.mutex);
  c.close(j);
  c.left.wait(lock, [&] { return j.inside == 0; });
}

}  // namespace softgpu
