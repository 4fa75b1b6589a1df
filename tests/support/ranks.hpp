#pragma once
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include "shunt/across/processes.hpp"
#include "shunt/across/threads.hpp"

/// Ranks for tests: the same function on each, as threads or as processes.
namespace shunt::test {

using std::chrono::milliseconds;

/// Runs body(x) for each rank in a thread of its own.
inline void on_threads(int ranks, std::function<void(rank_threads&)> const& body,
                       milliseconds deadline = milliseconds(60000)) {
  rank_threads_table table(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      rank_threads x(table, r, deadline);
      body(x);
    });
  }
  for (std::thread& t : threads) t.join();
}

/// Plain values that processes and their parent see alike.
template <class T> class shared_values {
 public:
  static_assert(std::is_trivially_copyable_v<T>);
  explicit shared_values(std::size_t count) : count_(count) {
    void* const at =
        mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(at);
  }
  ~shared_values() { munmap(data_, bytes()); }
  shared_values(shared_values const&) = delete;
  shared_values& operator=(shared_values const&) = delete;
  [[nodiscard]] T& operator[](std::size_t i) const noexcept { return data_[i]; }
  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }

 private:
  [[nodiscard]] std::size_t bytes() const noexcept { return count_ * sizeof(T) + 1; }
  std::size_t count_;
  T* data_;
};

/// Runs body(x) for each rank in a process of its own, which ends with 0 where body returned true. Returns what
/// waitpid said of each. `watch`, if any, runs in the parent meanwhile, with the processes' ids.
inline std::vector<int> on_processes(
    int ranks, std::function<bool(rank_processes&)> const& body,
    milliseconds deadline = milliseconds(60000), std::size_t box_bytes = std::size_t{1} << 16,
    std::function<void(std::vector<pid_t> const&)> const& watch = {}) {
  rank_processes_table table(ranks, box_bytes);
  EXPECT_TRUE(table.ok());
  std::vector<pid_t> ids;
  for (int r = 0; r < ranks; ++r) {
    pid_t const id = fork();
    if (id == 0) {
      bool good = false;
      {
        rank_processes x(table, r, deadline);
        good = body(x) && !testing::Test::HasFailure();
      }
      _exit(good ? 0 : 1);
    }
    ids.push_back(id);
  }
  if (watch) watch(ids);
  std::vector<int> ends;
  for (pid_t const id : ids) {
    int end = -1;
    waitpid(id, &end, 0);
    ends.push_back(end);
  }
  return ends;
}

inline void expect_all_good(std::vector<int> const& ends) {
  for (std::size_t r = 0; r < ends.size(); ++r) {
    EXPECT_TRUE(WIFEXITED(ends[r]) && WEXITSTATUS(ends[r]) == 0) << "rank " << r;
  }
}

}  // namespace shunt::test
