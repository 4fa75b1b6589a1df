// Runs a launch: blocks in order, spread over host threads. A thread keeps a block until it has
// finished or has spun for a while; then it takes another beside it, so that a block that waits for
// a later one gets it. A cooperative launch keeps all of its blocks going at once.
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"
#include "machine/block.hpp"
#include "machine/crew.hpp"

namespace softgpu {
namespace {

constexpr std::int32_t turn_length = 1 << 16;      // ops run backward per warp and turn
constexpr std::int32_t cooperative_turn = 1 << 8;  // its blocks wait for each other by design
constexpr int turns_before_company = 4;            // turns before a thread takes a second block
constexpr std::size_t most_resident = 64;          // blocks of one thread, unless cooperative

struct aligned_bytes {
  std::byte* data = nullptr;
  std::size_t size = 0;
  explicit aligned_bytes(std::size_t bytes) : size((bytes + 63) / 64 * 64) {
    data = static_cast<std::byte*>(std::aligned_alloc(64, std::max<std::size_t>(size, 64)));
  }
  aligned_bytes(aligned_bytes const&) = delete;
  ~aligned_bytes() { std::free(data); }
};

/// A block with the memory it runs in. Its memory serves one block after the other.
struct seat {
  softgpu::block block;
  aligned_bytes registers, shared, local;
  std::size_t register_stride;
  int turns = 0;

  static std::size_t registers_of(launch const& l) {
    kernel const& k = *l.kernel;
    std::size_t most = 0, all = 0;
    for (auto const& [id, c] : k.functions) {
      most = std::max(most, std::size_t(c->frame_bytes));
      all += std::size_t(c->frame_bytes);
    }
    return k.functions.size() == 1 ? all : all + 16 * most;
  }
  static std::size_t warps_of(launch const& l) {
    return (l.block.count() + lanes_per_warp - 1) / lanes_per_warp;
  }

  explicit seat(launch& l)
      : registers(registers_of(l) * warps_of(l)),
        shared(std::size_t(l.shared_bytes) + 64),
        local(std::size_t(l.kernel->local_bytes) * lanes_per_warp * warps_of(l)),
        register_stride(registers_of(l)) {
    block.launch = &l;
    block.threads = static_cast<std::uint32_t>(l.block.count());
    block.shared = shared.data;
    block.shared_bytes = l.shared_bytes;
    for (std::size_t i = 0; i < warps_of(l); ++i) {
      auto w = std::make_unique<warp>();
      w->block = &block;
      w->index = static_cast<int>(i);
      w->registers = registers.data + i * register_stride;
      w->register_bytes = register_stride;
      w->local_stride = l.kernel->local_bytes;
      w->local = local.data + i * lanes_per_warp * std::size_t(w->local_stride);
      block.warps.push_back(std::move(w));
    }
  }

  void begin(std::uint64_t linear) {
    launch& l = *block.launch;
    block.linear = linear;
    block.index = {static_cast<std::uint32_t>(linear % l.grid.x),
                   static_cast<std::uint32_t>(linear / l.grid.x % l.grid.y),
                   static_cast<std::uint32_t>(linear / l.grid.x / l.grid.y)};
    block.barriers = {};
    block.barrier_epoch = 0;
    block.apart = false;
    turns = 0;
    for (auto const& w : block.warps) {
      std::uint32_t const first = static_cast<std::uint32_t>(w->index) * lanes_per_warp;
      std::uint32_t const lanes = std::min<std::uint32_t>(lanes_per_warp, block.threads - first);
      w->idle = lanes == lanes_per_warp ? 0 : ~((lane_mask{1} << lanes) - 1);
      w->active = 0;
      w->group_count = 1;
      w->groups[0] = {};
      w->groups[0].lanes = ~w->idle;
      w->groups[0].at.code = l.kernel->entry;
    }
    checks::begin_block(block);
  }

  void end() {
    launch& l = *block.launch;
    checks::end_block(block);
    for (auto const& w : block.warps) {
      for (int k = 0; k < static_cast<int>(kind::count); ++k) {
        l.executed[k].fetch_add(w->executed[k], std::memory_order_relaxed);
        l.executed_lanes[k].fetch_add(w->executed_lanes[k], std::memory_order_relaxed);
        w->executed[k] = w->executed_lanes[k] = 0;
      }
      l.divergent_branches.fetch_add(w->divergent_branches, std::memory_order_relaxed);
      w->divergent_branches = 0;
    }
    std::lock_guard const lock(l.counts_mutex);
    l.counts.add(block.counts);
    block.counts = {};
  }
};

/// One host thread's work.
void work(launch& l, std::atomic<std::uint64_t>& next, std::uint64_t total, std::size_t residents) {
  std::vector<std::unique_ptr<seat>> running, spare;
  auto const take = [&] {
    std::uint64_t const block = next.fetch_add(1);
    if (block >= total) return false;
    if (spare.empty()) spare.push_back(std::make_unique<seat>(l));
    running.push_back(std::move(spare.back()));
    spare.pop_back();
    running.back()->begin(block);
    return true;
  };
  std::int32_t const turn = l.cooperative ? cooperative_turn : turn_length;
  bool more = true;
  while (more || !running.empty()) {
    while (more && running.size() < residents) more = take();
    for (std::size_t i = 0; i < running.size();) {
      seat& s = *running[i];
      ++s.turns;
      if (!l.stop.load(std::memory_order_relaxed) && !s.block.turn(turn)) {
        if (ended_as_hung(s.block)) break;
        ++i;
        continue;
      }
      s.end();
      spare.push_back(std::move(running[i]));
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (l.stop.load(std::memory_order_relaxed)) return;
    // All of them spin: perhaps for a block that has not begun.
    bool const stuck = !running.empty() && running.back()->turns >= turns_before_company;
    if (more && stuck && (l.cooperative || running.size() < most_resident))
      more = take();
    else if (!running.empty() && running.front()->turns > 1)
      std::this_thread::yield();
  }
}

}  // namespace

void run(launch& l) {
  note_progress(l);
  if (configure().count_unique_bytes) l.touched = std::make_unique<touched_bytes>();
  std::uint64_t const total = l.grid.count();
  std::size_t threads = configure().threads > 0 ? std::size_t(configure().threads)
                                                : std::max(1u, std::thread::hardware_concurrency());
  threads = std::size_t(std::min<std::uint64_t>(threads, total));
  std::size_t const residents = l.cooperative ? std::size_t(total + threads - 1) / threads : 1;
  std::atomic<std::uint64_t> next = 0;
  with_helpers(threads - 1, [&] { work(l, next, total, residents); });
}

}  // namespace softgpu
