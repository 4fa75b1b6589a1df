#pragma once
// What a test may ask of the software device beside the CUDA runtime: the reports of its checks,
// the counts of a launch, and settings. Nothing here is needed to run CUDA code.

#include <cstdint>
#include <string>
#include <vector>

namespace softgpu {

enum class fault : std::uint8_t {
  out_of_bounds,      // an address no allocation holds
  use_after_free,     // an address of a freed allocation
  misaligned,         // an address not a multiple of the access's size
  read_only,          // a write to constant memory
  uninitialized,      // a read of bytes nobody wrote
  shared_race,        // conflicting accesses to shared memory without a barrier between
  divergent_barrier,  // an aligned barrier not executed by the whole warp
  deadlock,           // no thread of the block can go on
  inactive_lane,      // a shuffle's source lane does not take part
  assertion,          // __assertfail
  trap,               // trap, brkpt, unreachable code
  stack_overflow,     // local memory or registers of calls exhausted
  leak,               // device memory still allocated at exit
  invalid_use,        // the runtime was called against its rules
};

char const* name_of(fault f);

struct report {
  fault what{};
  std::string kernel;
  std::uint32_t block[3] = {}, thread[3] = {};
  int ptx_line = 0;
  std::string ptx;   // the instruction
  std::string file;  // source, where -lineinfo was given
  int line = 0;
  std::string inlined_file;  // where that was inlined at, if it was
  int inlined_line = 0;
  std::string sentence;
  std::uint64_t count = 1;  // occurrences at this instruction in this launch
  std::string to_string() const;
};

/// The reports since the last call, oldest first. A program that leaves any behind exits with 86.
std::vector<report> take_reports();

/// What one launch executed and what it asked of memory.
struct launch_counts {
  std::string kernel;
  std::uint32_t grid[3] = {}, block[3] = {};
  std::uint64_t static_shared = 0, dynamic_shared = 0;  // bytes of a block
  std::uint64_t launches = 1;                           // more where launches have been added up
  std::uint64_t warp_instructions = 0, lane_instructions = 0;
  std::uint64_t integer = 0, real = 0, special = 0, mma = 0, memory = 0, control = 0, convert = 0,
                move = 0;  // lane instructions
  std::uint64_t divergent_branches = 0, barriers = 0;

  // Global memory. Bytes: what the lanes asked for. Sectors: the pieces of 32 bytes that each
  // warp's instruction touches; least: how few of them would hold its distinct bytes.
  std::uint64_t bytes_read = 0, bytes_written = 0, bytes_atomic = 0;
  std::uint64_t sectors_read = 0, sectors_written = 0, sectors_atomic = 0;
  std::uint64_t least_sectors_read = 0, least_sectors_written = 0, least_sectors_atomic = 0;
  // Different bytes of the whole launch; atomics write. Only with settings::count_unique_bytes.
  std::uint64_t unique_bytes_read = 0, unique_bytes_written = 0;
  std::uint64_t local_bytes = 0;

  // Shared memory, by warp instructions. Wavefronts: passes over the 32 banks of 4 bytes;
  // conflicts: those beyond the least.
  std::uint64_t shared_accesses = 0, shared_wavefronts = 0, bank_conflicts = 0;
  double seconds = 0;

  /// What would move if there were no cache at all.
  [[nodiscard]] std::uint64_t dram_bytes() const {
    return 32 * (sectors_read + sectors_written + sectors_atomic);
  }
};

/// The counts of the launches since the last call, in launch order.
std::vector<launch_counts> take_counts();

/// The launches of each kernel added up, in the order of their first one.
std::vector<launch_counts> by_kernel(std::vector<launch_counts> const& launches);

/// What ptxas makes of a kernel.
struct kernel_resources {
  std::string architecture;
  int registers = 0, barriers = 0;
  int stack_bytes = 0, spill_store_bytes = 0, spill_load_bytes = 0;  // of a thread
  int shared_bytes = 0;                                              // of a block, static
  std::string error;                                                 // why there is nothing to tell
};

/// Asks ptxas (once per kernel and architecture) what a kernel takes: its host function, as in
/// `resources_of(reinterpret_cast<void const*>(&kernel))`.
std::vector<kernel_resources> resources_of(void const* host_function,
                                           std::vector<std::string> const& architectures = {
                                               "sm_80", "sm_90a", "sm_100"});

/// A line for each, and the same as JSON (an array of objects).
std::string table_of(std::vector<launch_counts> const& counts);
std::string json_of(std::vector<launch_counts> const& counts);

struct settings {
  int threads = 0;            // host threads that run blocks; 0: all cores
  int architecture = 80;      // the compute capability the device shows, times ten
  bool print_reports = true;  // to stderr, as they come
  // Work runs when a call enqueues it, not when one waits for it. SOFTGPU_EAGER=1 sets it.
  bool eager = false;
  bool count_unique_bytes = false;  // launch_counts::unique_bytes_…: a bitmap, some time
  // A launch none of whose threads has exited for so long is ended as hung; 0: never.
  double watchdog_seconds = 120;
};
settings& configure();

}  // namespace softgpu
