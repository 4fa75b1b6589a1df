#pragma once
// A block of warps with its shared memory and barriers, and the launch it belongs to.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "counters/traffic.hpp"
#include "machine/warp.hpp"
#include "softgpu/softgpu.hpp"

namespace softgpu {

struct dim {
  std::uint32_t x = 1, y = 1, z = 1;
  [[nodiscard]] std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

/// One launch: what every block of it shares.
struct launch {
  softgpu::kernel const* kernel = nullptr;
  dim grid, block;
  std::int64_t dynamic_shared = 0;
  std::uint64_t parameters = 0;   // device address of the parameter block
  std::int64_t shared_bytes = 0;  // whole shared window of a block
  bool cooperative = false;
  std::uint64_t workspace = 0;  // of a cooperative grid's barrier: %envreg1, %envreg2
  std::uint64_t id = 0;         // of this launch in the process
  std::atomic<std::uint64_t> executed[static_cast<int>(kind::count)] = {};
  std::atomic<std::uint64_t> executed_lanes[static_cast<int>(kind::count)] = {};
  std::atomic<std::uint64_t> divergent_branches = 0, barriers = 0;
  std::mutex counts_mutex;
  traffic counts;                           // of the blocks that have ended
  std::unique_ptr<touched_bytes> touched;   // where unique bytes are counted
  std::atomic<std::int64_t> alive_at = 0;   // when a thread last exited, of steady_clock
  std::atomic<fault> failed = fault::trap;  // the last fatal fault, where has_failed
  std::atomic<bool> has_failed = false;
  std::atomic<bool> stop = false;  // a fault that ends the launch (trap, assert, deadlock)
};

struct barrier_state {
  bool open = false;           // somebody has arrived
  std::uint32_t expected = 0;  // threads; 0: all that have not exited
  std::uint32_t arrived = 0;
  std::uint32_t count = 0;  // bar.red: how many predicates were true
};

struct block {
  softgpu::launch* launch = nullptr;
  dim index;  // ctaid
  std::uint64_t linear = 0;
  std::uint32_t threads = 0;
  std::vector<std::unique_ptr<warp>> warps;
  std::byte* shared = nullptr;  // address 0 of the shared window
  std::int64_t shared_bytes = 0;
  std::array<barrier_state, 17> barriers;  // the last is a cluster's
  std::uint32_t barrier_epoch = 0;         // counts completed whole-block barriers
  bool apart = false;                      // lanes of a warp arrive at aligned barriers one by one
  std::shared_ptr<void> shared_shadow;     // of the checks
  traffic counts;

  /// Runs every warp a turn. True once the block has finished.
  bool turn(std::int32_t quantum);
  /// Threads of the warp's mask arrive; `wait` says whether they stay (bar.sync) or go on.
  void arrive(warp& w, int barrier, std::uint32_t expected, lane_mask true_predicates, bool wait,
              op const* finish);
  /// The first thread's coordinates and one lane's.
  [[nodiscard]] dim thread(warp const& w, int lane) const;
  [[nodiscard]] bool finished() const;

 private:
  void complete(int barrier);
};

/// No warp goes on: reports the lanes that wait for the rest of their warp at an aligned barrier and
/// lets the block's barriers take them as they are. False where there are none.
/// (families/barrier.cpp)
bool report_divergent_barriers(block& b);

/// Writes a barrier's reduction into the destination of the waiting op (families/barrier.cpp).
void deliver_reduction(warp& w, group const& waiting, op const& o, std::uint32_t true_count,
                       std::uint32_t threads);

/// Runs all blocks of a launch on the device's threads and returns when they are done.
void run(launch& l);

}  // namespace softgpu
