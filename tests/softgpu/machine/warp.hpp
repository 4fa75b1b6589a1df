#pragma once
// A warp: 32 lanes, their registers and where each of them is.
//
// Lanes at the same place (function, pc, frame) form a group and execute together. The current
// group lies open in the warp; the others wait in `groups`. The group at the deepest call and there
// at the lowest pc runs first, so that lanes which parted meet again; a group that has spun through
// its budget gives way to the next, so that a lane spinning on another lane's progress does not
// starve it.

#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "machine/code.hpp"
#include "machine/op.hpp"

namespace softgpu {

struct block;

/// Where lanes of one group stand.
struct place {
  softgpu::code const* code = nullptr;
  std::uint32_t pc = 0;         // the next op
  std::uint32_t depth = 0;      // calls
  std::uint32_t registers = 0;  // byte offset of the frame's registers
  std::uint32_t local = 0;      // byte offset of the frame's local memory
  friend bool operator==(place const&, place const&) = default;
};

enum class state : std::uint8_t {
  runnable,
  meeting,     // at a warp-level instruction until all lanes of warp::awaited are there
  at_barrier,  // at block barrier `barrier`
};

struct group {
  lane_mask lanes = 0;
  place at;
  softgpu::state state = softgpu::state::runnable;
  bool anywhere = false;  // meeting: at any place (bar.warp.sync)
  int barrier = -1;
  op const* finish = nullptr;  // at_barrier: gets the result of bar.red
};

/// A cp.async that has been issued and not yet waited for.
struct pending_copy {
  std::byte* to = nullptr;
  std::byte const* from = nullptr;
  std::uint8_t lane = 0, bytes = 0, source_bytes = 0;  // the rest of `bytes` becomes zero
  std::uint32_t group = 0;                             // of its lane
};

struct alignas(64) warp {
  // The current group.
  std::byte* bank[2] = {};  // registers of the frame; constants, less one
  op const* ops = nullptr;
  std::uint32_t pc = 0;     // the next op
  std::uint32_t limit = 0;  // where waiting lanes stand: leave the loop there; 0: leave at once
  lane_mask active = 0;     // the current group's lanes
  lane_mask mask = 0;       // those of them that execute this op
  lane_mask idle = 0;       // lanes that do not exist or have exited: writing them is harmless
  std::int32_t budget = 0;  // ops this group may still run backward in its turn
  place here;               // code, depth, frame of the current group (its pc is `pc`)

  softgpu::block* block = nullptr;
  int index = 0;                   // of the warp in its block
  std::byte* registers = nullptr;  // the whole register file
  std::size_t register_bytes = 0;
  std::byte* local = nullptr;  // lane-major local memory
  std::int64_t local_stride = 0;

  std::array<group, lanes_per_warp> groups;
  int group_count = 0;
  lane_mask awaited[lanes_per_warp] = {};  // by lanes of meeting groups: whom they wait for
  std::uint64_t executed[static_cast<int>(kind::count)] = {};        // warp instructions
  std::uint64_t executed_lanes[static_cast<int>(kind::count)] = {};  // lane instructions
  std::uint64_t divergent_branches = 0;

  struct return_to {
    place at[lanes_per_warp];
  };
  std::vector<return_to> returns;                  // by depth
  std::vector<pending_copy> copies;                // in order of issue
  std::uint32_t copy_groups[lanes_per_warp] = {};  // committed, by lane

  template <class T> [[nodiscard]] T* row(ref r) const {
    return reinterpret_cast<T*>(bank[r.at & 1] + r.at);
  }
  [[nodiscard]] lane_mask& predicate(ref r) const { return *row<lane_mask>(r); }

  /// Runs until every lane waits or has exited, or the budget is spent.
  enum class outcome { finished, waiting, spent };
  outcome run(std::int32_t quantum);
  /// False where every lane waits for somebody else.
  [[nodiscard]] bool can_run();

  // For handlers.
  void jump(std::uint32_t target) {  // of all active lanes
    if (target <= pc) {
      budget -= static_cast<std::int32_t>(pc - target) + 1;
      if (budget < 0) limit = 0;
    }
    pc = target;
  }
  void split(lane_mask leaving, std::uint32_t target);  // those lanes go to target
  void exit_lanes(lane_mask leaving);
  void call(code const& callee);  // of all lanes of mask
  void return_lanes(lane_mask leaving);
  /// The lanes of mask whose members[lane] are all here: those execute the op now. The others wait
  /// at this op and execute it once theirs are there too.
  lane_mask meet(lane_mask const* members, op const& o);
  /// The lanes of mask wait until all of their members wait so, wherever they are.
  void meet_anywhere(lane_mask const* members);
  /// The lanes of mask wait at the block's barrier; the op gets the result of a reduction.
  void wait_at_barrier(int barrier, op const* finish);
  void release_barrier(int barrier);
  /// Ends the turn of this warp (nanosleep, yield).
  void give_way() { limit = 0, budget = -1; }

 private:
  void execute();
  void open(group const& g);
  void store_current();
  bool choose();
  void remove_current(lane_mask leaving);
  void wait(lane_mask lanes, softgpu::state why, std::uint32_t at);
  void wake_ready();
  void merge(softgpu::state which);
  int turn_ = 0;
  std::int32_t patience_ = 0;
  bool rotate_ = false;
};

}  // namespace softgpu
