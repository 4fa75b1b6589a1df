// The layer on two ranks of one thread each, in turns with one process of two threads: what the exchange costs.
// And on one rank, in turns with moe_layer: what it costs to be able to have more.
#include <algorithm>
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
  bool once;  // a token goes once to each rank
  std::vector<T> y;
  std::vector<std::byte> work;
  std::string failed;

  half(scene<T>& whole, rank_threads_table& table, int rank, bool send_once)
      : all(whole),
        x(table, rank),
        first(rank == 0 ? 0 : whole.s.tokens / 2),
        tokens(rank == 0 ? whole.s.tokens / 2 : whole.s.tokens - whole.s.tokens / 2),
        w(whole.w),
        once(send_once) {
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
    return {.transport = x, .placement = place(), .most_tokens = all.s.tokens, .send_once = once};
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

template <class T> void measure_across(benchmark::State& state, shape const& s, bool once) {
  scene<T> in(s, batches_of(s, bench::skew::uniform), 2, false, false);
  rank_threads_table table(2);
  half<T> a(in, table, 0, once), b(in, table, 1, once);
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

/// moe_layer_across on `alone`, in turns with moe_layer.
template <class T> void measure_alone(benchmark::State& state, shape const& s, int threads) {
  scene<T> in(s, batches_of(s, bench::skew::uniform), threads, false, false);
  on_host const on{.threads = threads};
  alone x;
  index_t start[2];
  std::vector<index_t> expert(index(s.experts));
  among_ranks<alone> const among{
      .transport = x,
      .placement = place_evenly(view<index_t, 1>(start, 2), view<index_t, 1>(expert))};
  // The same memory for both: whose pages are larger would be faster.
  std::vector<std::byte> work(
      std::max(moe_layer_across_scratch_bytes(on, among, s.tokens, in.w, in.o),
               moe_layer_scratch_bytes(on, s.tokens, in.w, in.o)));
  std::vector<T> y(in.y.size());
  view<T, 2> const to(y.data(), {{s.tokens, s.hidden}});
  status done, across;
  auto const by_itself = [&] {
    done = moe_layer(on, in.tokens(in.x), in.w, to, arena<>(work), in.o);
  };
  auto const among_one = [&] {
    across = moe_layer_across(on, among, in.tokens(in.x), in.w, to, arena<>(work), in.o);
  };
  by_itself();
  std::vector<T> const wanted = y;
  among_one();
  if (!done.ok() || !across.ok()) {
    return bench::fail(state, std::string(done.message()) + across.message());
  }
  if (std::memcmp(wanted.data(), y.data(), y.size() * sizeof(T)) != 0) {
    return bench::fail(state, "moe_layer_across on one rank gives other bits than moe_layer");
  }
  auto const seconds = [](auto const& call) {
    auto const from = clock_type::now();
    call();
    return std::chrono::duration<double>(clock_type::now() - from).count();
  };
  std::vector<double> ratios;  // of neighbors, so that a slow second is on both sides
  for (auto _ : state) {
    double const one = seconds(by_itself), two = seconds(among_one), again = seconds(by_itself);
    ratios.push_back(2 * two / (one + again));
  }
  auto const middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  state.counters["of_moe_layer"] = *middle;  // above 1: `alone` is slower
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
                 [=](benchmark::State& state) { measure_across<float>(state, s, false); });
      bench::add(bench::name("across_2_ranks_send_once", s, "f32", 1),
                 [=](benchmark::State& state) { measure_across<float>(state, s, true); });
      bench::add(bench::name("across_alone", s, "f32", 1),
                 [=](benchmark::State& state) { measure_alone<float>(state, s, 1); });
    }
  }
}
