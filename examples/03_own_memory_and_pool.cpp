// The same layer inside an engine that has its own memory and its own threads: Shunt allocates
// nothing and starts no thread. The experts' weights lie wherever the engine loaded them, one pointer
// each. The bits are those of Shunt's own pool.
//
// test:
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "shunt/core/random.hpp"
#include "shunt/layer.hpp"

namespace {

/// A plain pool, as an engine might have: each worker sleeps until a job is there.
class engine_pool {
 public:
  explicit engine_pool(int workers) {
    for (int w = 0; w < workers; ++w) threads_.emplace_back([this, w] { serve(w); });
  }
  ~engine_pool() {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  engine_pool(engine_pool const&) = delete;
  engine_pool& operator=(engine_pool const&) = delete;

  /// Shunt's one hook: body(context, w) for each w below `workers`, then back.
  static void run(void* self, int workers, void (*body)(void*, int), void* context) {
    auto& pool = *static_cast<engine_pool*>(self);
    std::unique_lock lock(pool.mutex_);
    pool.job_ = [=](int worker) { body(context, worker); };
    pool.wanted_ = pool.running_ = workers;
    ++pool.number_;
    pool.wake_.notify_all();
    pool.done_.wait(lock, [&] { return pool.running_ == 0; });
    ++pool.jobs;
  }
  [[nodiscard]] shunt::host_runner runner() {
    return {.self = this, .workers = static_cast<int>(threads_.size()), .run = run};
  }

  long jobs = 0;

 private:
  void serve(int worker) {
    std::unique_lock lock(mutex_);
    for (long seen = 0;;) {
      wake_.wait(lock, [&] { return ended_ || (number_ != seen && worker < wanted_); });
      if (ended_) return;
      seen = number_;
      auto const job = job_;
      lock.unlock();
      job(worker);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::function<void(int)> job_;
  int wanted_ = 0, running_ = 0;
  long number_ = 0;
  bool ended_ = false;
  std::vector<std::thread> threads_;
};

/// The engine's memory: one block, handed out from front to back.
class engine_memory {
 public:
  explicit engine_memory(std::size_t bytes) : block_(bytes), rest_(block_) {}
  float* floats(shunt::offset_t count) { return rest_.take<float>(count); }
  float* numbers(std::uint64_t seed, shunt::offset_t count, float scale) {
    float* const values = floats(count);
    for (shunt::offset_t i = 0; i < count; ++i) {
      auto const rng = shunt::random_at(seed, static_cast<std::uint64_t>(i));
      values[i] = scale * (2 * shunt::uniform_of(rng.word[0]) - 1);
    }
    return values;
  }
  shunt::arena<> scratch(std::size_t bytes) {
    return {rest_.take<std::byte>(static_cast<shunt::offset_t>(bytes)), bytes};
  }

 private:
  std::vector<std::byte> block_;
  shunt::arena<> rest_;
};

}  // namespace

int main() {
  constexpr shunt::index_t tokens = 96, hidden = 64, intermediate = 96, experts = 8;
  using matrix = shunt::view<float const, 2>;
  using pointers = shunt::view<float const* const, 1>;
  engine_memory memory(16 << 20);
  matrix const x(memory.numbers(1, tokens * hidden, 1.0f), {{tokens, hidden}});
  std::vector<float const*> up, down;
  for (shunt::index_t e = 0; e < experts; ++e) {
    up.push_back(memory.numbers(100 + std::uint64_t(e), 2 * intermediate * hidden, 0.1f));
    down.push_back(memory.numbers(200 + std::uint64_t(e), hidden * intermediate, 0.1f));
  }
  using expert_weights = shunt::expert_matrix<float>;
  shunt::moe_weights<float> const weights{
      .gate = matrix(memory.numbers(2, experts * hidden, 0.2f), {{experts, hidden}}),
      .up = expert_weights::each(pointers(up), 2 * intermediate, hidden),
      .down = expert_weights::each(pointers(down), hidden, intermediate)};
  shunt::layer_options<> const options{.top_k = 2};

  engine_pool pool(3);
  shunt::host_runner const runner = pool.runner();
  std::size_t bytes = 0;
  float* outputs[2];
  shunt::on_host const policies[2] = {{.runner = &runner}, {.threads = 1}};
  for (int i = 0; i < 2; ++i) {
    shunt::on_host const& on = policies[i];
    outputs[i] = memory.floats(tokens * hidden);
    bytes = shunt::moe_layer_scratch_bytes(on, tokens, weights, options);
    shunt::status const done =
        shunt::moe_layer(on, x, weights, shunt::view<float, 2>(outputs[i], {{tokens, hidden}}),
                         memory.scratch(bytes), options);
    if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;
  }
  bool const same = std::memcmp(outputs[0], outputs[1], sizeof(float) * tokens * hidden) == 0;
  std::printf(
      "%ld jobs on the engine's 3 threads, %zu bytes of its memory as scratch; the bits are "
      "%s those of one thread\n",
      pool.jobs, bytes, same ? "exactly" : "NOT");
  return same && pool.jobs > 0 ? 0 : 1;
}
