// The host pool: what it costs to send work to all threads and to wait for them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <shunt/backend/host/pool.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"

namespace {

// As many tasks as threads, each of which only says that it ran.
void fork_join(benchmark::State& state, int threads) {
  struct alignas(64) tally {
    std::atomic<int> calls{0};
  };
  auto const tallies = std::make_unique<tally[]>(std::size_t(threads));
  shunt::on_host const on{.threads = threads};
  auto const call = [&] {
    shunt::host::parallel(on, threads, [&](std::int64_t task, int) {
      tallies[std::size_t(task)].calls.fetch_add(1, std::memory_order_relaxed);
    });
  };
  auto const verify = [&]() -> std::string {
    for (int t = 0; t < threads; ++t) {
      int const calls = tallies[std::size_t(t)].calls;
      if (calls != 1)
        return "task " + std::to_string(t) + " ran " + std::to_string(calls) + " times";
    }
    return {};
  };
  call();
  if (std::string const wrong = verify(); !wrong.empty()) {
    bench::fail(state, wrong);
    return;
  }
  // The mean tells how busy the machine is, the median what the pool costs.
  std::vector<double> micros;
  for (auto _ : state) {
    auto const start = std::chrono::steady_clock::now();
    call();
    micros.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::sort(micros.begin(), micros.end());
  state.counters["median_us"] = micros[micros.size() / 2];
  state.counters["p99_us"] = micros[micros.size() * 99 / 100];
}

}  // namespace

void bench::register_all() {
  for (int const threads : bench::thread_counts()) {
    bench::add("fork_join/threads" + std::to_string(threads),
               [=](benchmark::State& state) { fork_join(state, threads); });
  }
}
