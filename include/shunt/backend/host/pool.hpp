#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "shunt/core/abi.hpp"
#include "shunt/core/policy.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

/// Shunt's own fork-join pool. Workers wait for the next job by spinning some tens of microseconds,
/// then asleep. One job at a time: who finds the pool busy (another thread of the caller, or a job
/// inside a job) runs its workers one after another itself, with the same result.
class pool {
 public:
  using body_type = void (*)(void* context, int worker);

  /// Never destroyed: its sleeping threads end with the process, whatever the order of exits.
  static pool& instance() noexcept {
    static pool* const only = new pool;
    return *only;
  }

  void run(int workers, body_type body, void* context) noexcept {
    std::unique_lock<std::mutex> mine(busy_, std::defer_lock);
    if (workers <= 1 || inside() || !mine.try_lock() || !grow(workers - 1)) {
      for (int w = 0; w < workers; ++w) body(context, w);
      return;
    }
    body_ = body;
    context_ = context;
    int const helpers = workers - 1;
    left_.store(helpers, std::memory_order_relaxed);
    for (int h = 0; h < helpers; ++h) seats_[static_cast<std::size_t>(h)]->call();
    inside() = true;
    body(context, 0);
    inside() = false;
    for (int spins = 0; left_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < patience) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr int patience = 2000;  // some 30 to 60 µs of pauses: longer than a join takes

  static bool& inside() noexcept {
    static thread_local bool in_job = false;
    return in_job;
  }

  /// Where one helper waits to be called: a counter of its own, so that a job wakes only whom it needs.
  struct alignas(64) seat {
    std::atomic<unsigned> calls{0};
    std::atomic<bool> asleep{false};

    void call() noexcept {
      calls.fetch_add(1, std::memory_order_seq_cst);
      if (asleep.load(std::memory_order_seq_cst)) calls.notify_one();
    }
    void wait_beyond(unsigned seen) noexcept {
      for (int spins = 0; calls.load(std::memory_order_acquire) == seen; ++spins) {
        if (spins < patience) {
          relax();
          continue;
        }
        asleep.store(true, std::memory_order_seq_cst);
        calls.wait(seen, std::memory_order_seq_cst);
        asleep.store(false, std::memory_order_seq_cst);
      }
    }
  };

  void hire(int helpers) {
    while (static_cast<int>(seats_.size()) < helpers) {
      auto place = std::make_unique<seat>();
      int const worker = static_cast<int>(seats_.size()) + 1;
      seats_.reserve(seats_.size() + 1);
      std::thread([this, worker, at = place.get()] { serve(worker, *at); }).detach();
      seats_.push_back(std::move(place));
    }
  }

  bool grow(int helpers) noexcept {
#if defined(__cpp_exceptions)
    try {
      hire(helpers);
    } catch (...) {
      return false;  // no more threads to be had: the caller does the work
    }
#else
    hire(helpers);
#endif
    return true;
  }

  void serve(int worker, seat& at) noexcept {
    inside() = true;
    for (unsigned seen = 0;; ++seen) {
      at.wait_beyond(seen);
      body_(context_, worker);
      left_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex busy_;
  std::vector<std::unique_ptr<seat>> seats_;
  std::atomic<int> left_{0};
  body_type body_ = nullptr;
  void* context_ = nullptr;
};

/// How many workers a policy asks for.
inline int workers_of(on_host const& on) noexcept {
  if (on.threads > 0) return on.threads;
  if (on.runner != nullptr) return on.runner->workers;
  static int const cores = [] {
    unsigned const n = std::thread::hardware_concurrency();
    return n == 0 ? 1 : static_cast<int>(n);
  }();
  return cores;
}

/// parallel(), with the type of its body put aside: compiled once.
__attribute__((noinline)) inline void run_tasks(on_host const& on, std::int64_t tasks,
                                                void (*body)(void const*, std::int64_t, int),
                                                void const* context) noexcept {
  std::int64_t const wanted = workers_of(on);
  int const workers = static_cast<int>(tasks < wanted ? tasks : wanted);
  if (workers <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  struct job_type {
    std::atomic<std::int64_t> next;
    std::int64_t tasks;
    void (*body)(void const*, std::int64_t, int);
    void const* context;
  } job{{0}, tasks, body, context};
  auto const work = [](void* own, int worker) {
    auto& mine = *static_cast<job_type*>(own);
    for (std::int64_t task;
         (task = mine.next.fetch_add(1, std::memory_order_relaxed)) < mine.tasks;) {
      mine.body(mine.context, task, worker);
    }
  };
  if (on.runner != nullptr) {
    on.runner->run(on.runner->self, workers, work, &job);
  } else {
    pool::instance().run(workers, work, &job);
  }
}

/// Calls body(task, worker) once for each task in [0, tasks), each as soon as a worker is free.
/// Which worker takes which task changes from run to run: results must not depend on it.
/// 0 <= worker < workers_of(on).
template <class Body>
void parallel(on_host const& on, std::int64_t tasks, Body const& body) noexcept {
  auto const call = [](void const* context, std::int64_t task, int worker) {
    (*static_cast<Body const*>(context))(task, worker);
  };
  run_tasks(on, tasks, call, &body);
}

/// parallel() over [0, count) in pieces of `grain`: body(first, last, worker).
template <class Body>
void parallel_ranges(on_host const& on, std::int64_t count, std::int64_t grain,
                     Body const& body) noexcept {
  std::int64_t const pieces = (count + grain - 1) / grain;
  parallel(on, pieces, [&](std::int64_t piece, int worker) {
    std::int64_t const first = piece * grain;
    std::int64_t const last = first + grain < count ? first + grain : count;
    body(first, last, worker);
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
