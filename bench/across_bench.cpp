// The layer on two ranks of one thread each, in turns with one process of two threads: what the exchange costs.
#include <atomic>
#include <chrono>
#include <cstring>
#include <shunt/across.hpp>
#include <shunt/across/threads.hpp>
#include <shunt/route/presets.hpp>
#include <string>
#include <thread>

#include "support/bench.hpp"
#include "support/layer_scene.hpp"

namespace bench::layers {
namespace {

using clock_type = std::chrono::steady_clock;

/// Half of the tokens and half of the experts.
template <class T> struct half {
  scene<T>& all;
  rank_threads x;
  index_t first, tokens, first_expert, experts;
  index_t start[3] = {};
  std::vector<index_t> expert;
  moe_weights<T> w;
  std::vector<T> y;
  std::vector<std::byte> work;
  std::string failed;

  half(scene<T>& whole, rank_threads_table& table, int rank)
      : all(whole),
        x(table, rank),
        first(rank == 0 ? 0 : whole.s.tokens / 2),
        tokens(rank == 0 ? whole.s.tokens / 2 : whole.s.tokens - whole.s.tokens / 2),
        w(whole.w) {
    expert.resize(index(all.s.experts));
    auto const p = place();
    first_expert = p.start[rank];
    experts = p.on_rank(rank);
    w.up = all.w.up.slice(first_expert, experts);
    w.down = all.w.down.slice(first_expert, experts);
    y.resize(index(tokens) * index(all.s.hidden));
    work.resize(moe_layer_across_scratch_bytes(on_host{.threads = 1}, among(), tokens, w, all.o));
  }
  expert_placement place() {
    return place_evenly(view<index_t, 1>(start, 3), view<index_t, 1>(expert));
  }
  among_ranks<rank_threads> among() {
    return {.transport = x, .placement = place(), .most_tokens = all.s.tokens};
  }
  void run() {
    auto o = all.o;
    o.ids = all.o.ids.wide().slice(first, tokens);
    status const done =
        moe_layer_across(on_host{.threads = 1}, among(), all.tokens(all.x).slice(first, tokens), w,
                         view<T, 2>(y.data(), {{tokens, all.s.hidden}}), arena<>(work), o);
    if (!done.ok()) failed = done.message();
  }
};

/// The second rank's thread: runs whenever it is told to.
template <class T> class second_rank {
 public:
  explicit second_rank(half<T>& rank)
      : thread_([this, &rank] {
          for (int seen = 0;; ++seen) {
            for (int turn = 0; told_.load(std::memory_order_acquire) == seen; ++turn) {
              if (turn < 2000) {
                std::this_thread::yield();
              } else {
                told_.wait(seen);  // one process has its turn
              }
            }
            if (ends_.load(std::memory_order_relaxed)) return;
            rank.run();
            done_.store(seen + 1, std::memory_order_release);
          }
        }) {}
  ~second_rank() {
    ends_ = true;
    begin();
    thread_.join();
  }
  void begin() {
    told_.fetch_add(1, std::memory_order_release);
    told_.notify_one();
  }
  void wait() {
    while (done_.load(std::memory_order_acquire) != told_.load()) {}
  }

 private:
  std::atomic<int> told_{0}, done_{0};
  std::atomic<bool> ends_{false};
  std::thread thread_;
};

template <class T> void measure_across(benchmark::State& state, shape const& s) {
  scene<T> in(s, batches_of(s, bench::skew::uniform), 2, false, false);
  rank_threads_table table(2);
  half<T> a(in, table, 0), b(in, table, 1);
  second_rank<T> other(b);
  auto const seconds = [](auto const& call) {
    auto const from = clock_type::now();
    call();
    return std::chrono::duration<double>(clock_type::now() - from).count();
  };
  auto const across = [&] {
    other.begin();
    a.run();
    other.wait();
  };
  status done = in.forward(false);
  across();
  std::string wrong = done.message() + a.failed + b.failed;
  if (wrong.empty() &&
      (std::memcmp(in.y.data(), a.y.data(), a.y.size() * sizeof(T)) != 0 ||
       std::memcmp(in.y.data() + a.y.size(), b.y.data(), b.y.size() * sizeof(T)) != 0)) {
    wrong = "two ranks give other bits than one process";
  }
  if (!wrong.empty()) return bench::fail(state, wrong);
  double one = 0, two = 0;
  for (auto _ : state) {
    // Turns of some calls each: the thread of the second rank sleeps in the other's.
    constexpr int calls = 16;
    state.PauseTiming();
    for (int i = 0; i < calls; ++i) one += seconds([&] { done = in.forward(false); });
    across();
    state.ResumeTiming();
    for (int i = 0; i < calls; ++i) two += seconds(across);
  }
  state.SetLabel("16 calls");
  state.counters["of_one_process"] = one / two;  // above 1: the ranks are faster
}

}  // namespace
}  // namespace bench::layers

void bench::register_all() {
  using namespace bench::layers;
  shape const all[] = {{.hidden = 128, .intermediate = 256, .experts = 16, .top_k = 2},
                       {.hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6},
                       presets::deepseek_v2_lite.sizes};
  for (shape s : all) {
    for (index_t tokens : {8, 64, 512}) {
      s.tokens = tokens;
      bench::add(bench::name("across_2_ranks", s, "f32", 1),
                 [=](benchmark::State& state) { measure_across<float>(state, s); });
    }
  }
}
