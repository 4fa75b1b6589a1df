#pragma once
/// The numbers of the CUDA backend, each with its reason. None has been measured on a GPU yet.
namespace shunt::cuda::tuning {

/// Threads of a block whose warps work alone: eight warps hide latency and leave the registers of a
/// multiprocessor to several blocks. Reasoned.
inline constexpr int threads = 256;

/// Threads at most of a block that is alone with its job (all sequences, or an expert's column): what
/// a block may have. Reasoned.
inline constexpr int lone_block = 1024;

/// Words of 16 bytes that a lane keeps when it copies a token to its rows: a warp moves 4 KiB, a row
/// of 2048 bf16, with all loads in flight. Reasoned.
inline constexpr int words_in_flight = 8;

/// Slots that one warp counts and places, at least: 16 steps of 32. Reasoned.
inline constexpr int slots_per_chunk = 512;

/// Chunks at most: what one warp scans for an expert in 32 steps. Reasoned.
inline constexpr int most_chunks = 1024;

/// Slots up to which a plan is made by one block in one launch: about as long as the launches that
/// this saves. Reasoned.
inline constexpr int slots_of_one_block = 16384;

/// Single elements that a lane loads before it uses the first: 1 KiB of floats a warp in flight, for
/// rows whose sums leave a lane every 32nd element. Reasoned.
inline constexpr int elements_in_flight = 8;

/// Blocks that share a table's entries among them: each reads all ids, which they then do about this
/// often, from L2. Reasoned.
inline constexpr int embedding_blocks = 1024;

/// Sequences times key/value heads that fill a device with a block each when decoding; where there are
/// fewer, heads are cut into panels of 32 columns, and keys are read once a panel. Reasoned.
inline constexpr int attention_parts = 256;

/// Steps of 64 bytes of terms that a tile of a product on tensor cores keeps in shared memory. Three
/// hide a step's latency behind the sums of two, and leave the 64-row tile twice in the 100 KB of
/// sm_86, 89 and 120; where weights only stream through, five are 40 KB of them in flight. Reasoned.
inline constexpr int tensor_steps(int rows) { return rows == 16 ? 5 : 3; }

}  // namespace shunt::cuda::tuning
