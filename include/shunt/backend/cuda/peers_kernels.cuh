#pragma once
#include <cstddef>
#include <cstdint>

#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/view.hpp"

// Kernels of ranks that see each other's memory: signals between devices, and copies to and from windows.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int most_peers = 32;
inline constexpr std::size_t chain_bytes = 16384;  // of a window, for what goes along the ranks

/// The beginning of a rank's window, which the others read and signal in. All numbers count up and never go back.
struct alignas(256) peer_head {
  std::uint64_t posted;            // posts of this rank that the others may read
  std::uint64_t chain_posted;      // what it has passed on
  std::uint64_t chain_read;        // how many of those the rank behind has taken over
  std::uint64_t read[most_peers];  // how many posts each rank has read
  offset_t start[most_peers + 1];  // rows [start[r], start[r+1]) of the post are for rank r
};
/// The windows as this rank's device sees them, and its own counters.
struct peer_windows {
  std::byte* at[most_peers];
  std::uint64_t*
      step;  // [2] posts, and links of the chain: of the device, so that a replay counts on
  int rank, ranks;

  [[nodiscard]] SHUNT_HD peer_head* head(int r) const noexcept {
    return reinterpret_cast<peer_head*>(at[r]);
  }
  [[nodiscard]] SHUNT_HD std::byte* chain(int r) const noexcept {
    return at[r] + sizeof(peer_head);
  }
  [[nodiscard]] SHUNT_HD std::byte* rows(int r) const noexcept { return chain(r) + chain_bytes; }
};

__device__ inline std::uint64_t acquired(std::uint64_t const* from) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
__device__ inline void release(std::uint64_t* to, std::uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" : : "l"(to), "l"(value) : "memory");
}
__device__ inline void wait_until(std::uint64_t const* counter, std::uint64_t least) {
  while (acquired(counter) < least) __nanosleep(100);
}

/// The next post: once every rank has read the one before.
SHUNT_KERNEL void open_post(peer_windows w) {
  std::uint64_t const before = *w.step;
  __syncthreads();
  int const p = static_cast<int>(threadIdx.x);
  if (p < w.ranks && p != w.rank) wait_until(&w.head(w.rank)->read[p], before);
  if (p == 0) *w.step = before + 1;
}
/// Tells that the post is there, and waits for those of all ranks.
SHUNT_KERNEL void meet_posts(peer_windows w) {
  std::uint64_t const now = *w.step;
  int const p = static_cast<int>(threadIdx.x);
  if (p == 0) release(&w.head(w.rank)->posted, now);
  if (p < w.ranks && p != w.rank) wait_until(&w.head(p)->posted, now);
}
/// Tells all ranks that their posts have been read.
SHUNT_KERNEL void close_post(peer_windows w) {
  int const p = static_cast<int>(threadIdx.x);
  if (p < w.ranks && p != w.rank) release(&w.head(p)->read[w.rank], *w.step);
}

/// Into this rank's window: all rows up to the last that anyone gets, or, without `start`, `bytes` bytes.
template <class Word>
SHUNT_KERNEL void copy_out(peer_windows w, Word const* from, offset_t const* start,
                           offset_t row_bytes, offset_t bytes) {
  if (start != nullptr) {
    bytes = start[w.ranks] * row_bytes;
    for (offset_t r = grid_thread(); r <= w.ranks; r += grid_threads()) {
      w.head(w.rank)->start[r] = start[r];
    }
  }
  auto* const to = reinterpret_cast<Word*>(w.rows(w.rank));
  offset_t const words = bytes / offset_t{sizeof(Word)};
  for (offset_t i = grid_thread(); i < words; i += grid_threads()) to[i] = from[i];
}
/// What each rank's window has for this one, in the order of ranks.
template <class Word>
SHUNT_KERNEL void copy_in(peer_windows w, Word* to, offset_t const* start, offset_t row_bytes,
                          offset_t bytes) {
  constexpr offset_t word = sizeof(Word);
  for (int p = 0; p < w.ranks; ++p) {
    offset_t first = 0, count = bytes, at = p * bytes;
    if (start != nullptr) {
      offset_t const* const theirs = w.head(p)->start;
      first = theirs[w.rank] * row_bytes;
      count = theirs[w.rank + 1] * row_bytes - first;
      at = start[p] * row_bytes;
    }
    auto const* const from = reinterpret_cast<Word const*>(w.rows(p) + first);
    for (offset_t i = grid_thread(); i < count / word; i += grid_threads()) {
      to[at / word + i] = from[i];
    }
  }
}

/// The chain: one block, as what goes along it is short.
SHUNT_KERNEL void pass_link(peer_windows w, std::uint32_t const* from, offset_t words) {
  peer_head* const own = w.head(w.rank);
  std::uint64_t const before = w.step[1];
  if (threadIdx.x == 0) wait_until(&own->chain_read, before);
  __syncthreads();
  auto* const to = reinterpret_cast<std::uint32_t*>(w.chain(w.rank));
  for (offset_t i = threadIdx.x; i < words; i += blockDim.x) to[i] = from[i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  w.step[1] = before + 1;
  release(&own->chain_posted, before + 1);
}
/// `chain_read` of the rank before counts what has been taken over: it is this rank's alone to write.
SHUNT_KERNEL void take_link(peer_windows w, std::uint32_t* to, offset_t words) {
  peer_head* const before = w.head(w.rank - 1);
  std::uint64_t const next = before->chain_read + 1;
  if (threadIdx.x == 0) wait_until(&before->chain_posted, next);
  __syncthreads();
  auto const* const from = reinterpret_cast<std::uint32_t const*>(w.chain(w.rank - 1));
  for (offset_t i = threadIdx.x; i < words; i += blockDim.x) to[i] = from[i];
  __syncthreads();
  if (threadIdx.x == 0) release(&before->chain_read, next);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
