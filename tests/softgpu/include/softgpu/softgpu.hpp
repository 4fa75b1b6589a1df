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
  uninitialised,      // a read of bytes nobody wrote
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

/// What one launch executed. Instructions by kind, per warp and per lane.
struct launch_counts {
  std::string kernel;
  std::uint64_t warp_instructions = 0, lane_instructions = 0;
  std::uint64_t integer = 0, real = 0, special = 0, mma = 0, memory = 0, control = 0, convert = 0,
                move = 0;  // lane instructions
  std::uint64_t divergent_branches = 0, barriers = 0;
  double seconds = 0;
};

/// The counts of the launches since the last call, in launch order.
std::vector<launch_counts> take_counts();

struct settings {
  int threads = 0;            // host threads that run blocks; 0: all cores
  int architecture = 80;      // the compute capability the device shows, times ten
  bool print_reports = true;  // to stderr, as they come
  // Work runs when a call enqueues it, not when one waits for it. SOFTGPU_EAGER=1 sets it.
  bool eager = false;
};
settings& configure();

}  // namespace softgpu
