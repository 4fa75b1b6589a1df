#pragma once
// What launches executed: kept for take_counts(), and written when the process ends where the
// environment asks for it:
//
//   SOFTGPU_COUNTS=table         a table per kernel on stderr
//   SOFTGPU_COUNTS=<file>.json   the same as JSON; %p in the name becomes the process id
//   SOFTGPU_PTXAS=1              adds what ptxas says for sm_80, sm_90a and sm_100
//   SOFTGPU_PTXAS=sm_90a,…       … for these

#include "machine/block.hpp"

namespace softgpu::counters {

/// Keeps what a finished launch executed.
void record(launch const& l, double seconds);
/// Writes what the environment asks for.
void at_exit();

/// A kernel's counts with what ptxas says of it.
struct summary {
  launch_counts counts;
  std::vector<kernel_resources> resources;
};
std::string table(std::vector<summary> const& kernels);
std::string json(std::vector<summary> const& kernels);

/// What ptxas makes of a kernel for an architecture; remembered.
kernel_resources ask_ptxas(kernel const& k, std::string const& architecture);
/// Adds b to a: the launches of one kernel.
void add(launch_counts& a, launch_counts const& b);

}  // namespace softgpu::counters
