#pragma once
// Part of route/expert_choice.cuh: a block finds the score of the last token that its expert takes,
// eight bits at a time, and takes in token order.
#include "shunt/core/ordered.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Where a digit is counted: the lanes' runs of eight begin in banks of their own.
__device__ inline int place_of_digit(int digit) { return digit + digit / 8; }

/// A digit of the last key that is taken, by one warp: of `left` keys that are wanted, `above` have a
/// higher one. Lane 0 has the eight highest digits.
struct last_digit {
  int digit, above, all;
};
__device__ inline last_digit find_digit(int const* counts, int wanted) {
  int const top = 255 - 8 * lane_of_thread();
  int mine = 0;
  for (int i = 0; i < 8; ++i) mine += counts[place_of_digit(top - i)];
  int const up_to = warp_prefix(mine), all = __shfl_sync(all_lanes, up_to, warp_lanes - 1);
  wanted = wanted < all ? wanted : all;
  int above = up_to - mine, digit = top;
  bool const mine_has_it = above < wanted && wanted <= up_to;
  while (mine_has_it && above + counts[place_of_digit(digit)] < wanted) {
    above += counts[place_of_digit(digit--)];
  }
  unsigned const here = __ballot_sync(all_lanes, mine_has_it);
  int const lane = here != 0 ? __ffs(static_cast<int>(here)) - 1 : 0;
  return {__shfl_sync(all_lanes, digit, lane), __shfl_sync(all_lanes, above, lane), all};
}

/// Keys above `key` are taken, and the first `equal` that equal it.
struct cut {
  std::uint32_t key;
  int equal, taken;
};

/// Where the `wanted` best of a column end, by one block.
__device__ inline cut find_cut(float const* column, offset_t tokens, int wanted) {
  __shared__ int counts[256 + 256 / 8];
  __shared__ last_digit found;
  std::uint32_t const none = shunt::detail::order_of(-__builtin_inff());
  cut at{0, wanted, wanted};
  for (int shift = 24; shift >= 0; shift -= 8) {
    std::uint32_t const known = shift == 24 ? 0 : ~0u << (shift + 8);
    auto const first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
    for (int i = first; i < 256 + 256 / 8; i += step) counts[i] = 0;
    __syncthreads();
    for (offset_t base = 0; base < tokens; base += blockDim.x) {
      offset_t const t = base + threadIdx.x;
      std::uint32_t const key = t < tokens ? shunt::detail::order_of(column[t]) : 0;
      bool const counted = key > none && (key & known) == at.key;
      // Equal digits of a warp are one addition: scores have few exponents.
      int const digit = counted ? static_cast<int>(key >> shift & 255) : 256;
      unsigned const same = __match_any_sync(all_lanes, digit);
      if (counted && (same & lanes_below()) == 0) {
        atomicAdd(counts + place_of_digit(digit), __popc(same));
      }
    }
    __syncthreads();
    if (threadIdx.x < warp_lanes) {
      last_digit const d = find_digit(counts, at.equal);
      if (threadIdx.x == 0) found = d;
    }
    __syncthreads();
    last_digit const d = found;
    if (shift == 24) at.taken = at.equal = min(wanted, d.all);
    at.key |= static_cast<std::uint32_t>(d.digit) << shift;
    at.equal -= d.above;
  }
  if (at.taken == 0) at.key = ~0u;  // no key is
  return at;
}

SHUNT_KERNEL void __launch_bounds__(tuning::lone_block, 1) take_tokens(expert_choice_job job) {
  __shared__ int counts[tuning::lone_block / warp_lanes];
  auto const& out = job.out;
  int const warps = static_cast<int>(blockDim.x) / warp_lanes;
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  offset_t const tokens = job.row.blocks.length, each = out.token.extent(1);
  for (offset_t e = blockIdx.x; e < job.row.rule.experts; e += gridDim.x) {
    float const* const column = job.scratch.columns + e * job.scratch.padded;
    cut const last = find_cut(column, tokens, static_cast<int>(min(each, tokens)));
    int above = 0, equal = 0;  // before these tokens
    for (offset_t base = 0; base < tokens; base += blockDim.x) {
      offset_t const t = base + threadIdx.x;
      float const score = t < tokens ? column[t] : 0.0f;
      std::uint32_t const key = t < tokens ? shunt::detail::order_of(score) : 0;
      unsigned const higher = __ballot_sync(all_lanes, t < tokens && key > last.key);
      unsigned const level = __ballot_sync(all_lanes, t < tokens && key == last.key);
      // Both counts of a warp in one word: a block has 1024 tokens at most.
      if (lane_of_thread() == 0) counts[warp] = __popc(higher) << 16 | __popc(level);
      __syncthreads();
      int const mine = lane_of_thread() < warps ? counts[lane_of_thread()] : 0;
      int const up_to = warp_prefix(mine), before = __shfl_sync(all_lanes, up_to - mine, warp);
      int const all = __shfl_sync(all_lanes, up_to, warp_lanes - 1);
      int const my_above = above + (before >> 16) + __popc(higher & lanes_below());
      int const my_equal = equal + (before & 0xffff) + __popc(level & lanes_below());
      unsigned const me = 1u << lane_of_thread();
      if ((higher & me) != 0 || ((level & me) != 0 && my_equal < last.equal)) {
        int const place = my_above + min(my_equal, last.equal);
        out.token(e, place) = static_cast<index_t>(t);
        out.gate(e, place) = __fmul_rn(score, job.row.options.scale);
        if (out.coverage) atomicAdd(&out.coverage[t], 1);
      }
      above += all >> 16;
      equal += all & 0xffff;
      __syncthreads();
    }
    for (offset_t i = last.taken + threadIdx.x; i < each; i += blockDim.x) {
      out.token(e, i) = -1;
      out.gate(e, i) = 0.0f;
    }
    if (out.counts && threadIdx.x == 0) out.counts[e] = last.taken;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
