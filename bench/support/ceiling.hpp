#pragma once
#include <cstddef>

/// What this machine can do at most, measured in this process: the denominators of `of_ceiling` and
/// `of_roofline`. Machines differ from day to day, shares of these do not.
namespace bench {

/// Float fused multiply-adds of `threads` threads at once, in GFLOP/s (an FMA counts as two), with
/// the widest instruction set that the library would choose (see SHUNT_ISA). The best so far: measured
/// again when some seconds have passed.
[[nodiscard]] double fma_gflops(int threads);

/// The same of the calling thread, in the millisecond that this call takes.
[[nodiscard]] double fma_gflops_now();

/// The same of integers: of 16 bits, multiplied and added in pairs, and of bytes in fours. What the instruction set
/// has of the two bounds int8_rows with int8 weights. 0 where the library has no instructions of their own for them.
[[nodiscard]] double pairs_gops_now();
[[nodiscard]] double fours_gops_now();

/// The same of pairs of bf16, by vdpbf16ps: against fma_gflops_now it shows whether isa::best should take it. 0 where
/// the processor has none.
[[nodiscard]] double bf16_dots_gflops_now();
/// The same of tiles of AMX, of bf16 and of bytes. 0 where there are none, or Linux does not permit them.
[[nodiscard]] double bf16_tiles_gflops_now();
[[nodiscard]] double int8_tiles_gops_now();

/// Bytes per second that `threads` threads read at once from memory that no cache holds, each in one
/// stream, four or eight, whichever is fastest.
[[nodiscard]] double read_bandwidth(int threads);

/// Threads of the machine.
[[nodiscard]] int cores();

}  // namespace bench
