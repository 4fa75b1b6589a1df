// The fork-join pool and the hook for an engine's own: every task once, whoever runs it.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/simd/isa.hpp"

namespace shunt {
namespace pool_test {

void each_task_runs_once(on_host const& on, std::int64_t tasks) {
  std::vector<std::atomic<int>> ran(static_cast<std::size_t>(tasks));
  std::atomic<int> strangers{0};
  host::parallel(on, tasks, [&](std::int64_t task, int worker) {
    ran[static_cast<std::size_t>(task)].fetch_add(1);
    if (worker < 0 || worker >= host::workers_of(on)) strangers.fetch_add(1);
  });
  for (auto& count : ran) ASSERT_EQ(count.load(), 1);
  EXPECT_EQ(strangers.load(), 0);
}

TEST(Pool, EachTaskRunsOnce) {
  for (int threads : {0, 1, 2, 7}) {
    for (std::int64_t tasks : {0, 1, 2, 6, 7, 8, 1000})
      each_task_runs_once({.threads = threads}, tasks);
  }
}

TEST(Pool, ManyShortJobsInARow) {
  std::atomic<std::int64_t> sum{0};
  for (int job = 0; job < 5000; ++job) {
    host::parallel({.threads = 1 + job % 4}, 4, [&](std::int64_t task, int) { sum += task; });
  }
  EXPECT_EQ(sum.load(), 5000 * 6);
}

TEST(Pool, AJobInsideAJobFinishes) {
  std::atomic<int> inner{0};
  host::parallel({.threads = 3}, 3, [&](std::int64_t, int) {
    host::parallel({.threads = 3}, 5, [&](std::int64_t, int) { ++inner; });
  });
  EXPECT_EQ(inner.load(), 15);
}

TEST(Pool, TwoThreadsOfTheCallerShareIt) {
  std::atomic<std::int64_t> sum{0};
  auto const work = [&] {
    for (int job = 0; job < 1000; ++job) {
      host::parallel({.threads = 2}, 3, [&](std::int64_t task, int) { sum += task; });
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(sum.load(), 2 * 1000 * 3);
}

TEST(Pool, RangesCoverEachIndexOnce) {
  for (std::int64_t count : {0, 1, 9, 10, 11, 1003}) {
    std::vector<std::atomic<int>> ran(static_cast<std::size_t>(count));
    host::parallel_ranges({.threads = 2}, count, 10,
                          [&](std::int64_t first, std::int64_t last, int) {
                            EXPECT_LE(last - first, 10);
                            for (; first < last; ++first) ++ran[static_cast<std::size_t>(first)];
                          });
    for (auto& times : ran) ASSERT_EQ(times.load(), 1);
  }
}

struct engine_pool {
  int calls = 0;
  static void run(void* self, int workers, void (*body)(void*, int), void* context) {
    static_cast<engine_pool*>(self)->calls += 1;
    std::vector<std::thread> threads;
    for (int w = 1; w < workers; ++w) threads.emplace_back(body, context, w);
    body(context, 0);
    for (auto& t : threads) t.join();
  }
};

TEST(Runner, AnEnginesOwnPoolIsUsed) {
  engine_pool mine;
  host_runner const runner{.self = &mine, .workers = 3, .run = engine_pool::run};
  each_task_runs_once({.runner = &runner}, 100);
  EXPECT_EQ(mine.calls, 1);
  each_task_runs_once({.threads = 2, .runner = &runner}, 100);
  EXPECT_EQ(mine.calls, 2);
}

TEST(Runner, MayRunItsWorkersOneAfterAnother) {
  host_runner const serial{.workers = 4,
                           .run = [](void*, int workers, void (*body)(void*, int), void* context) {
                             for (int w = workers; w-- > 0;) body(context, w);
                           }};
  each_task_runs_once({.runner = &serial}, 9);
}

TEST(Policy, BadOnesAreRefusedWithASentence) {
  EXPECT_STREQ(check::policy(on_host{.threads = -1}).message(),
               "on_host.threads is -1; it must be 0 or more");
  host_runner const broken{.workers = 0};
  EXPECT_STREQ(check::policy(on_host{.runner = &broken}).message(),
               "on_host.runner has 0 workers and no run; it must have at least 1 and a run "
               "function");
  if (host::available_isa() < isa::avx512) {
    status const bad = check::policy(on_host{.instructions = isa::avx512});
    EXPECT_EQ(bad.code(), error::unsupported);
    EXPECT_NE(std::string(bad.message()).find("avx512"), std::string::npos);
  }
}

}  // namespace pool_test
}  // namespace shunt
