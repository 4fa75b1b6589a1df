#pragma once
// The device's size: an A100's multiprocessor, few of them.

#include <cstddef>

#include "machine/code.hpp"

namespace softgpu::limits {

inline constexpr int multiprocessors = 8;  // few: waves and tails show up in small tests
inline constexpr int shared_per_block = 48 * 1024;
inline constexpr int shared_opt_in = 163 * 1024, shared_per_sm = 164 * 1024;
inline constexpr int shared_reserved = 1024;  // of each block
inline constexpr int registers_per_sm = 65536, threads_per_sm = 2048, blocks_per_sm = 32;

/// Registers a thread takes: what the decoder gave it, as far as a device would.
int registers_of(kernel const& k);
/// Blocks of a kernel that fit a multiprocessor at once.
int resident_blocks(kernel const& k, int threads, std::size_t dynamic_shared);

}  // namespace softgpu::limits
